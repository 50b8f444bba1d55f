"""The command `skip`: the join continues after input records that no longer exist."""

import typer

from pipeline.cli.terminal.options import HERE, AsJson, DryRun, ProjectFolder, open_project
from pipeline.cli.terminal.output import print_message, print_result
from pipeline.cli.terminal.values import format_time
from pipeline.logs.open import open_log


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(skip)


def skip(project: ProjectFolder = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Make the join skip input records that were trimmed before it had read them. Stop the join first.

    The trimmed events are lost: an impression whose click was trimmed becomes a negative. Consider a quarantine.

    Example: springtide skip --dry-run
    """
    from pipeline.samples.run.skip import plan_skip
    from pipeline.samples.run.skip import skip as skip_records

    opened = open_project(project)
    log = open_log(opened)
    ranges = plan_skip(opened, log)
    if ranges and not dry_run:
        skip_records(opened, log, ranges)
        print_message("on Flink, start it with: springtide run samples --runner flink --from-logs")
    rows = [
        {
            "topic": lost.topic,
            "partition": lost.partition,
            "from_offset": lost.start,
            "to_offset": lost.stop,
            "read_to": None if lost.max_event_time_ms is None else format_time(lost.max_event_time_ms),
        }
        for lost in ranges
    ]
    print_result({"would_skip" if dry_run else "skipped": rows}, as_json)
