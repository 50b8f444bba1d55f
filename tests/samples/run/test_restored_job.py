"""A job restored to an older checkpoint in a worker that is ahead of it: open shards skip what they have read.

Beam's state is then older than what the shard has emitted, and sources read again what it has read.
"""

import random

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipeline.logs.beam.source_block import ByValue
from pipeline.logs.beam.worker import register, release
from pipeline.samples.run.graph import SamplesGraph
from pipeline.samples.run.start_offsets import followed_ranges
from pipeline.samples.run.stored_shard import StoredShards
from pipeline.telemetry import metrics
from tests.samples.run.test_stored_shards import Source, ends_of, pieces_of, split


def parts_of(world, spans):
    return [(shard, part) for span in spans for shard, part in split(span, world)]


@pytest.fixture
def graph(world):
    """The job's graph in one worker, which keeps its shards open from one run of the job to the next."""
    handle = register(world.project, world.log)
    yield SamplesGraph(handle, ByValue(), tuple(range(world.config.logs.shards)), StoredShards)
    release(handle)


class Given(beam.PTransform):
    """A source of these blocks."""

    def __init__(self, blocks):
        self.elements = [ByValue().pack(block) for block in blocks]

    def expand(self, pipeline):
        return pipeline | beam.Create(self.elements).with_output_types(bytes)


def run_job(graph, blocks):
    """The job over `blocks`, with Beam's state empty: as old as a checkpoint can be."""
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        graph.build(pipeline, Given(blocks))


def epochs(world):
    """Of the next fences over the samples: 2 where each shard was opened once."""
    return [world.log.acquire_fence("samples", shard).epoch for shard in range(world.config.logs.shards)]


def open_shards(graph):
    """Shards that this worker has open."""
    return {reading.labels for reading in graph.readings() if reading.metric is metrics.JOIN_EVENTS}


@pytest.mark.parametrize("again", [0.0, 0.3, 0.7])
def test_a_restored_job_says_nothing_twice_and_goes_on(world, graph, wanted, again):
    spans, ends = pieces_of(world), list(ends_of(world))
    read = [span for span in spans if span.block.next_offset <= 80]
    run_job(graph, read)
    before = world.emitted()
    assert before[0]
    assert open_shards(graph) == {("0",), ("1",)}
    run_job(graph, read[int(again * len(read)) :])
    assert world.emitted() == before
    run_job(graph, [*spans[int(again * len(spans)) :], *ends])
    assert world.emitted() == wanted
    assert epochs(world) == [2, 2]


def test_what_a_restored_source_reads_again_is_passed_over(world, wanted):
    elements, shards = followed_ranges(world.project, world.log), StoredShards(world.project, world.log)
    for _ in range(2):
        for element in elements:
            for shard, part in parts_of(world, Source(world, element).all()):
                shards.process(shard, [part], 0)
    assert world.emitted() == wanted
    assert epochs(world) == [2, 2]


@pytest.mark.parametrize("seed", range(3))
def test_what_the_runner_heard_last_may_be_older_than_what_was_said(world, wanted, seed):
    rng, heard = random.Random(seed), {0: [0], 1: [0]}
    shards = StoredShards(world.project, world.log)
    parts = parts_of(world, [*pieces_of(world), *ends_of(world)])
    for _ in range(6):
        at = rng.randrange(len(parts))
        for shard, part in parts[at : at + 60]:
            heard[shard].append(shards.process(shard, [part], rng.choice(heard[shard])))
    for shard, part in parts:
        shards.process(shard, [part], rng.choice(heard[shard]))
    assert world.emitted() == wanted
    assert epochs(world) == [2, 2]
