"""`make profile` still draws Python and native functions; the workload here needs no preparation."""

import numpy as np

from pipeline.trainer.batch.unique import Uniquer
from tests.benchmarks.harness.isolated import process
from tests.profile.sampler import profile


def finding_unique_keys(folder):
    keys, uniquer = np.random.default_rng(1).integers(0, 10_000, 1_000_000).astype(np.uint64), Uniquer()

    def work(stop):
        while not stop.is_set():
            uniquer.unique(keys)

    return work


def test_a_flame_graph_names_python_and_native_functions(tmp_path):
    with process() as fresh:
        assert fresh.submit(profile, finding_unique_keys, 2, tmp_path / "unique.svg").result() == 0
    drawn = (tmp_path / "unique.svg").read_text(encoding="utf-8")
    assert "Uniquer.unique" in drawn
    assert "springtide::Uniquer::insert" in drawn
