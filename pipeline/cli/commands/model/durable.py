"""Commands about durable state as a whole: `restore-ledger`, `migrate-state`."""

from contextlib import closing
from dataclasses import asdict

import typer

from pipeline.cli.terminal.options import HERE, AsJson, DryRun, ProjectFolder, open_project
from pipeline.cli.terminal.output import print_result
from pipeline.logs.open import open_log
from pipeline.versions.store.migration import migrate, plan_migration
from pipeline.versions.store.restore_ledger import refuse_intact
from pipeline.versions.store.restore_ledger import restore_ledger as restore_from_backup


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("restore-ledger")(restore_ledger)
    app.command("migrate-state")(migrate_state)


def restore_ledger(project: ProjectFolder = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Restore a lost or damaged ledger from its backup and the version files. Stop the trainer first.

    Example: springtide restore-ledger --dry-run
    """
    opened = open_project(project)
    if dry_run:
        with closing(open_log(opened)) as log:
            refuse_intact(opened, log)
        print_result({"would_restore": True, "dry_run": True}, as_json)
        return
    print_result({"restored": asdict(restore_from_backup(opened))}, as_json)


def migrate_state(project: ProjectFolder = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Move the ledger of a release before into its topic, and files into the store of files.url.

    Stop the trainer first. What was moved before is compared and left as it is, so it may be run again.

    Example: springtide migrate-state --dry-run
    """
    opened = open_project(project)
    moved = plan_migration(opened) if dry_run else migrate(opened)
    row = {"ledger": moved.ledger, "files": len(moved.files), "bytes": moved.bytes, "dry_run": dry_run}
    print_result({"migrated": row}, as_json)
