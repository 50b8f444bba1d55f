"""The command `stop`: stops the jobs on Flink with savepoints."""

from typing import Annotated

import typer

from pipeline.cli.terminal.options import HERE, AsJson, DryRun, FlinkMaster, ProjectFolder, open_project
from pipeline.cli.terminal.output import print_message, print_result
from pipeline.flink.deployment import parse_job_names, running_jobs, stop_jobs

Jobs = Annotated[list[str] | None, typer.Argument(help="samples, train or all; default: all.", metavar="JOB")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(stop)


def stop(
    only: Jobs = None,
    project: ProjectFolder = HERE,
    flink_master: FlinkMaster = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Stop the jobs on Flink, each with a savepoint from which the next run continues.

    Example: springtide stop
    """
    wanted, opened = parse_job_names(only or ["all"]), open_project(project, flink_master)
    if dry_run:
        print_result({"would_stop": running_jobs(opened, wanted)}, as_json)
        return
    print_result({"stopped": stop_jobs(opened, wanted, print_message)}, as_json)
