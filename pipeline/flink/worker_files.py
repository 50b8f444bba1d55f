"""The files a worker writes, bounded: a log file and a folder for temporary files.

Workers are killed without warning, so each removes what earlier ones left: temporary folders of dead processes on this
machine, and the oldest log files of its job.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import psutil

MAX_LOGS = 20
"""Log files retained per job. More than its concurrent workers; bounds the disk usage of a job that fails forever."""

_SCRATCH = "springtide-worker-"


def open_log(folder: Path, worker: str) -> Path:
    """Create this process's log file in `folder` and delete the job's oldest ones beyond MAX_LOGS."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{worker}-{os.getpid()}.log"
    path.touch()
    for old in sorted(folder.glob("*.log"), key=_modified_at, reverse=True)[MAX_LOGS:]:
        # Two workers that start at the same time may both delete it.
        old.unlink(missing_ok=True)
    return path


def open_scratch() -> Path:
    """Create this process's folder for temporary files and delete the folders of dead processes."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        pid = left.name.removeprefix(_SCRATCH).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))


def _modified_at(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0
