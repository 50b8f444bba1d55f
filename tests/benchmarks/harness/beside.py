"""Short benchmarks of native parts: each piece of work and its peer in turn, in one process and one run.

Every module that measures this way runs by itself: `python -m tests.benchmarks.keys --out bench-out/keys`.
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


def beside(figure: Figure, work: Work, peer: Work, rounds: int) -> Result:
    """Things per core-second of `work` and of `peer`, alternating; each deals with as many as `figure.value` says.

    Processor time of the whole process, so that other work on the machine is not counted. A round takes the better of
    two calls of either: what disturbs a call only ever makes it longer.
    """
    values, peers = [], []
    for _ in range(rounds):
        values.append(figure.value / _core_seconds(work))
        peers.append(figure.value / _core_seconds(peer))
    return Result(figure, values, peers)


def main(measure: Measure, description: str | None) -> int:
    """Measure, print and write; 1 where a target was missed."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured; medians are shown")
    parser.add_argument("--quick", action="store_true", help="tiny sizes that only show that everything runs")
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
