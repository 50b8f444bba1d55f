"""Criteo's attribution data, on a part of it; for all of it run: python -m tests.real.criteo.one_pass"""

from pathlib import Path

import pytest

from tests.real.criteo.one_pass import SOURCE, one_pass

pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason=f"the Criteo samples are missing: {SOURCE}")


def test_one_pass_over_a_part_learns_what_the_published_features_hold(tmp_path: Path):
    # The click rate alone has 0.6544 on all validation samples.
    scores = one_pass(tmp_path, order=7, learned=20_000, scored=10_000)
    assert scores.validation <= 0.63
