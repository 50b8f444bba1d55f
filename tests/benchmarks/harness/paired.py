"""Paired benchmarks of native parts: each task and its peer alternate in one process.

Every module that uses it can be run alone: `python -m tests.benchmarks.native.keys --out bench-out/keys`.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.harness.report import Figure, Result, machine, print_results, write_results

Work = Callable[[], Any]
Measure = Callable[[bool, int], list[Result]]
"""quick, rounds → results"""


def paired(figure: Figure, work: Work, peer: Work, rounds: int) -> Result:
    """Items per core-second of `work` and of `peer`, alternating; each call processes `figure.value` items.

    Processor time of the process is measured, so other load on the machine does not count. A round uses the faster of
    two calls, because disturbances only make a call slower.
    """
    values, peers = [], []
    for _ in range(rounds):
        values.append(figure.value / _core_seconds(work))
        peers.append(figure.value / _core_seconds(peer))
    return Result(figure, values, peers)


def main(measure: Measure, description: str | None) -> int:
    """Measure, print and write; returns 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="number of measurements; medians are printed")
    parser.add_argument("--quick", action="store_true", help="tiny sizes that only check that everything runs")
    parser.add_argument("--out", type=Path, help="folder for results.json")
    chosen = parser.parse_args()
    print("machine: " + ", ".join(f"{name} {value}" for name, value in machine().items()) + "\n", flush=True)
    results = measure(chosen.quick, chosen.rounds)
    print_results(results)
    if chosen.out:
        print(f"written: {write_results(results, chosen.out)}")
    return int(any(result.met is False for result in results))


def _core_seconds(work: Work) -> float:
    times = []
    for _ in range(2):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)
