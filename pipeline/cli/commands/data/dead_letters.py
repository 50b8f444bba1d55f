"""Commands for dead letters: `dead-letters list` and `dead-letters replay`."""

from collections import Counter
from typing import Annotated

import typer

from pipeline.cli.terminal.options import HERE, AsJson, DryRun, ProjectFolder, open_project, read_time
from pipeline.cli.terminal.output import print_message, print_result
from pipeline.ingest.replay import plan_replay
from pipeline.ingest.replay import replay as replay_letters
from pipeline.logs.events.dead_letters import REASONS, read_dead_letters, readable_letters
from pipeline.logs.interface.log import read_to_end
from pipeline.logs.open import open_log

_REASON_HELP = f"Only letters with this reason; may be repeated. Known: {', '.join(REASONS)}."
Reasons = Annotated[list[str] | None, typer.Option("--reason", help=_REASON_HELP)]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Only letters written since then.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(help="Events that could not be joined, each with its reason.", no_args_is_help=True)
    group.command("list")(list_letters)
    group.command("replay")(replay)
    app.add_typer(group, name="dead-letters")


def list_letters(project: ProjectFolder = HERE, since: Since = None, as_json: AsJson = False) -> None:
    """Count dead letters by topic and reason. To export them: springtide export dead-letters.

    Example: springtide dead-letters list --since 2026-01-31T14:00:00Z
    """
    opened = open_project(project)
    log, letter_topic = open_log(opened), opened.config.topics.dead_letters
    counts: Counter[tuple[str, str]] = Counter()
    foreign = 0
    for partition in range(log.partitions(letter_topic)):
        start = log.offset_at(letter_topic, partition, read_time(since)) if since is not None else None
        for records in read_to_end(log, letter_topic, partition, start):
            letters = readable_letters(records)
            foreign += len(records) - len(letters)
            table = read_dead_letters(letters).table
            counts.update(zip(table.column("topic").to_pylist(), table.column("reason").to_pylist(), strict=True))
    rows = [{"topic": topic, "reason": reason, "letters": n} for (topic, reason), n in sorted(counts.items())]
    if foreign:
        print_message(f"{foreign} records of {letter_topic} are no dead letters. hint: another process writes there")
    print_result({"dead_letters": rows, "foreign_records": foreign}, as_json)


def replay(
    project: ProjectFolder = HERE,
    reason: Reasons = None,
    since: Since = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Append dead letters to their topics again, after their cause was corrected. Each is replayed only once.

    A replayed event that is still invalid, or late, becomes a dead letter again. Rows that `ingest` rejected are not
    replayed: correct their file.

    Example: springtide dead-letters replay --reason undecodable --dry-run
    """
    opened = open_project(project)
    log = open_log(opened)
    plan = plan_replay(opened, log, tuple(reason or ()), None if since is None else read_time(since))
    if not dry_run:
        replay_letters(opened, log, plan)
    counts = dict(sorted(plan.reasons.items()))
    others = {"replayed_before": plan.replayed, "from_files": plan.from_files, "dry_run": dry_run}
    print_result({"replayed": plan.reasons.total(), "reasons": counts, **others}, as_json)
