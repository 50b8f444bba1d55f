"""Exit code of a command, and the one-line message of every exception.

An exception that this module does not know also leaves a file with its traceback (`error_file.py`).
"""

import errno
import json
import logging
import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
import typer

from pipeline.cli.app import InterruptedCommandError, app
from pipeline.cli.error_file import write_error_file
from pipeline.cli.interrupts import INTERRUPTED, UNEXPECTED, raising_interrupts
from pipeline.cli.terminal.output import StdoutClosedError, print_message
from pipeline.cli.terminal.values import printable
from pipeline.configuration.environment import crash_point_from_environment
from pipeline.errors import SpringtideError
from pipeline.process import crash_point

SYSTEM_FAILURE = 1
OUTPUT_CLOSED = 141
"""What a shell shows for a process that SIGPIPE ended."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST_MESSAGE = 500


@dataclass(frozen=True)
class Failure:
    """The end of a command by an exception. Without a message, nothing is printed."""

    exit_code: int
    message: str = ""
    kind: str = ""
    traceback_file: str | None = None


def run_app() -> int:
    """Run the command of `sys.argv`; returns its exit code."""
    _configure_streams()
    _configure_logging()
    threading.excepthook = _report_thread
    with raising_interrupts() as interrupted:
        try:
            crash_point.arm_crash_point(crash_point_from_environment())
            return int(app(standalone_mode=False) or 0)
        except SystemExit:
            raise
        except BaseException as exception:
            # An interrupt inside an import or native code may surface as another exception.
            failure = _INTERRUPTED if interrupted.is_set() else failure_of(exception)
    _show(failure)
    return failure.exit_code


_INTERRUPTED = Failure(INTERRUPTED, "interrupted", "Interrupted")


def failure_of(exception: BaseException) -> Failure:
    """The exit code and message of an exception; an unexpected one is written to a file."""
    match exception:
        case SpringtideError():
            return Failure(exception.exit_code, str(exception), type(exception).__name__)
        case typer.TyperException():
            # Without a message, the help of a group of commands has been shown.
            problem = exception.format_message().rstrip(".")
            return Failure(exception.exit_code, problem and f"{problem}. hint: springtide --help", "UsageError")
        case StdoutClosedError():
            return Failure(OUTPUT_CLOSED)
        case InterruptedCommandError() | KeyboardInterrupt():
            return _INTERRUPTED
        case OSError() if exception.filename is not None or exception.errno in _NO_ROOM:
            place, reason = exception.filename or "disk", exception.strerror or exception
            hint = "hint: correct this, then run the command again"
            return Failure(SYSTEM_FAILURE, f"{place}: {reason}. {hint}", "OSError")
        case MemoryError():
            hint = "hint: stop other processes, or run the command on a machine with more memory"
            return Failure(SYSTEM_FAILURE, f"memory is exhausted. {hint}", "MemoryError")
    return _unexpected(exception)


def _unexpected(exception: BaseException) -> Failure:
    path, problem = write_error_file(exception)
    text = printable(str(exception))[:_LONGEST_MESSAGE]
    kind = type(exception).__name__
    hint = f"hint: report this with the traceback in {path}" if path else f"no traceback is stored: {problem}"
    return Failure(UNEXPECTED, f"unexpected {kind}{text and ': '}{text}. {hint}", kind, str(path) if path else None)


def _show(failure: Failure) -> None:
    """Print the failure; what cannot be printed any more is discarded."""
    if "--json" in sys.argv and failure.message:
        shown: dict[str, Any] = {"error": failure.message, "kind": failure.kind, "exit_code": failure.exit_code}
        if failure.traceback_file:
            shown["traceback_file"] = failure.traceback_file
        with suppress(OSError):
            sys.stdout.write(json.dumps(shown) + "\n")
    if failure.message:
        print_message(f"error: {failure.message}")
    try:
        sys.stdout.flush()
    except OSError:
        # The interpreter would flush again at its end, and print another error.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_thread(unhandled: Any) -> None:
    """One line for an exception that ended a thread; the command continues."""
    if unhandled.exc_value is not None and not issubclass(unhandled.exc_type, SystemExit):
        name = unhandled.thread.name if unhandled.thread else "unknown"
        print_message(f"error in thread {name}: {failure_of(unhandled.exc_value).message}")


def _configure_streams() -> None:
    """Show what the encoding of a stream lacks as escape sequences."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def _configure_logging() -> None:
    """Log errors to stderr, without the warnings of libraries."""
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    # Errors in a bundle are raised; Beam would also log each with a traceback.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    # Calls are retried while brokers are unavailable; an outage that exceeds the limit is raised.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    # Looks up sys.stderr at every line: a replica replaces it.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
