"""The entry point of the command `springtide`. It handles Ctrl-C and standard streams before anything is imported."""

import os
import sys

from pipeline.cli.interrupts import end_at_interrupt


def run_command() -> None:
    """Run the command of `sys.argv` and exit with its code."""
    end_at_interrupt()
    _open_closed_streams()
    from pipeline.cli.outcome import run_app

    sys.exit(run_app())


def _open_closed_streams() -> None:
    """Open /dev/null as every standard stream that the caller has closed.

    Otherwise the next file that is opened, of a log for example, gets its number, and libraries write messages to it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, so this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115


if __name__ == "__main__":
    run_command()
