"""Commands for a Kafka broker and a Flink cluster on this machine: `cluster up`, `cluster down`, `cluster status`."""

from typing import Annotated

import typer

from pipeline.cli.terminal.options import HERE, AsJson, DryRun, ProjectFolder, open_project
from pipeline.cli.terminal.output import print_message, print_result
from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.plan import STORE
from pipeline.cluster.status import cluster_status
from pipeline.cluster.store import store_settings

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="kafka, jobmanager, taskmanager-1, …; default: all."),
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(
        help="A Kafka broker and a Flink cluster on this machine, configured by the table `cluster` of "
        "springtide.toml. Requires Java 17 and Maven.",
        epilog="Exit codes: 0 done, 2 configuration or usage, 3 unknown process, 12 Java, Maven, a jar or a port is "
        "not available, or a process ended before it was ready.",
        no_args_is_help=True,
    )
    group.command("up")(up)
    group.command("down")(down)
    group.command("status")(status)
    app.add_typer(group, name="cluster")


def up(
    names: Names = None,
    with_store: Annotated[
        bool, typer.Option("--with-store", help='Also an S3 server, for files.url = "s3://springtide/PREFIX".')
    ] = False,
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Start absent processes and wait until all are ready. Run it again after a crash.

    Example: springtide cluster up --project shop
    """
    opened = open_project(project)
    cluster = LocalCluster.of(opened, print_message)
    wanted = (*(names or cluster.names), STORE) if with_store else tuple(names or ())
    if dry_run:
        print_result({"would_start": cluster.plan_up(wanted)}, as_json)
        return
    started = cluster.up(wanted)
    if STORE in started:
        print_message(f"files: {store_settings(cluster.settings)}")
    print_result({"started": started} | cluster_status(cluster, opened.clock), as_json)


def down(
    wipe: Annotated[
        bool, typer.Option("--wipe", help="Delete topics, logs and all other data of the cluster.")
    ] = False,
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Stop all processes, and with them running jobs. Topics and logs are retained unless --wipe is given.

    The state of the jobs is in the project's state folder and is retained; without its topics it is useless.

    Example: springtide cluster down --wipe
    """
    cluster = LocalCluster.of(open_project(project), print_message)
    if dry_run:
        print_result({"would_stop": cluster.plan_down(), "would_wipe": wipe}, as_json)
        return
    print_result({"stopped": cluster.down(wipe), "wiped": wipe}, as_json)


def status(project: ProjectFolder = HERE, as_json: AsJson = False) -> None:
    """Show the port, uptime and log of every process, the availability of Kafka and Flink, slots and jobs.

    Example: springtide cluster status --json
    """
    opened = open_project(project)
    print_result(cluster_status(LocalCluster.of(opened), opened.clock), as_json)
