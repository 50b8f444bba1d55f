"""Runs commands for tests, in this process or in a new one, on a small shop with the columns of `springtide init`.

In-process commands avoid the start of an interpreter; exit codes and output are those of the real entry point.
"""

import io
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pandas as pd

from pipeline.cli.main import run_command
from tests.support.command.fork_server import ForkedCommand

REPO = Path(__file__).parents[3]
START_MS = 1_750_000_000_000
SAMPLE_COLUMNS = ["impression_id", "user", "item", "position", "impression_at", "click_at", "label", "weight", "kind"]


class Outcome(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """The JSON object that stdout consists of."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self
        found = json.loads(lines[0])
        assert isinstance(found, dict)
        return found


def call(*arguments: object) -> Outcome:
    """Run `springtide ARGUMENTS` in this process, through its entry point."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        _handlers_restored(),
        patch.object(sys, "argv", ["springtide", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            run_command()
        except SystemExit as end:
            code = int(end.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


@contextmanager
def _handlers_restored() -> Iterator[None]:
    """Restores the handlers that the entry point sets for the rest of its process."""
    interrupt, unraisable, thread = signal.getsignal(signal.SIGINT), sys.unraisablehook, threading.excepthook
    try:
        yield
    finally:
        sys.unraisablehook, threading.excepthook = unraisable, thread
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)


def springtide(project: Path, *arguments: object) -> Any:
    """The JSON result of a command on `project`; it must succeed."""
    done = call(*arguments, "--project", project, "--json")
    assert done.code == 0, (arguments, done)
    return done.result


def start(project: Path, *arguments: object, crash_at: str | None = None) -> ForkedCommand:
    """Start `springtide ARGUMENTS` on `project` as a new process."""
    environment = {**os.environ, **({"SPRINGTIDE_CRASH_AT": crash_at} if crash_at else {})}
    return ForkedCommand([*map(str, arguments), "--project", str(project), "--json"], REPO, environment)


def make_shop(folder: Path, replaced: dict[str, str] | None = None) -> Path:
    """The project that `springtide init` writes, with strings of its springtide.toml replaced."""
    assert call("init", folder).code == 0
    text = (folder / "springtide.toml").read_text()
    for old, new in (replaced or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "springtide.toml").write_text(text)
    return folder


def make_events(seed: int, rows: int, first: int = 0, every_ms: int = 10_000) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Impressions, one each `every_ms`, and their clicks; most clicks in the window, some in the horizon or later."""
    random = np.random.default_rng([seed, first])
    ids = np.array([f"imp-{i:06d}" for i in range(first, first + rows)])
    user, item = random.integers(0, 50, rows), random.integers(0, 30, rows)
    at = START_MS + (first + np.arange(rows)) * every_ms
    impressions = pd.DataFrame(
        {
            "at": at,
            "impression_id": ids,
            "user": [f"u{u}" for u in user],
            "item": [f"i{i}" for i in item],
            "position": random.integers(0, 5, rows),
        }
    )
    clicked = random.random(rows) < 1 / (1 + np.exp(2.5 - (user % 5) * 0.3 - (item % 3) * 0.8))
    delay_ms = random.choice([5_000, 300_000, 599_999, 600_000, 3_000_000, 4_300_000], rows)
    clicks = pd.DataFrame({"at": at + delay_ms, "impression_id": ids})[clicked].sort_values("at", kind="stable")
    return impressions, clicks


def feed(project: Path, events: tuple[pd.DataFrame, pd.DataFrame], name: str = "all", close: bool = True) -> None:
    """Ingest events from Parquet; with `close`, append a heartbeat a day later."""
    for kind, rows in zip(("impressions", "clicks"), events, strict=True):
        path = project / f"{name}-{kind}.parquet"
        rows.to_parquet(path, index=False)
        assert springtide(project, "ingest", kind, path)["rows"] == len(rows)
    if close:
        springtide(project, "heartbeat", int(max(rows["at"].max() for rows in events)) + 86_400_000)


def samples_of(project: Path) -> pd.DataFrame:
    """The samples log, sorted independently of its order in the log."""
    out = project / "samples.parquet"
    springtide(project, "export", "samples", "--out", out)
    rows = pd.read_parquet(out)
    place = [f"impression_{part}" for part in ("partition", "offset", "row")]
    return rows.sort_values(["impression_at", "impression_id", *place, "kind"], ignore_index=True)
