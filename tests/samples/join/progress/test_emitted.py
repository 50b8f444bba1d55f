"""Emitted positions against a dict: random additions and drops."""

import random

import numpy as np
import pytest

from pipeline.samples.join.progress.emitted import EmittedPositions, emitted_rows


def positions(rng, count, kind, partition, offsets=40):
    rows = [(rng.randrange(offsets), rng.randrange(3), 1 << rng.randrange(4)) for _ in range(count)]
    offset, row, flags = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return emitted_rows(kind, (np.full(count, partition), offset, row), flags.astype(np.uint8))


def flags_of(emitted, kind, partition, place):
    (found,) = emitted.flags(kind, partition, np.array([place[0]]), np.array([place[1]]))
    return int(found)


@pytest.mark.parametrize("seed", range(5))
def test_emitted_positions_are_a_dict_without_the_dropped_ones(seed):
    rng, emitted, known = random.Random(seed), EmittedPositions(), {}
    read = {(kind, partition): 0 for kind in (0, 1, 2) for partition in (0, 2)}
    for _ in range(60):
        kind, partition = rng.choice(list(read))
        if rng.random() < 0.5:
            rows = positions(rng, rng.randrange(1, 30), kind, partition)
            rows = rows[rows["offset"] >= read[kind, partition]]
            emitted.add(rows)
            for _, _, offset, row, flags in rows.tolist():
                place = (kind, partition, offset, row)
                known[place] = known.get(place, 0) | flags
        else:
            read[kind, partition] = max(read[kind, partition], rng.randrange(40))
            emitted.drop_below(kind, partition, read[kind, partition])
            known = {p: f for p, f in known.items() if p[2] >= read[p[:2]]}
        found = {(i, p, o, r): f for i, p, o, r, f in emitted.rows.tolist()}
        assert found == known
        assert len(emitted) == len(known)
        for kind, partition in read:
            for place in ((o, r) for o in range(read[kind, partition], 40) for r in range(3)):
                assert flags_of(emitted, kind, partition, place) == known.get((kind, partition, *place), 0)
