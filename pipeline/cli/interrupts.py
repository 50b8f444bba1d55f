"""Ctrl-C in the three phases of a command: imports, the command itself, the end of the interpreter.

During imports and after the command, Ctrl-C ends the process at once: a KeyboardInterrupt there would be raised inside
library code and printed as a traceback, or lost. Inside the command the first Ctrl-C raises KeyboardInterrupt, so that
files are closed; the second ends the process. Standard library only: it is imported before everything else.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
