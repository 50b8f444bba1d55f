"""Runs the benchmarks: every round in a separate process, with the peer measured before and after it.

python -m tests.benchmarks --out bench-out
python -m tests.benchmarks --only trainer --rounds 1
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path

from tests.benchmarks import peers
from tests.benchmarks.harness.isolated import one_round, peer_rate, process
from tests.benchmarks.harness.report import Figure, Result, print_machine, print_missed, print_results, write_results

STAGES = ("ingest", "join", "trainer", "batch", "chain", "freshness", "recall_freshness", "growth", "pipeline_depth")
"""Of the pipeline, and the pipeline as a whole."""
ROWS = ("looked_up_rows", "commit", "versions", "tiers", "restart", "store", "quantizer", "codec")
"""In memory, in versions, on disk, and as they are published."""
MODELS = (
    "field_importance",
    "cascade",
    "heads",
    "two_towers",
    "delayed_feedback",
    "few_bits",
    "published_bytes",
    "published_streams",
    "row_choice",
    "gate",
    "market_recall",
)
"""What models learn, and at which cost."""
NATIVE = ("keys", "unique", "sketch", "kafka", "recall")
"""Native parts, each with a separate peer in the same process."""
_FOLDERS = {"stages": STAGES, "rows": ROWS, "models": MODELS}
ONE_ROUND = (
    "growth", "pipeline_depth", "tiers", "restart", "recall_freshness", "looked_up_rows", "recall", "versions", *MODELS,
)  # fmt: skip
"""Long ones, for which a second round adds little."""


def main(arguments: list[str]) -> int:
    """Measure, print and write; returns 1 if a target was missed and 2 if a benchmark failed."""
    chosen = _parse(arguments)
    os.environ[peers.FOLDER] = str(chosen.peers.absolute())
    print_machine(chosen.rounds)
    results: list[Result] = []
    failed: list[str] = []
    # The peer's process remains between rounds, idle: TensorFlow starts once.
    with process() as peer_process:
        for name in chosen.only or (*STAGES, *ROWS, *MODELS, *NATIVE):
            try:
                found = _measure(name, chosen, lambda: peer_process.submit(peer_rate, chosen.quick).result())
            except Exception:
                traceback.print_exc()
                failed.append(name)
                continue
            print_results(found)
            results += found
            # After each benchmark: one that is interrupted loses nothing that was measured before it.
            if chosen.out:
                write_results(results, chosen.out)
    print_missed(results, failed)
    if chosen.out:
        print(f"written: {write_results(results, chosen.out)}")
    return 2 if failed else int(any(result.met is False for result in results))


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure springtide and its peers.")
    parser.add_argument(
        "--only",
        action="append",
        choices=(*STAGES, *ROWS, *MODELS, *NATIVE),
        help="only this benchmark; may be repeated",
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of measurements; medians are printed")
    parser.add_argument("--quick", action="store_true", help="tiny sizes that only check that everything runs")
    parser.add_argument("--out", type=Path, help="folder for results.json")
    folder = Path(os.environ.get(peers.FOLDER, peers.DEFAULT_FOLDER))
    parser.add_argument("--peers", type=Path, default=folder, help="folder for the peers' environments")
    return parser.parse_args(arguments)


def _measure(name: str, chosen: argparse.Namespace, peer: Callable[[], float]) -> list[Result]:
    rounds = 1 if name in ONE_ROUND else chosen.rounds
    if name in NATIVE:
        with process() as fresh:
            return fresh.submit(import_module(f"tests.benchmarks.native.{name}").measure, chosen.quick, rounds).result()
    folder = next(of for of, names in _FOLDERS.items() if name in names)
    return _measure_beside(f"{folder}.{name}", rounds, chosen.quick, peer)


def _measure_beside(module: str, rounds: int, quick: bool, peer: Callable[[], float]) -> list[Result]:
    """Alternates peer and benchmark; a round's peer is the mean of the one before it and the one after."""
    figures: list[list[Figure]] = []
    rates = [peer()]
    for _ in range(rounds):
        with process() as fresh:
            figures.append(fresh.submit(one_round, module, quick).result())
        rates.append(peer())
    peer_rates = [(before + after) / 2 for before, after in pairwise(rates)]
    return [Result(same[-1], [f.value for f in same], peer_rates) for same in zip(*figures, strict=True)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
