"""A process that keeps what it frees is not given fresh pages for the same blocks again."""

import os
import resource
import subprocess
import sys

import numpy as np
import pyarrow as pa

from pipeline.process.freed_memory import keep_freed_memory

MIB = 1 << 20


def faults_a_round() -> float:
    """Of blocks of 3 and 20 MiB, and of one of Arrow's, each written and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        for size in (3, 20):
            np.ones(size * MIB, np.uint8)
        pa.allocate_buffer(2 * MIB)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20


def main() -> None:
    keep_freed_memory()
    faults_a_round()
    print(faults_a_round())


def test_blocks_that_are_freed_and_needed_again_cost_no_faults():
    found = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(found.stdout) < 10
