"""A ledger that is older than the deltas topic is refused: nothing new is published over what serving has."""

from contextlib import closing

import pytest

from pipeline.errors import DamagedError
from pipeline.logs.open import open_log
from pipeline.publish.delta_topic import DeltaWriter
from pipeline.versions.deltas.delta import decode_delta
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.support.synthetic.commits import MODEL, World, project_in


@pytest.fixture
def writer(tmp_path):
    """The writer of a topic that ends with version 2."""
    project = project_in(tmp_path)
    with closing(open_log(project)) as log, closing(VersionStore(project)) as store:
        world, writer = World(store), DeltaWriter(project, log, 0)
        for _ in range(2):
            encoded = store.delta(world.commit())
            writer.append(decode_delta(encoded), encoded)
        yield writer


@pytest.mark.parametrize("current", [None, VersionId(0, 0, 1, 1)])
def test_a_topic_that_ends_after_current_is_refused(writer, current):
    wanted = rf"deltas/0 ends with version 2 of generation 0, CURRENT is {current}\. hint: .*springtide restore-ledger"
    with pytest.raises(DamagedError, match=wanted):
        writer.refuse_later(current, MODEL)


@pytest.mark.parametrize("current", [VersionId(0, 0, 1, 2), VersionId(0, 0, 1, 3), VersionId(1, 0, 1, 2)])
def test_a_topic_that_ends_at_or_before_current_is_accepted(writer, current):
    writer.refuse_later(current, MODEL)


def test_deltas_of_another_model_are_passed_over(writer):
    writer.refuse_later(None, {"name": "other", "digest": "o" * 64})
