"""Admission: which keys get a row, by count, by chance or all of them; the same on every replay."""

import numpy as np
import pytest

from pipeline.admission.admit import Admitter
from pipeline.configuration.model.fields import Admission
from pipeline.errors import DamagedError, MigrationError

DAY_S = 86_400


def admitter_of(**settings) -> Admitter:
    return Admitter(Admission(**settings), seed=1)


def admit(admitter: Admitter, keys, counts=None, resident=(), at_s=0, position=(0, 0)) -> list[int]:
    """The keys that were admitted."""
    keys = np.array(keys, np.uint64)
    counts = np.ones(len(keys), np.uint32) if counts is None else np.array(counts, np.uint32)
    admitted = admitter.admit(keys, counts, np.isin(keys, list(resident)), at_s, position)
    return keys[admitted].tolist()


def test_off_admits_every_key_without_a_row():
    assert admit(admitter_of(kind="off"), [1, 2, 3], resident={2}) == [1, 3]


def test_count_admits_at_the_occurrence_that_reaches_the_threshold():
    admitter = admitter_of(kind="count", threshold=3)
    assert [admit(admitter, [7]) for _ in range(4)] == [[], [], [7], [7]]


def test_count_counts_every_occurrence_inside_a_batch():
    admitter = admitter_of(kind="count", threshold=3)
    assert admit(admitter, [7, 8, 9], counts=[2, 3, 4]) == [8, 9]
    assert admit(admitter, [7]) == [7]


def test_a_batch_counts_as_its_occurrences_one_after_the_other():
    rng = np.random.default_rng(1)
    at_once, one_by_one = (admitter_of(kind="count", threshold=4, sketch_width=16) for _ in range(2))
    for _ in range(200):
        keys, counts = rng.choice(60, 10, replace=False), rng.integers(1, 5, 10)
        admitted = {
            key for key, count in zip(keys, counts, strict=True) for _ in range(count) if admit(one_by_one, [key])
        }
        assert set(admit(at_once, keys, counts)) == admitted
        assert at_once.digest() == one_by_one.digest()


def test_count_does_not_count_keys_that_have_a_row():
    admitter = admitter_of(kind="count", threshold=2)
    admit(admitter, [7], counts=[9], resident={7})
    assert admit(admitter, [7]) == []


def test_counts_are_halved_when_the_log_crosses_a_period_and_not_before():
    admitter = admitter_of(kind="count", threshold=4, halve_every_s=DAY_S)
    admit(admitter, [7, 8], counts=[2, 3], at_s=0)
    assert admit(admitter, [8], at_s=DAY_S - 1) == [8]
    assert admit(admitter, [7, 8], counts=[1, 1], at_s=DAY_S) == []  # 2 → 1 → 2; 4 → 2 → 3
    assert admit(admitter, [8], at_s=DAY_S) == [8]


def test_counts_are_halved_once_per_period_that_passed():
    admitter = admitter_of(kind="count", threshold=8, halve_every_s=DAY_S)
    admit(admitter, [7], counts=[7], at_s=0)
    assert admit(admitter, [7], counts=[6], at_s=2 * DAY_S) == []  # 7 → 3 → 1 → 7
    assert admit(admitter, [7], at_s=2 * DAY_S) == [7]


def test_log_time_that_jumps_by_years_is_no_problem():
    admitter = admitter_of(kind="count", threshold=2, halve_every_s=1)
    admit(admitter, [7], at_s=0)
    assert admit(admitter, [7], at_s=2_000_000_000) == []


def test_counts_are_kept_for_ever_if_halving_is_off():
    admitter = admitter_of(kind="count", threshold=2, halve_every_s=None)
    admit(admitter, [7], at_s=0)
    assert admit(admitter, [7], at_s=100 * DAY_S) == [7]


def test_probability_admits_about_its_share_of_keys():
    keys = np.arange(20_000)
    assert len(admit(admitter_of(kind="probability", probability=0.1), keys)) == pytest.approx(2_000, abs=150)


def test_probability_grows_with_the_occurrences_in_a_batch():
    keys = np.arange(20_000)
    admitted = admit(admitter_of(kind="probability", probability=0.1), keys, counts=[5] * len(keys))
    assert len(admitted) == pytest.approx(20_000 * (1 - 0.9**5), abs=250)


def test_probability_one_admits_everything():
    assert admit(admitter_of(kind="probability", probability=1.0), [1, 2, 3]) == [1, 2, 3]


def test_chance_is_a_function_of_key_and_position():
    keys = np.arange(1_000)
    admitter = admitter_of(kind="probability", probability=0.5)
    here = admit(admitter, keys, position=(3, 10))
    assert admit(admitter, keys, position=(3, 10)) == here
    assert admit(admitter, keys[::-1], position=(3, 10))[::-1] == here
    assert admit(admitter, keys, position=(3, 11)) != here
    assert admit(admitter, keys, position=(4, 10)) != here


def test_restored_filter_continues_like_the_original():
    settings = Admission(kind="count", threshold=3, halve_every_s=DAY_S)
    original = Admitter(settings, seed=1)
    admit(original, [7, 8], counts=[2, 1], at_s=DAY_S)
    restored = Admitter.from_bytes(settings, 1, original.to_bytes())
    assert restored.to_bytes() == original.to_bytes()
    assert restored.digest() == original.digest()
    assert admit(restored, [7, 8], at_s=DAY_S) == admit(original, [7, 8], at_s=DAY_S) == [7]
    assert restored.digest() == original.digest()


def test_digest_changes_with_every_count():
    admitter = admitter_of(kind="count", threshold=3)
    before = admitter.digest()
    admit(admitter, [7])
    assert admitter.digest() != before


def test_damaged_state_is_refused():
    with pytest.raises(DamagedError, match="admission state begins with"):
        Admitter.from_bytes(Admission(), 1, b"nonsense")
    state = bytearray(admitter_of(kind="count").to_bytes())
    state[-20] ^= 1
    with pytest.raises(DamagedError):
        Admitter.from_bytes(Admission(kind="count"), 1, bytes(state))


def test_state_of_an_earlier_format_is_refused():
    state = b"FRSHADM1" + admitter_of(kind="count").to_bytes()[8:]
    with pytest.raises(DamagedError, match="begins with b'FRSHADM1', this release reads b'SPRTADM2'"):
        Admitter.from_bytes(Admission(kind="count"), 1, state)


def test_the_state_keeps_its_layout():
    assert admitter_of(kind="off").to_bytes().hex() == b"SPRTADM2".hex() + "ff" * 8


def test_counts_of_another_size_need_a_migration():
    state = admitter_of(kind="count", sketch_width=1024).to_bytes()
    with pytest.raises(MigrationError, match="1024 × 4, the configuration has 2048 × 4"):
        Admitter.from_bytes(Admission(kind="count", sketch_width=2048), 1, state)
    with pytest.raises(MigrationError, match="the configuration has no counters"):
        Admitter.from_bytes(Admission(kind="off"), 1, state)
