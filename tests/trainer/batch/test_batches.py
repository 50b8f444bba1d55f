"""Batches: boundaries are in the log and do not depend on where reading starts."""

import numpy as np
import pytest

from pipeline.logs.open import open_log
from pipeline.trainer.batch.batches import NO_END, BatchReader, Excluded, SamplePosition
from tests.support.shop.shop import START_MS, append_samples, make_project, make_samples


def nothing_quarantined(samples, at_ms, offset):
    return np.zeros(len(at_ms), bool)


START = SamplePosition(0, 0)


def read_all(log, start=START, size=64, mask=nothing_quarantined):
    reader = BatchReader(log, "samples", 0, start, size, Excluded(mask))
    found = []
    while batch := reader.next(log.end_offset("samples", 0)):
        found.append(batch)
    return found


def ids(batch):
    return batch.samples.column("id").to_pylist()


@pytest.fixture
def log(tmp_path):
    project = make_project(tmp_path)
    log = open_log(project)
    append_samples(log, project, make_samples(1, 250), block_rows=100)
    append_samples(log, project, make_samples(1, 130, first=250), block_rows=37)
    return log


def test_a_batch_is_the_next_samples_in_log_order_and_ends_early_at_a_flush_flag(log):
    batches = read_all(log)
    assert [len(batch) for batch in batches] == [64, 64, 64, 58, 64, 64, 2]
    assert [i for batch in batches for i in ids(batch)] == list(range(380))


def test_reading_again_from_any_boundary_gives_the_same_batches(log):
    batches = read_all(log)
    for i, batch in enumerate(batches[:-1]):
        again = read_all(log, batch.end)
        assert [ids(b) for b in again] == [ids(b) for b in batches[i + 1 :]]
        assert [b.end for b in again] == [b.end for b in batches[i + 1 :]]


def test_samples_after_the_last_complete_batch_wait_for_more_or_for_a_flush_flag(log, tmp_path):
    reader = BatchReader(log, "samples", 0, SamplePosition(0, 0), 64, Excluded(nothing_quarantined))
    complete = []
    while batch := reader.next(stop_offset=2):
        complete.append(batch)
    assert sum(len(batch) for batch in complete) == 192
    assert len(reader.next(log.end_offset("samples", 0))) == 58


def test_wait_returns_how_far_the_reader_can_continue_and_reads_nothing_twice(log):
    reader = BatchReader(log, "samples", 0, START, 64, Excluded(nothing_quarantined))
    end = reader.wait(0)
    assert end == log.end_offset("samples", 0)
    log.trim("samples", 0, end)
    found = []
    while batch := reader.next(end):
        found.append(batch)
    assert sum(map(len, found)) == 380
    assert reader.wait(5) == end


def test_wait_returns_no_end_after_a_full_read(tmp_path):
    project = make_project(tmp_path)
    log = open_log(project)
    append_samples(log, project, make_samples(1, 65), block_rows=1)
    reader = BatchReader(log, "samples", 0, START, 64, Excluded(nothing_quarantined))
    assert reader.wait(0) == NO_END
    assert [len(reader.next(NO_END)) for _ in range(2)] == [64, 1]
    assert reader.wait(0) == 65


def test_quarantined_samples_are_dropped_before_batches_are_cut(log):
    def mask(samples, at_ms, offset):
        return (at_ms >= START_MS + 100_000) & (at_ms < START_MS + 150_000)

    batches = read_all(log, mask=mask)
    assert [i for batch in batches for i in ids(batch)] == [*range(100), *range(150, 380)]
    assert [len(batch) for batch in batches] == [64, 64, 64, 8, 64, 64, 2]
    again = read_all(log, batches[1].end, mask=mask)
    assert [ids(b) for b in again] == [ids(b) for b in batches[2:]]


def test_a_completely_quarantined_record_with_a_flush_flag_still_closes_the_batch_before_it(log):
    def mask(samples, at_ms, offset):
        return np.full(len(at_ms), offset == 2)

    batches = read_all(log, mask=mask)
    assert [len(batch) for batch in batches][:4] == [64, 64, 64, 8]


def test_a_samples_time_is_the_later_of_its_impression_and_its_click(log):
    batch = read_all(log)[0]
    clicked = np.asarray(batch.samples.column("label")) > 0
    assert np.array_equal(batch.at_ms - START_MS, np.arange(64) * 1000 + clicked * 10)
