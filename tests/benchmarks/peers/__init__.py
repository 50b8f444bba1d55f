"""Peers that cannot be installed in our environment: scripts, each run by a separate interpreter.

The scripts in this folder do not import springtide: they accept `--name value` options, and the last line on stdout is
one JSON object of numbers. A peer that is not installed is reported on stderr with an installation hint; the benchmark
then runs without it.
"""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = "SPRINGTIDE_PEERS"
"""Environment variable with the folder of the peers' virtual environments."""
DEFAULT_FOLDER = Path("bench-out/peers")

_HERE = Path(__file__).parent
_TIMEOUT_S = 900.0


class AbsentError(Exception):
    """The peer cannot run on this machine; the message contains the reason and a hint."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment created on first use from the pinned requirements `NAME.txt` in this folder."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def python(self) -> Path:
        """Its interpreter. Raises AbsentError if it cannot be created."""
        place = Path(os.environ.get(FOLDER) or DEFAULT_FOLDER) / self.name
        python = place / "bin" / "python"
        ready = place / "ready.txt"
        wanted = (_HERE / f"{self.name}.txt").read_text(encoding="utf-8")
        if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
            print(f"peer {self.name}: creating {place}", file=sys.stderr, flush=True)
            venv.create(place, with_pip=True, clear=True)
            _checked([python, "-m", "pip", "install", "--quiet", "-r", _HERE / f"{self.name}.txt"], self.name)
            ready.write_text(wanted, encoding="utf-8")
        return python


@dataclass(frozen=True)
class Installed:
    """The system's interpreter, which must have `module`; `hint` is the command that installs it."""

    name: str
    module: str
    hint: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def python(self) -> Path:
        """Its interpreter. Raises AbsentError if the module is missing."""
        python = Path("/usr/bin/python3")
        if subprocess.run([python, "-c", f"import {self.module}"], capture_output=True, check=False).returncode:
            raise AbsentError(f"{python} has no {self.module}. hint: {self.hint}")
        return python


TFRA = Environment("tfra", {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"})
RECALL = Environment("recall", {"OMP_NUM_THREADS": "1"})
# Debian's PyTorch multiplies with whatever libblas is installed; the reference one is twenty times slower.
TORCH = Installed("torch", "torch", "apt-get install python3-torch libopenblas0-pthread")


def run(peer: Environment | Installed, script: str, **options: object) -> dict[str, Any] | None:
    """The measurements of `script`; None, with the reason on stderr, if the peer is absent or fails.

    Args:
        peer: the environment whose interpreter runs it.
        script: its name in this folder, without `.py`.
        **options: become `--name value`, underscores as hyphens.
    """
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    try:
        output = _checked([peer.python(), _HERE / f"{script}.py", *flags], script, peer.variables)
        measured: dict[str, Any] = json.loads(output.splitlines()[-1])
    except (AbsentError, OSError, ValueError, IndexError) as failure:
        print(f"peer {script} is not measured: {failure}", file=sys.stderr, flush=True)
        return None
    return measured


def _checked(command: list[str | Path], name: str, variables: Mapping[str, str] | None = None) -> str:
    """The standard output of a command that must succeed. Raises AbsentError."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise AbsentError(f"{name} took longer than {_TIMEOUT_S:g} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise AbsentError(f"{name} ended with {done.returncode}: {last}")
    return done.stdout
