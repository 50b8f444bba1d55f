"""The steps of the live jobs are the same under every configuration: a savepoint outlives a change of it."""

import apache_beam as beam
import pytest

from pipeline.ground.project import Project
from pipeline.ground.spread import spread_keys, subtask_of
from pipeline.samples import live_job as samples
from pipeline.trainer import live_job as train
from tests.command_line import make_shop

CHANGED = {
    'position = "int"\n': 'position = "int"\ncolour = "string"\n',
    '[[fields]]\nname = "item"\n': '[[fields]]\nname = "colour"\ncolumns = ["colour"]\n\n[[fields]]\nname = "item"\n',
    "window_s = 600 ": "window_s = 60 ",
    "batch_size = 256": "batch_size = 32",
    "[logs]\n": "[logs]\npartitions = 3\nshards = 2\n",
}


def steps_of(build, project):
    """What a savepoint hangs on: each step's name, kind and coders, in the order they are put together."""
    pipeline = beam.Pipeline()
    build(pipeline, project)
    parts = pipeline.to_runner_api().components
    coders = {name: part.coder_id for name, part in parts.pcollections.items()}
    return [
        (step.unique_name, step.spec.urn, [coders[i] for i in step.inputs.values()])
        for step in parts.transforms.values()
    ]


@pytest.mark.parametrize("build", [samples.build, train.build], ids=["samples", "train"])
def test_steps_are_the_same_under_every_configuration(build, tmp_path):
    plain = Project.open(make_shop(tmp_path / "plain"))
    changed = Project.open(make_shop(tmp_path / "changed", CHANGED))
    found = steps_of(build, plain)
    assert found == steps_of(build, changed)
    assert len(found) > 5


@pytest.mark.parametrize("parallelism", [1, 2, 3, 5, 8, 90])
def test_shards_spread_evenly_over_any_number_of_subtasks(parallelism):
    for shards in (1, 2, parallelism, 3 * parallelism):
        keys = spread_keys(shards, parallelism)
        assert [key % shards for key in keys] == list(range(shards))
        assert [subtask_of(key, parallelism) for key in keys] == [shard % parallelism for shard in range(shards)]


def test_shards_taken_for_keys_would_leave_a_subtask_without_work():
    assert [subtask_of(key, 4) for key in range(4)] == [3, 1, 0, 3]
