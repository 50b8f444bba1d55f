"""Files with the tracebacks of unexpected exceptions: in the project's state folder, else in the temporary folder.

Imports little: it also reports what fails while the command is imported.
"""

import argparse
import os
import platform
import shlex
import sys
import tempfile
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pipeline.cli.release import release
from pipeline.process.clock import SystemClock

KEPT = 20
"""Files kept in a project, so that a command that fails in a loop does not fill the disk."""
_PREFIX = "springtide-"


def write_error_file(exception: BaseException) -> tuple[Path | None, str]:
    """Write the traceback of the exception; returns the path, or None and the reason why there is none."""
    text = _report(exception)
    with suppress(Exception):  # the project, or what reads it, may be what is broken
        from pipeline.configuration.project import Project

        folder = Project.open(_project_folder()).state / "errors"
        folder.mkdir(parents=True, exist_ok=True)
        _remove_oldest(folder)
        return _write(folder, text), ""
    try:
        return _write(Path(tempfile.gettempdir()), text), ""
    except OSError as failure:
        return None, str(failure)


def _write(folder: Path, text: str) -> Path:
    number, path = tempfile.mkstemp(prefix=f"{_PREFIX}{_now():%Y%m%dT%H%M%SZ}-", suffix=".log", dir=folder)
    with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(path)


def _report(exception: BaseException) -> str:
    software = f"springtide {release()}, Python {platform.python_version()}, {platform.platform()}"
    command = f"{_now():%Y-%m-%dT%H:%M:%SZ} {shlex.join(sys.argv)}"
    return "\n".join((software, command, "", "".join(traceback.format_exception(exception))))


def _project_folder() -> Path:
    """The folder of the option --project in `sys.argv`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--project", "-C", default=".")
    return Path(parser.parse_known_args(sys.argv[1:])[0].project)


def _remove_oldest(folder: Path) -> None:
    for path in sorted(folder.glob(f"{_PREFIX}*.log"))[: 1 - KEPT]:
        path.unlink(missing_ok=True)


def _now() -> datetime:
    return datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC)
