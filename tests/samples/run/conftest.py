"""Worlds that the tests of stored shards and restored jobs start from."""

import pytest

from tests.samples.run.test_samples_job import World, fill


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What an undisturbed run in process emits."""
    world = World(tmp_path_factory.mktemp("calm"))
    fill(world)
    world.run()
    return world.emitted()


@pytest.fixture
def world(tmp_path):
    """The same events, not joined yet."""
    made = World(tmp_path / "live")
    fill(made)
    return made
