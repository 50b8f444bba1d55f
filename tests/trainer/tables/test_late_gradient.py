"""A gradient that its rows learn late: its form in bytes, and what is refused before it is kept."""

import numpy as np
import pytest

from pipeline.errors import DamagedError, InputError
from pipeline.trainer.batch.prefetch import FieldBatch, TableBatch
from pipeline.trainer.tables.late_gradient import LateGradient


def late(gradient, weights=()):
    """Of two samples with the same three occurrences of one key: 6 occurrences."""
    table = TableBatch(np.uint64([7]), np.uint32([6]))
    weights = np.float32(weights)
    field = FieldBatch(np.zeros(6, np.int32), np.int64([0, 3, 6]), weights)
    return LateGradient([table], [field], np.float32(gradient), 90)


def test_bytes_give_the_same_gradient():
    first = late([[1, 2], [3, 4]], [1, 2, 3, 4, 5, 6])
    again = LateGradient.of_bytes(first.to_bytes())
    np.testing.assert_array_equal(again.gradient, first.gradient)
    np.testing.assert_array_equal(again.tables[0].keys, first.tables[0].keys)
    np.testing.assert_array_equal(again.tables[0].counts, first.tables[0].counts)
    for name in ("inverse", "offsets", "weights"):
        np.testing.assert_array_equal(getattr(again.fields[0], name), getattr(first.fields[0], name))
    assert (again.at_s, again.to_bytes()) == (90, first.to_bytes())


def test_damaged_bytes_are_refused():
    packed = bytearray(late([[1, 2], [3, 4]]).to_bytes())
    packed[20] ^= 1
    with pytest.raises(DamagedError, match="late gradient is damaged"):
        LateGradient.of_bytes(bytes(packed))


@pytest.mark.parametrize(
    ("largest", "weights", "fits"),
    [
        (1e16, (), True),
        (2e16, (), False),
        (-2e16, (), False),
        (1e16, [2] * 6, False),
        (4e15, [2] * 6, True),
        (np.nan, (), False),
        (np.inf, (), False),
        (-np.inf, (), False),
    ],
)
def test_what_a_row_could_refuse_is_refused_at_once(largest, weights, fits):
    gradient = late([[1, 2], [largest, 4]], weights)
    if fits:
        gradient.check()
    else:
        with pytest.raises(InputError, match=r"wanted finite ones of at most 1e\+17"):
            gradient.check()


def test_a_batch_without_samples_has_nothing_to_refuse():
    late(np.zeros((0, 2))).check()
