"""SIMD levels: the levels of this machine, forcing one, refusing levels that the machine lacks."""

import pytest

from pipeline.errors import InputError
from tests.support.simd import forced_simd_level, simd_level, simd_levels


def test_the_best_level_is_used_unless_another_is_forced():
    assert simd_levels()[0] == "portable"
    assert simd_level() == simd_levels()[-1]
    for level in simd_levels():
        with forced_simd_level(level):
            assert simd_level() == level
    assert simd_level() == simd_levels()[-1]


def test_a_failure_inside_ends_the_forcing():
    with pytest.raises(KeyError), forced_simd_level("portable"):
        raise KeyError
    assert simd_level() == simd_levels()[-1]


@pytest.mark.parametrize("level", ["", "AVX2", "sse9", "avx512 "])
def test_a_level_the_machine_lacks_is_refused(level):
    with (
        pytest.raises(InputError, match=r"simd level: got '.*', wanted one this machine has: portable"),
        forced_simd_level(level),
    ):
        pass
