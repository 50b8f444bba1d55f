"""The command `stop`: stops the jobs on Flink with savepoints."""

from typing import Annotated

import typer

from pipeline.cli.terminal.options import HERE, AsJson, FlinkMaster, ProjectFolder, open_project
from pipeline.cli.terminal.output import print_message, print_result
from pipeline.flink.deployment import parse_job_names, stop_jobs

Jobs = Annotated[list[str] | None, typer.Argument(help="samples, train or all; default: all.", metavar="JOB")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(stop)


def stop(
    only: Jobs = None, project: ProjectFolder = HERE, flink_master: FlinkMaster = None, as_json: AsJson = False
) -> None:
    """Stop the jobs on Flink, each with a savepoint from which the next run continues.

    Example: springtide stop
    """
    wanted = parse_job_names(only or ["all"])
    print_result({"stopped": stop_jobs(open_project(project, flink_master), wanted, print_message)}, as_json)
