"""Ctrl-C in the three phases of a command: imports, the command itself, the end of the interpreter.

During imports and after the command, Ctrl-C ends the process at once: a KeyboardInterrupt there would be raised inside
library code and printed as a traceback, or lost. Inside the command the first Ctrl-C raises KeyboardInterrupt, so that
files are closed; the second ends the process. Standard library only: it is imported before everything else.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

INTERRUPTED = 130
UNEXPECTED = 70
"""EX_SOFTWARE of sysexits.h."""
_SHOW_CURSOR = b"\x1b[?25h"


def end_at_interrupt() -> None:
    """From now on Ctrl-C ends the process at once, with exit code 130 and one line."""
    _handle(_end)
    sys.unraisablehook = _end_if_interrupted


@contextmanager
def raising_interrupts() -> Iterator[threading.Event]:
    """Inside, the first Ctrl-C raises KeyboardInterrupt and sets the event. It may surface as any other exception."""
    interrupted = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        _handle(_end)
        raise KeyboardInterrupt

    _handle(interrupt)
    try:
        yield interrupted
    finally:
        _handle(_end)


@contextmanager
def ending_overdue(within_s: float, root: Path) -> Iterator[Callable[[], None]]:
    """Yields what a signal handler calls: the process ends if what runs inside has not ended `within_s` later.

    A user's function that never returns cannot be interrupted. What was committed stays; the message names the place in
    the project folder `root`.
    """
    left = threading.Event()

    def watch() -> None:
        if not left.wait(within_s):
            place = running_in(root) or "no code of the project"
            text = f"error: not stopped within {within_s:g} s (stop_within_s), the process ends; running: {place}"
            with suppress(OSError):
                os.write(2, f"{text}\n".encode())
            _end(signal.SIGTERM, None)

    try:
        yield threading.Thread(target=watch, name="stop", daemon=True).start
    finally:
        left.set()


def running_in(root: Path) -> str:
    """Where threads of this process are in files of the folder `root`; empty if nowhere."""
    places = []
    for frame in sys._current_frames().values():
        at: FrameType | None = frame
        while at is not None and not _is_inside(at.f_code.co_filename, root):
            at = at.f_back
        if at is not None:
            places.append(f"{Path(at.f_code.co_filename).name}:{at.f_lineno} in {at.f_code.co_name}")
    return ", ".join(sorted(places))


def _is_inside(file: str, root: Path) -> bool:
    path = Path(file)
    return path.is_relative_to(root) and "site-packages" not in path.parts


def _handle(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """Write with system calls: the interrupted code may hold the locks of the streams."""
    with suppress(OSError):
        if "--json" in sys.argv:
            os.write(1, b'{"error": "interrupted", "kind": "Interrupted", "exit_code": %d}\n' % INTERRUPTED)
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + b"error: interrupted\n")
    os._exit(INTERRUPTED)


def _end_if_interrupted(unraisable: Any) -> None:
    """A KeyboardInterrupt in a destructor or a callback would be printed and forgotten."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _end(signal.SIGINT, None)
    sys.__unraisablehook__(unraisable)
