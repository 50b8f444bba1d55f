"""Commands for the topics of the log: `topics create`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from pipeline.cli.options import HERE, AsJson, DryRun, ProjectFolder, open_project
from pipeline.cli.output import print_result
from pipeline.configuration.project import Project
from pipeline.errors import ConfigError
from pipeline.logs.open import connect_kafka
from pipeline.logs.topic_plan import apply_plan, plan_topics

if TYPE_CHECKING:
    from pipeline.logs.kafka.kafka_log import KafkaLog


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    topics = typer.Typer(help="Topics of the log on Kafka.", no_args_is_help=True)
    topics.command("create")(create)
    app.add_typer(topics, name="topics")


def create(project: ProjectFolder = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Make the topics that Kafka lacks, and give those it has the settings the configuration needs.

    Retention covers, for the inputs, what the join holds and the longest outage (logs.outage_s); for the samples, how
    far back a rollback may go and how long bad data may stay unnoticed (logs.rollback_s, logs.detection_s).

    Example: springtide topics create --project shop --dry-run
    """
    with _cluster_of(open_project(project)) as (opened, log):
        plan = plan_topics(opened.config, log)
        if not dry_run:
            apply_plan(log, plan)
    made = [
        {"topic": topic.name, "partitions": topic.partitions, "retention_ms": topic.retention_ms}
        for topic in plan.missing
    ]
    changed = [asdict(change) for change in plan.changes]
    print_result(
        {"would_make": made, "would_change": changed} if dry_run else {"made": made, "changed": changed}, as_json
    )


@contextmanager
def _cluster_of(project: Project) -> Iterator[tuple[Project, "KafkaLog"]]:
    engine = project.config.logs.engine
    if engine != "kafka":
        raise ConfigError(f"logs.engine is {engine}, whose topics make themselves. hint: logs.engine = 'kafka'")
    log = connect_kafka(project)
    try:
        yield project, log
    finally:
        log.close()
