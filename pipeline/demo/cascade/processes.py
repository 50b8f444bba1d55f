"""The processes of the cascade: the commands that an operator starts, on the project of the demo."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import InputError

_END_WITHIN_S = 60.0


def run(project: Path, *words: str) -> dict[str, Any]:
    """The result of `springtide WORDS` on a project. Raises InputError if it fails; its log is beside the project."""
    with _log_of(project, words).open("w", encoding="utf-8") as log:
        done = subprocess.run(_command(project, words), stdout=subprocess.PIPE, stderr=log, text=True, check=False)
    if done.returncode:
        raise _failed(project, words, done.returncode)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
    return found


@contextmanager
def started(project: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Inside, `springtide WORDS` runs."""
    with _log_of(project, words).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(_command(project, words), stdout=subprocess.PIPE, stderr=log, text=True)
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_END_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def replica(project: Path, *options: str) -> Iterator[str]:
    """Inside, a replica serves; yields the URL of its model. Raises InputError if it does not start."""
    words = ("replica", *options)
    with started(project, *words) as process:
        assert process.stdout is not None, "stdout is a pipe"
        line = process.stdout.readline()
        port = json.loads(line).get("port") if line else None  # an error is a line, too
        if port is None:
            raise _failed(project, words, process.wait(_END_WITHIN_S))
        yield f"http://127.0.0.1:{port}/v1/models/cascade"


def _command(project: Path, words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-P", "-m", "pipeline.cli.main", *words, "--project", str(project), "--json"]


def _log_of(project: Path, words: tuple[str, ...]) -> Path:
    return project.parent / f"{'-'.join(word.lstrip('-') for word in words)}.log"


def _failed(project: Path, words: tuple[str, ...], code: int) -> InputError:
    return InputError(f"springtide {' '.join(words)} ended with code {code}. hint: read {_log_of(project, words)}")
