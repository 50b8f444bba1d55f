"""The entry point of the command `springtide`. It handles Ctrl-C and standard streams before anything is imported."""

import os
import sys

from pipeline.cli.interrupts import UNEXPECTED, end_at_interrupt


def run_command() -> None:
    """Run the command of `sys.argv` and exit with its code."""
    end_at_interrupt()
    _open_closed_streams()
    try:
        from pipeline.cli.outcome import run_app
    except Exception as failure:
        sys.exit(_report_import(failure))
    sys.exit(run_app())


def _report_import(failure: Exception) -> int:
    """Print one line for an installation that cannot be imported; returns the exit code of an unexpected error."""
    import json

    from pipeline.cli.error_file import write_error_file

    path, problem = write_error_file(failure)
    reason = " ".join(f"{type(failure).__name__}: {failure}".split())
    place = f"the traceback is in {path}" if path else f"no traceback is stored: {problem}"
    message = f"springtide cannot be imported, {reason}. hint: install it again; {place}"
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps({"error": message, "kind": type(failure).__name__, "exit_code": UNEXPECTED}) + "\n")
    sys.stderr.write(f"error: {message}\n")
    return UNEXPECTED


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
