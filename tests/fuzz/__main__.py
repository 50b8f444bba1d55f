"""Runs every fuzz target for a share of the time, one per core at once.

python -m tests.fuzz --seconds 60
python -m tests.fuzz --only delta --seconds 600 --seed 7
python -m tests.fuzz.loop delta build/crashes/delta-crash-…   (one input again)
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.configuration.environment import child_environment

_SPARE_S = 60.0
"""Time beyond a target's share, for its start and the last input; after it the target counts as hanging."""
_HANGS_S = 30
"""Wall time. Slow inputs are reported earlier, see `loop.py` and `driver.cc`."""
_RUNS = re.compile(r"(?:Done )?(\d+) runs")


@dataclass(frozen=True)
class Outcome:
    """The result of a target: `output` of its process, `runs` is the number of inputs."""

    name: str
    failed: bool
    runs: int
    output: str


def main(arguments: list[str]) -> int:
    """Fuzz and print each outcome; returns 1 if there was a finding."""
    chosen = _parse(arguments)
    chosen.crashes.mkdir(parents=True, exist_ok=True)
    commands = {name: command for name, command in _commands(chosen).items() if name in (chosen.only or [name])}
    if not commands:
        print(f"no target {', '.join(chosen.only or [])}", file=sys.stderr)
        return 2
    jobs = os.cpu_count() or 1
    share_s = max(1.0, chosen.seconds * min(jobs, len(commands)) / len(commands))
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(lambda name: _run(name, commands[name], share_s, chosen), commands))
    failed = sum(outcome.failed for outcome in outcomes)
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return int(failed > 0)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Feed decoders with damaged bytes.")
    parser.add_argument("--seconds", type=float, default=60, help="total for all targets")
    parser.add_argument("--seed", type=int, default=1, help="determines the inputs")
    parser.add_argument("--only", action="append", help="only this target; may be repeated")
    parser.add_argument(
        "--native", type=Path, default=Path("build/native-check-address/fuzz"), help="folder of the fuzz_* programs"
    )
    parser.add_argument("--crashes", type=Path, default=Path("build/crashes"), help="folder for the inputs of findings")
    return parser.parse_args(arguments)


def _commands(chosen: argparse.Namespace) -> dict[str, list[str]]:
    """By target, the command without time and seed. Python targets are skipped with a message if Atheris is missing."""
    programs = sorted(path for path in chosen.native.glob("fuzz_*") if path.is_file() and os.access(path, os.X_OK))
    commands = {f"native {path.name.removeprefix('fuzz_')}": [str(path.absolute())] for path in programs}
    if importlib.util.find_spec("atheris") is None:
        print("python targets are skipped: atheris is not installed. hint: pip install -e '.[dev]'")
        return commands
    from tests.fuzz.targets import TARGETS

    return {name: [sys.executable, "-m", "tests.fuzz.loop", name] for name in TARGETS} | commands


def _run(name: str, command: list[str], share_s: float, chosen: argparse.Namespace) -> Outcome:
    crashes = chosen.crashes.absolute()
    if name.startswith("native "):
        options, folder = [f"-seconds={share_s}", f"-seed={chosen.seed}"], crashes
    else:
        prefix = f"-artifact_prefix={crashes / name}-"
        options = [f"-max_total_time={round(share_s)}", f"-seed={chosen.seed}", f"-timeout={_HANGS_S}", prefix]
        folder = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="springtide-fuzz-") as passing:
        output, failed = _end_of([*command, *options], folder, share_s + _SPARE_S, passing)
    runs = [int(found) for found in _RUNS.findall(output)]
    outcome = Outcome(name, failed, runs[-1] if runs else 0, output)
    _print(outcome, crashes)
    return outcome


def _end_of(command: list[str], folder: Path, within_s: float, temporary: str) -> tuple[str, bool]:
    """Output, and whether it failed. Fuzzers do not clean up, so their temporary files are placed in `temporary`."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=child_environment(TMPDIR=temporary),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=within_s,
        )
    except subprocess.TimeoutExpired:
        return f"still running after {within_s:.0f} s", True
    return done.stdout, done.returncode != 0


def _print(outcome: Outcome, crashes: Path) -> None:
    if not outcome.failed:
        print(f"{outcome.name}: {outcome.runs:,} inputs, no finding", flush=True)
        return
    print(f"{outcome.name}: FINDING; the input is in {crashes}", flush=True)
    print("\n".join(f"    {line[:300]}" for line in outcome.output.splitlines()[-40:]), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
