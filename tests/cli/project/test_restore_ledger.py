"""The command `restore-ledger`: a lost ledger is refused with its name, and restored with what it held."""

import pytest

from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, VersionError
from pipeline.versions.store.version_store import VersionStore
from tests.support.command.command_line import call, make_shop, springtide
from tests.support.synthetic.commits import World
from tests.support.world.lost_ledger import lose_ledger


@pytest.fixture
def shop(tmp_path):
    """A project with three versions and a quarantine."""
    folder = make_shop(tmp_path)
    store = VersionStore(Project.open(folder))
    world = World(store)
    for _ in range(3):
        world.commit()
    store.close()
    springtide(folder, "quarantine", "add", "100..200", "--reason", "bots")
    return folder


def lose(shop, content=None):
    lose_ledger(shop / "state" / "logs", content)


@pytest.mark.parametrize("content", [None, b"", b"no database" * 500])
def test_a_lost_ledger_is_restored_by_the_command_that_its_error_names(shop, content):
    quarantines = springtide(shop, "quarantine", "list")
    lose(shop, content)
    refused = call("versions", "--project", shop, "--json")
    assert refused.code == DamagedError.exit_code
    assert "springtide restore-ledger" in refused.result["error"]
    rehearsed = springtide(shop, "restore-ledger", "--dry-run")
    assert rehearsed == {"would_restore": True, "dry_run": True}
    assert call("versions", "--project", shop).code == DamagedError.exit_code
    restored = springtide(shop, "restore-ledger")["restored"]
    assert (restored["current"], restored["generation"], restored["quarantines"]) == (["g0/s0-of-1/3"], 0, 1)
    assert springtide(shop, "quarantine", "list") == quarantines
    assert len(springtide(shop, "versions")["versions"]) == 3


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_an_intact_ledger_is_left_alone(shop, words):
    before = springtide(shop, "versions"), springtide(shop, "quarantine", "list")
    refused = call("restore-ledger", *words, "--project", shop, "--json")
    assert refused.code == VersionError.exit_code
    assert "is intact. hint: nothing is to restore" in refused.result["error"]
    assert (springtide(shop, "versions"), springtide(shop, "quarantine", "list")) == before


def test_a_lost_backup_is_named(shop):
    lose(shop)
    for backup in (shop / "state" / "versions" / "ledger").glob("*.backup"):
        backup.unlink()
    refused = call("restore-ledger", "--project", shop, "--json")
    assert refused.code == DamagedError.exit_code
    assert "the backup" in refused.result["error"]
