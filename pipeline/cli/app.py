"""The command line: the application that the commands register with, and the exit codes."""

import errno
import platform
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline.cli.commands.data import dead_letters, ingest, skip, topics
from pipeline.cli.commands.jobs import cluster, create, run, status, stop
from pipeline.cli.commands.model import change, durable, export, importance, precision, quarantine, recall, show
from pipeline.cli.release import release
from pipeline.cli.terminal.output import writing_stdout

EXIT_CODES = (
    "Exit codes: 0 done, 1 disk or other failure of the system, 2 configuration or usage, 3 input, 4 log, 5 fenced, "
    "6 damaged, 7 delta, 8 migration needed, 9 halted, 10 rollback, 11 version, 12 cluster, 70 unexpected error, "
    "130 interrupted, 141 reader of the output gone."
)


class InterruptedCommandError(Exception):
    """Ctrl-C inside a command."""


class ClosedStreamError(Exception):
    """A connection, pipe or file that a command uses ended or was closed by the other end; not its stdout."""


class Commands(TyperGroup):
    """Keeps exceptions apart that Typer would turn into an exit code without a message."""

    def invoke(self, ctx: Any) -> Any:
        """Raises InterruptedCommandError, ClosedStreamError, and what the command raises."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise InterruptedCommandError from None
        except EOFError as failure:
            raise ClosedStreamError(str(failure)) from failure
        except OSError as failure:
            if failure.errno != errno.EPIPE:
                raise
            raise ClosedStreamError(str(failure)) from failure


app = typer.Typer(
    name="springtide",
    cls=Commands,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_PARTS = (
    create, ingest, run, stop, status, show, recall, importance, precision, change, durable, quarantine, skip,
    dead_letters, export, topics, cluster,
)  # fmt: skip
for part in _PARTS:
    part.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        with writing_stdout():
            print(f"springtide {release()} (Python {platform.python_version()})")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Keeps a recommendation model fresh: join, train, publish, serve, roll back."""
