"""Runs the live benchmarks on a real Kafka and a real Flink, each with its peer in the same run.

python -m tests.benchmarks.live --out bench-out
python -m tests.benchmarks.live --only recovery

The benchmarks run one after the other, each in a separate process with a separate cluster; their modules describe what
is measured. Requires Java and Maven. Exits with 1 if a target was missed.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.harness.report import Figure, Result, machine, print_results, write_results

Found = Mapping[str, Any]


def joined(found: Found) -> list[Result]:
    """Figures of `flink_kafka`: rate and start of the join, compared with Flink SQL on each of its state backends."""
    sizes = {"events": found["events"], "samples": found["samples"], "partitions": 2}

    def compared(what: str, interval: str, unit: str, **target: float) -> list[Result]:
        figure = Figure(
            f"join on Flink, Kafka to the samples topic: {interval}", found[f"ours_{what}"], unit, sizes, **target
        )
        return [
            _with_peer(figure, f"Flink SQL, {backend}", found[f"flink_sql_{backend}_{what}"])
            for backend in ("hashmap", "rocksdb")
        ]

    return [
        *compared("events_per_s", "first sample to last", "events/s", least_ratio=3.0),
        *compared("events_per_s_from_submission", "submission to last sample", "events/s", least_ratio=3.0),
        *compared("first_sample_s", "submission to first sample", "s", most=10.0),
    ]


def recovered(found: Found) -> list[Result]:
    """Figures of `recovery`: time until the head of the log after a kill, compared with Flink SQL's join."""
    sizes = {"impressions held": found["held"], "state_bytes": found["state_bytes"]}
    peer = found["flink_sql"]
    return [
        _with_peer(
            Figure(f"recovery of the join, {victim} killed", found[victim]["recovered_s"], "s", sizes, most=30.0),
            f"Flink SQL, {peer['backend']}, {peer['held']:,} held",
            peer["recovered_s"],
        )
        for victim in ("worker", "taskmanager")
    ]


def fresh(found: Found) -> list[Result]:
    """Figures of `freshness`, compared with the figure in Ekko's paper."""
    sizes = {name: found[name] for name in ("produced_events_per_s", "clicks", "lost", "withheld_share")}
    ekko = found["beside"]["ekko_s"]
    return [
        _with_peer(
            Figure(f"click to replica, {name}", found[f"{name}_s"], "s", sizes, most=most), "Ekko, published", ekko
        )
        for name, most in (("p50", 0.5), ("p99", 1.0))
    ]


BENCHMARKS: dict[str, tuple[list[str], Callable[[Found], list[Result]]]] = {
    "flink_kafka": (["--rows", "2000000"], joined),
    "freshness": (["--rate", "5000"], fresh),
    "recovery": (["--rows", "10000000"], recovered),
}


def main(arguments: list[str]) -> int:
    """Measure, print and write; returns 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="may be repeated; default: all")
    parser.add_argument("--out", type=Path, help="folder for results.json")
    chosen = parser.parse_args(arguments)
    print("machine: " + ", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    results: list[Result] = []
    for name in chosen.only or BENCHMARKS:
        options, figures = BENCHMARKS[name]
        found = figures(_run(name, options))
        print_results(found)
        results += found
    if chosen.out:
        print(f"written: {write_results(results, chosen.out)}")
    return int(any(result.met is False for result in results))


def _run(name: str, arguments: list[str]) -> Found:
    """The JSON object that a benchmark prints last. Raises CalledProcessError."""
    command = [sys.executable, "-m", f"tests.benchmarks.live.{name}", *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: Found = json.loads(output.splitlines()[-1])
    return found


def _with_peer(figure: Figure, peer: str, value: float) -> Result:
    return Result(figure, [figure.value], [value], peer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
