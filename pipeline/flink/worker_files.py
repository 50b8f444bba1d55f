"""What a worker writes beside its work, bounded: a log file, and a folder for temporary files that ends with it.

Workers are killed without warning, so each removes what its dead predecessors left: their temporary folders on this
machine, and their job's oldest log files.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

KEPT_LOGS = 20
"""Newest log files of a job that stay. More than its workers at a time; a job that fails for ever fills no disk."""

_SCRATCH = "springtide-worker-"


def open_log(folder: Path, worker: str) -> Path:
    """Make this process's log file, among those of its job in `folder`; the oldest beyond KEPT_LOGS go."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{worker}-{os.getpid()}.log"
    path.touch()
    for old in sorted(folder.glob("*.log"), key=_changed_at, reverse=True)[KEPT_LOGS:]:
        # Two workers that start at once may both see it.
        old.unlink(missing_ok=True)
    return path


def open_scratch() -> Path:
    """Make this process's folder for temporary files; those of processes that are gone are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        pid = left.name.removeprefix(_SCRATCH).partition("-")[0]
        if pid.isdecimal() and not _lives(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))


def _changed_at(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
