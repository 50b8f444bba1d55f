"""A job restored to an older checkpoint in a worker that is ahead of it: the shards it holds pass over what they know.

Beam's state then says less than the shard has said, and sources read again what it has read.
"""

import random

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipeline.logs.beam.source import lend, take_back
from pipeline.samples.run.live_job import JoinLive
from pipeline.samples.run.live_shard import readings, split, starts, take
from pipeline.telemetry import metrics
from tests.samples.run.test_live_shards import Source, ends_of, pieces_of
from tests.samples.run.test_samples_job import World, fill


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("calm"))
    fill(world)
    world.run()
    return world.emitted_positions()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "live")
    fill(made)
    return made


def parts_of(world, spans):
    return [(shard, part) for span in spans for shard, part in split(span, world.project)]


def run_job(world, spans):
    """The join's step as a job of its own, with Beam's state empty: as old as a checkpoint can be."""
    handle = lend(world.project, world.log)
    elements = [(shard, part.to_bytes()) for shard, part in parts_of(world, spans)]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        keyed = pipeline | beam.Create(elements).with_output_types(tuple[int, bytes])
        _ = keyed | beam.ParDo(JoinLive(handle, range(world.config.logs.shards)))
    take_back(handle)


def epochs(world):
    """Of the next fences over the samples: 2 where each shard was opened once."""
    return [world.log.acquire_fence("samples", shard).epoch for shard in range(world.config.logs.shards)]


def held(world):
    """Shards that this process holds."""
    told = readings(str(world.project.root))
    return {reading.labels for reading in told if reading.metric is metrics.JOIN_EVENTS}


@pytest.mark.parametrize("again", [0.0, 0.3, 0.7])
def test_a_restored_job_says_nothing_twice_and_goes_on(world, wanted, again):
    spans, ends = pieces_of(world), list(ends_of(world))
    read = [span for span in spans if span.block.next_offset <= 80]
    run_job(world, read)
    said = world.emitted_positions()
    assert said[0]
    assert held(world) == {("0",), ("1",)}
    run_job(world, read[int(again * len(read)) :])
    assert world.emitted_positions() == said
    run_job(world, [*spans[int(again * len(spans)) :], *ends])
    assert world.emitted_positions() == wanted
    assert epochs(world) == [2, 2]


def test_what_a_restored_source_reads_again_is_passed_over(world, wanted):
    elements = starts(world.project, world.log)
    for _ in range(2):
        for element in elements:
            for shard, part in parts_of(world, Source(world, element).all()):
                take(world.project, world.log, shard, [part], 0)
    assert world.emitted_positions() == wanted
    assert epochs(world) == [2, 2]


@pytest.mark.parametrize("seed", range(3))
def test_what_the_runner_heard_last_may_be_older_than_what_was_said(world, wanted, seed):
    rng, heard = random.Random(seed), {0: [0], 1: [0]}
    parts = parts_of(world, [*pieces_of(world), *ends_of(world)])
    for _ in range(6):
        at = rng.randrange(len(parts))
        for shard, part in parts[at : at + 60]:
            heard[shard].append(take(world.project, world.log, shard, [part], rng.choice(heard[shard])))
    for shard, part in parts:
        take(world.project, world.log, shard, [part], rng.choice(heard[shard]))
    assert world.emitted_positions() == wanted
    assert epochs(world) == [2, 2]
