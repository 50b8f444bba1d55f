"""The command `skip`: the join goes on behind input records that are gone."""

import typer

from pipeline.cli.options import HERE, AsJson, DryRun, ProjectFolder, open_project
from pipeline.cli.output import format_time, print_message, print_result
from pipeline.logs.open import open_log


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(skip)


def skip(project: ProjectFolder = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Let the join pass over input records that were trimmed before it had read them. Stop it first.

    What is gone is lost: impressions whose clicks were there end as negatives. Consider a quarantine of that time.

    Example: springtide skip --dry-run
    """
    from pipeline.samples.run.skip import plan_skip
    from pipeline.samples.run.skip import skip as pass_over

    opened = open_project(project)
    log = open_log(opened)
    gone = plan_skip(opened, log)
    if gone and not dry_run:
        pass_over(opened, log, gone)
        print_message("on Flink, start it with: springtide run samples --runner flink --from-logs")
    rows = [
        {
            "topic": lost.topic,
            "partition": lost.partition,
            "from_offset": lost.start,
            "to_offset": lost.stop,
            "read_to": None if lost.max_event_time_ms is None else format_time(lost.max_event_time_ms),
        }
        for lost in gone
    ]
    print_result({"would_skip" if dry_run else "skipped": rows}, as_json)
