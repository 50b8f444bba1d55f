"""Clicks that wait for a time: against a list, and how often their rows are copied."""

import random

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.streams.events import EventColumns
from pipeline.samples.join.clicks import CLICK, Clicks
from pipeline.samples.join.waiting import WaitingClicks

EVENTS = EventColumns(columns={"item": "int"})


def clicks_of(arrived):
    """Clicks from (time, partition, offset)."""
    rows = np.zeros(len(arrived), CLICK)
    for row, (at, partition, offset) in zip(rows, arrived, strict=True):
        row["at"], row["partition"], row["offset"] = at, partition, offset
    return Clicks(rows, pa.record_batch({"item": pa.array([offset for *_, offset in arrived], pa.int64())}))


def listed(clicks):
    """(time, partition, offset) of each click, whose column is its offset."""
    assert clicks.columns.column("item").to_pylist() == clicks.rows["offset"].tolist()
    return list(zip(*(clicks.rows[name].tolist() for name in ("at", "partition", "offset")), strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_waiting_clicks_are_a_list_that_loses_those_up_to_a_time(seed):
    rng, waiting, model, now, offset = random.Random(seed), WaitingClicks(EVENTS, "at"), [], 0, 0
    most = rng.choice([3, 30, 6_000])
    for _ in range(60):
        now += rng.choice([0, 1, 20])
        if rng.random() < 0.6:
            arrived = []
            for _ in range(rng.randrange(most)):
                arrived.append((now + rng.choice([0, rng.randrange(50), 1_000]), rng.randrange(3), offset))
                offset += 1
            waiting.add(clicks_of(arrived))
            model += arrived
        elif rng.random() < 0.9:
            until = now - rng.choice([0, 10, 40])
            assert listed(waiting.release(until)) == [click for click in model if click[0] <= until]
            model = [click for click in model if click[0] > until]
        else:
            model = [click for click in model if rng.random() < 0.5]
            waiting.replace(clicks_of(model))
        assert len(waiting) == len(model)
        assert listed(waiting.in_order()) == model
        partitions = {partition for _, partition, _ in model}
        assert waiting.lowest_offsets() == {p: min(o for _, q, o in model if q == p) for p in partitions}


class CopiedRows:
    """Counts the rows that are copied between clicks."""

    def __init__(self, monkeypatch):
        self.count = 0
        take, concatenate = Clicks.take, Clicks.concatenate

        def counted_take(clicks, index):
            self.count += len(index)
            return take(clicks, index)

        def counted_concatenate(parts):
            filled = [len(part) for part in parts if len(part)]
            self.count += sum(filled) if len(filled) > 1 else 0
            return concatenate(parts)

        monkeypatch.setattr(Clicks, "take", counted_take)
        monkeypatch.setattr(Clicks, "concatenate", counted_concatenate)


@pytest.mark.parametrize("disorder", [0, 300])
def test_a_row_is_copied_as_often_with_many_blocks_and_releases_as_with_few(monkeypatch, disorder):
    copied, per_row = CopiedRows(monkeypatch), []
    for blocks in (250, 2_000):
        rng, waiting, copied.count, released = random.Random(1), WaitingClicks(EVENTS, "at"), 0, 0
        for now in range(2 * blocks):
            if now < blocks:
                waiting.add(clicks_of([(now + rng.randrange(disorder + 1), 0, 4 * now + i) for i in range(4)]))
            released += len(waiting.release(now - blocks // 2))
        released += len(waiting.release(10**9))
        assert released == 4 * blocks
        per_row.append(copied.count / released)
    assert per_row[1] < per_row[0] + 8
    assert per_row[1] < 20
