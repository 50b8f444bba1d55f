"""Commands for the topics of the log: `topics create`."""

from contextlib import closing
from dataclasses import asdict, replace
from typing import Annotated

import typer

from pipeline.cli.terminal.options import HERE, AsJson, DryRun, ProjectFolder, open_project
from pipeline.cli.terminal.output import print_result
from pipeline.errors import ConfigError
from pipeline.logs.open import connect_kafka
from pipeline.logs.topic_plan import apply_plan, plan_topics

KeepSettings = Annotated[
    bool, typer.Option("--keep-settings", help="Leave the settings of existing topics; those that differ are listed.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    topics = typer.Typer(help="Topics of the log on Kafka.", no_args_is_help=True)
    topics.command("create")(create)
    app.add_typer(topics, name="topics")


def create(
    project: ProjectFolder = HERE, keep_settings: KeepSettings = False, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Create the missing topics on Kafka, and change the settings of existing ones to those required.

    An existing topic is used if it has the configured number of partitions. Settings that suffice are left as they are.
    Retention of the inputs covers the state of the join and the longest outage (logs.outage_s). Retention of the
    samples covers the longest rollback and the time until bad data is detected (logs.rollback_s, logs.detection_s).

    Example: springtide topics create --project shop --dry-run
    """
    opened = open_project(project)
    engine = opened.config.logs.engine
    if engine != "kafka":
        raise ConfigError(f"logs.engine is {engine}, which creates topics automatically. hint: logs.engine = 'kafka'")
    with closing(connect_kafka(opened)) as log:
        plan = plan_topics(opened.config, log)
        plan.check_partitions()
        if not dry_run:
            apply_plan(log, replace(plan, changes=()) if keep_settings else plan)
    created = [
        {"topic": topic.name, "partitions": topic.partitions, "retention_ms": topic.retention_ms}
        for topic in plan.missing
    ]
    changed = [asdict(change) for change in plan.changes]
    names = ("would_create", "would_change") if dry_run else ("created", "changed")
    if keep_settings:
        names = (names[0], "differs")
    print_result(dict(zip(names, (created, changed), strict=True)), as_json)
