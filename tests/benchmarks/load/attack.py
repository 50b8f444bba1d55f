"""A replica under attack: latency of honest clients without and with hostile ones, and its peak memory.

python -m tests.benchmarks.load.attack --seconds 600

50 honest clients keep a connection each and send small predictions at a fixed rate. The replica is `springtide replica`
in a process of its own, whose stderr is a pipe that nothing reads. Latency is measured from the scheduled time of a
request, so a stall counts for all requests that it delays. The honest clients connect while the attack is under way.

The attack is `tests/benchmarks/load/attackers.py`: more connections than the replica allows, each renewed a second
after it was closed. It runs on the same machine at the lowest priority, so that the replica is measured and not the
attackers' use of its processors; the connections attempted per second are reported.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from pipeline.configuration.project import Project
from pipeline.features.plan import FeaturePlan
from pipeline.model.dense import DenseModel
from pipeline.model.identity import serving_digest
from tests.benchmarks.harness.report import Figure, Result, machine, print_results, write_results
from tests.benchmarks.load.attackers import NICE
from tests.support.synthetic.trainer import SyntheticTrainer
from tests.support.world.served_model import INSTANCE, MODEL, PREDICT, commit_rows

CLIENTS, REQUESTS_PER_S = 50, 100
SECONDS = 600.0
CONFIGURATION = """
fields = [{ name = "item", columns = ["item"], dim = 8 }, { name = "user", columns = ["user"], dim = 16 }]
dense = [{ name = "price", column = "price" }]
publish = { loss = 0.0002 }
serving = { port = 0 }

[events]
key = ["id"]
impressions = { columns = { id = "int", user = "int", item = "int", price = "float" } }
clicks = { columns = { id = "int" } }
"""


@dataclass
class Latencies:
    """Seconds of each request, and failures by kind."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def quantile_ms(self, q: float) -> float:
        return float(np.quantile(self.seconds, q)) * 1000


def main(arguments: list[str]) -> int:
    """Measure, print and write; returns 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="duration of the attack")
    parser.add_argument("--out", type=Path, help="folder for results.json")
    chosen = parser.parse_args(arguments)
    print("machine: " + ", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="springtide-attack-") as folder:
        results = [Result(figure, [figure.value], [1.0], "-") for figure in measure(Path(folder), chosen.seconds)]
    print_results(results)
    if chosen.out:
        print(f"written: {write_results(results, chosen.out)}")
    return int(any(result.met is False for result in results))


def measure(folder: Path, seconds: float) -> list[Figure]:
    """Figures of the idle replica, for a quarter of the time, and of the attack."""
    make_project(folder)
    with replica(folder) as (process, port):
        asyncio.run(honest(port, 3.0))  # warm
        idle = asyncio.run(honest(port, max(seconds / 4, 10.0)))
        idle_mb = resident_mb(process)
        attackers = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.load.attackers", str(port), str(seconds + 3)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(3.0)
        attacked = asyncio.run(honest(port, seconds))
        attempted = json.loads(attackers.communicate(timeout=120)[0])
        after = asyncio.run(honest(port, 3.0))
        peak_mb = peak_resident_mb(process)
    sizes = {
        "clients": CLIENTS,
        "requests/s": REQUESTS_PER_S,
        "seconds": seconds,
        "requests": len(attacked.seconds),
        "attackers' nice": NICE,
    }
    print(f"attackers: {attempted}; failures: {Counter(attacked.failures)}", flush=True)
    p99 = attacked.quantile_ms(0.99)
    return [
        Figure("honest p50, no attack", idle.quantile_ms(0.5), "ms", sizes),
        Figure("honest p99, no attack", idle.quantile_ms(0.99), "ms", sizes),
        Figure("honest p50, under attack", attacked.quantile_ms(0.5), "ms", sizes),
        Figure("honest p99, under attack", p99, "ms", sizes),
        Figure("honest p99, under attack to none", p99 / idle.quantile_ms(0.99), "x", sizes, most=2.0),
        Figure("honest requests that failed", len(attacked.failures) + len(after.failures), "requests", sizes, most=0),
        Figure("hostile connections attempted", attempted["connections"] / attempted["seconds"], "1/s", sizes),
        Figure("memory before the attack", idle_mb, "MB", sizes),
        Figure("peak memory", peak_mb, "MB", sizes, most=idle_mb + 1_000),
    ]


def make_project(folder: Path) -> None:
    """A project with a model and one published version."""
    (folder / "springtide.toml").write_text(CONFIGURATION)
    (folder / "model.py").write_text(MODEL)
    project = Project.open(folder)
    trainer = SyntheticTrainer(project)
    plan, network = FeaturePlan(project.config, folder), DenseModel(project.config, folder)
    trainer.model = {"digest": serving_digest(project.config, plan, network)}
    commit_rows(trainer, plan, network, 1.0)
    trainer.close()


@contextmanager
def replica(folder: Path) -> Iterator[tuple[psutil.Process, int]]:
    """`springtide replica` and its port."""
    command = [sys.executable, "-m", "pipeline.cli.main", "replica", "--project", str(folder), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        yield psutil.Process(process.pid), json.loads(line)["port"]
    finally:
        process.terminate()
        assert process.wait(30) == 0, "the replica did not end cleanly"


async def honest(port: int, seconds: float) -> Latencies:
    """Small predictions of `CLIENTS` clients at a fixed rate."""
    found, every_s = Latencies(), CLIENTS / REQUESTS_PER_S
    body = json.dumps({"instances": [INSTANCE] * 10}).encode()
    sent = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    began_s = time.perf_counter() + 0.1

    async def client(number: int) -> None:
        connection = None
        for turn in range(int(seconds / every_s)):
            due_s = began_s + (turn + number / CLIENTS) * every_s
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            try:
                connection = connection or await asyncio.open_connection("127.0.0.1", port)
                status, content = await _request(*connection, sent)
                if status != b"200":
                    found.failures.append(content.decode())
            except (OSError, asyncio.IncompleteReadError) as failure:
                found.failures.append(type(failure).__name__)
                connection = None
            found.seconds.append(time.perf_counter() - due_s)
        if connection:
            connection[1].close()

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return found


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> tuple[bytes, bytes]:
    writer.write(sent)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head[9:12], await reader.readexactly(int(length.partition(b":")[2]))


def resident_mb(process: psutil.Process) -> float:
    """The resident memory of the replica and its front."""
    return sum(float(each.memory_info().rss) for each in _with_front(process)) / 1e6


def peak_resident_mb(process: psutil.Process) -> float:
    """The sum of the largest resident memory of each since its start."""
    found = 0.0
    for each in _with_front(process):
        lines = Path(f"/proc/{each.pid}/status").read_text().splitlines()
        found += int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000
    return found


def _with_front(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
