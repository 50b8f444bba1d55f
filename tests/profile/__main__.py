"""Draws a flame graph (SVG) of the trainer, the join and a replica at work, in Python and in native code.

python -m tests.profile --out profile-out
python -m tests.profile --only trainer --seconds 60
"""

import argparse
import sys
from pathlib import Path

from tests.benchmarks.harness.isolated import process
from tests.profile import workloads
from tests.profile.sampler import profile

_WORKLOADS = {"trainer": workloads.trainer, "join": workloads.join, "replica": workloads.replica}


def main() -> int:
    """Draw the chosen graphs; returns 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.profile", description="Draw flame graphs.")
    parser.add_argument("--only", action="append", choices=_WORKLOADS, help="only this process; may be repeated")
    parser.add_argument("--seconds", type=int, default=30, help="how long each is sampled")
    parser.add_argument("--out", type=Path, default=Path("profile-out"), help="folder for the graphs")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in chosen.only or _WORKLOADS:
        graph = chosen.out.absolute() / f"{name}.svg"
        with process() as fresh:
            code = fresh.submit(profile, _WORKLOADS[name], chosen.seconds, graph).result()
        failed |= code != 0
        print(f"{name}: py-spy ended with {code}" if code else f"written: {graph}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
