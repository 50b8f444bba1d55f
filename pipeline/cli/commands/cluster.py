"""Commands for a Kafka broker and a Flink cluster on this machine: `cluster up`, `cluster down`, `cluster status`."""

from typing import Annotated

import typer

from pipeline.cli.options import HERE, AsJson, DryRun, ProjectFolder, open_project
from pipeline.cli.output import print_message, print_result
from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.status import cluster_status

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="kafka, jobmanager, taskmanager-1, …; without any: all."),
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(
        help="A Kafka broker and a Flink cluster on this machine, as the table `cluster` of springtide.toml says. "
        "Needs Java 17 and Maven.",
        epilog="Exit codes: 0 done, 2 configuration or usage, 3 a process that does not exist, 12 Java, Maven, a jar "
        "or a port is not to be had, or a process ended before it answered.",
        no_args_is_help=True,
    )
    group.command("up")(up)
    group.command("down")(down)
    group.command("status")(status)
    app.add_typer(group, name="cluster")


def up(names: Names = None, project: ProjectFolder = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Start what is absent, and return when all answer. Again after a crash, it starts what has ended.

    Example: springtide cluster up --project shop
    """
    opened = open_project(project)
    cluster = LocalCluster.of(opened, print_message)
    if dry_run:
        print_result({"would_start": cluster.plan_up(names or ())}, as_json)
        return
    started = cluster.up(names or ())
    print_result({"started": started} | cluster_status(cluster, opened.clock), as_json)


def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Delete topics, logs and all else in its folder.")] = False,
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """End all processes; running jobs end with them. Topics and logs stay unless wiped.

    What the jobs keep is in the project's state folder and stays: for topics that are gone it is good for nothing.

    Example: springtide cluster down --wipe
    """
    cluster = LocalCluster.of(open_project(project), print_message)
    if dry_run:
        print_result({"would_end": cluster.plan_down(), "would_wipe": wipe}, as_json)
        return
    print_result({"ended": cluster.down(wipe), "wiped": wipe}, as_json)


def status(project: ProjectFolder = HERE, as_json: AsJson = False) -> None:
    """Show every process with its port, age and log, whether the broker answers, and Flink's slots and jobs.

    Example: springtide cluster status --json
    """
    opened = open_project(project)
    print_result(cluster_status(LocalCluster.of(opened), opened.clock), as_json)
