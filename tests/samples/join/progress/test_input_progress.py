"""Restart points: few, and each with its watermark."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.arrays.block import EventBlock
from pipeline.samples.join.progress.input_progress import InputProgress

AT = ("impressions", 0)
NONE = np.empty(0, np.int64)
LIFE_MS = 60_000


def block(next_offset, watermark_ms):
    return EventBlock(*AT, pa.record_batch({}), NONE, NONE, NONE.astype(np.int32), NONE, next_offset, watermark_ms)


def after(blocks, every_ms, records=1):
    """The progress after small blocks, each `every_ms` of event time later."""
    progress = InputProgress({"impressions": 1, "clicks": 0})
    for number in range(1, blocks + 1):
        progress.advance(block(number * records, number * every_ms))
    return progress


@pytest.mark.parametrize("every_ms", [1, 20, 999, 5_000])
def test_starts_grow_with_time_not_with_the_number_of_blocks(every_ms):
    progress = after(20_000, every_ms)
    assert len(progress.of[AT].starts) <= 20_000 * every_ms / 1_000 + 20_000 / 4_096 + 2


def test_starts_are_recorded_while_the_watermark_does_not_advance():
    assert len(after(100_000, 0).of[AT].starts) >= 100_000 // 4_096


@pytest.mark.parametrize("needed", [0, 1, 777, 4_242, 9_998, 9_999, 10_000, 20_000])
def test_restart_point_is_little_before_the_needed_offset_and_has_its_watermark(needed):
    every_ms = 20
    progress = after(10_000, every_ms)
    progress.prune({AT: needed})
    offset, watermark_ms = progress.restart_points()[AT]
    assert needed - 1_000 / every_ms - 1 <= offset <= needed or offset == 10_000 <= needed
    assert watermark_ms == (offset * every_ms if offset else None)
    saved = progress.to_json()
    again = InputProgress({"impressions": 1, "clicks": 0})
    again.restore(saved)
    assert again.restart_points() == progress.restart_points()
