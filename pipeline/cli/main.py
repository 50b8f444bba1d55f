"""The command `springtide`: assembles the commands and turns errors into one line and an exit code.

Exit codes: 0 done, 1 other failure, 2 configuration or usage, 3 input, 4 log, 5 fenced by another writer, 6 damaged
bytes, 7 delta that does not apply, 8 migration needed, 9 halted, 10 rollback, 11 version that cannot be stored or
found, 12 cluster, 130 interrupted.
"""

import json
import logging
import os
import sys

import structlog
import typer

from pipeline.cli.commands import (
    change,
    cluster,
    create,
    dead_letters,
    export,
    ingest,
    run,
    show,
    skip,
    status,
    stop,
    topics,
)
from pipeline.cli.terminal.output import print_message
from pipeline.configuration.environment import crash_point_from_environment
from pipeline.errors import SpringtideError
from pipeline.process import crash_point

_INTERRUPTED = 130
EXIT_CODES = (
    "Exit codes: 0 done, 1 failure, 2 configuration or usage, 3 input, 4 log, 5 fenced, 6 damaged, 7 delta, "
    "8 migration needed, 9 halted, 10 rollback, 11 version, 12 cluster, 130 interrupted."
)

app = typer.Typer(
    name="springtide",
    help="Keeps a recommendation model fresh: join, train, publish, serve, roll back.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (create, ingest, run, stop, status, show, change, skip, dead_letters, export, topics, cluster):
    part.register(app)


def run_command() -> None:
    """Entry point of the `springtide` script."""
    _configure_logging()
    crash_point.arm_crash_point(crash_point_from_environment())
    try:
        code = app(standalone_mode=False)
    except SpringtideError as failure:
        _fail(str(failure), failure.exit_code, type(failure).__name__)
    except typer.TyperException as failure:
        _fail(f"{failure.format_message().rstrip('.')}. hint: springtide --help", failure.exit_code, "UsageError")
    except BrokenPipeError:
        # The reader of stdout has closed it. Prevents a second error when the interpreter flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as failure:
        place, reason = failure.filename or "disk", failure.strerror or failure
        _fail(f"{place}: {reason}. hint: correct this, then run the command again", 1, "OSError")
    if code == _INTERRUPTED:
        _fail("interrupted", code, "Interrupted")
    sys.exit(code or 0)


def _fail(message: str, code: int, kind: str) -> None:
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps({"error": message, "kind": kind, "exit_code": code}) + "\n")
    print_message(f"error: {message}")
    sys.exit(code)


def _configure_logging() -> None:
    """Log errors to stderr, without the warnings of libraries."""
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    # Errors in a bundle are raised; Beam would also log each with a traceback.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    # Calls are retried while brokers are unavailable; an outage that exceeds the limit is raised.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


if __name__ == "__main__":
    run_command()
