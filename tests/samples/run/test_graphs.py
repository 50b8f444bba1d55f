"""The steps of the live jobs are the same under every configuration: a savepoint outlives a change of it."""

import apache_beam as beam
import pytest

from pipeline.configuration.project import Project
from pipeline.logs.beam.key_spread import spread_keys, subtask_of
from pipeline.samples.run import on_flink as samples
from pipeline.trainer.run import on_flink as train
from tests.support.command.command_line import make_shop

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
    assert len(found) >= 5


@pytest.mark.parametrize("parallelism", [1, 2, 3, 5, 8, 90])
def test_shards_spread_evenly_over_any_number_of_subtasks(parallelism):
    for shards in (1, 2, parallelism, 3 * parallelism):
        keys = spread_keys(shards, parallelism)
        assert [key % shards for key in keys] == list(range(shards))
        assert [subtask_of(key, parallelism) for key in keys] == [shard % parallelism for shard in range(shards)]


def test_keys_go_where_the_classes_of_beam_2_70_and_flink_1_19_send_them():
    keys = [*range(8), 128, 129, 130, 16_384, 16_385]
    # Asked of them for 64 subtasks, of which each then had two key groups.
    assert [subtask_of(key, 128) // 2 for key in keys] == [23, 61, 62, 34, 24, 10, 0, 35, 7, 12, 32, 60, 45]
