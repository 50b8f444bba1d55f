"""Kills every process in turn and reports what was lost: one JSON object on stdout; exit code 1 if anything differs.

python -m tests.torture --kills 6 --seed 1
python -m tests.torture --kills 100 --seed 2 --rate 300 --keep torture-out
"""

import argparse
import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from pipeline.cluster.cluster import LocalCluster
from pipeline.configuration.deployment.services import Cluster
from tests.support.command.ports import free_port_range
from tests.torture.run import torture
from tests.torture.schedule import RARE, VICTIMS, Plan, plan_kills


def main(arguments: list[str]) -> int:
    """Run and report."""
    chosen = _parse(arguments)
    # The client logs an error whenever a killed broker is unavailable.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    folder = chosen.keep or Path(tempfile.mkdtemp(prefix="springtide-torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    first = free_port_range(4)
    ports = {name: first + i for i, name in enumerate(_PORTS)}
    cluster = LocalCluster(Cluster(**ports), folder / "cluster", report=_print_progress)
    try:
        cluster.up()
        plan = Plan(list(plan_kills(chosen.kills, chosen.seed)), chosen.minutes and chosen.minutes * 60)
        report = torture(cluster, folder, plan, chosen.seed, chosen.rate, _print_progress)
    finally:
        cluster.down()
        if chosen.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(report))
    return 0 if report["equal"] else 1


_PORTS = ("kafka_port", "kafka_controller_port", "flink_rest_port", "flink_rpc_port")


def _parse(arguments: list[str]) -> argparse.Namespace:
    rare = "\n".join(f"  {victim:20}{what}" for victim, what in RARE.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture",
        description="Kill every process of a project in turn and check that nothing is lost.",
        epilog=f"victims: {', '.join(VICTIMS)}\nand, from the seventh kill on, one of every seven:\n{rare}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=6, help="number of kills")
    parser.add_argument("--seed", type=int, default=1, help="seed of the events and of the schedule")
    parser.add_argument("--minutes", type=float, help="time limit; remaining kills are dropped")
    parser.add_argument("--rate", type=float, default=200.0, help="impressions per second")
    parser.add_argument("--keep", type=Path, help="new folder in which all files are retained")
    return parser.parse_args(arguments)


def _print_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
