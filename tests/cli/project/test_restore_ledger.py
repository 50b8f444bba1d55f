"""The command `restore-ledger`: a lost ledger is refused with its name, and restored with what it held."""

import pytest

from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, VersionError
from pipeline.versions.store.version_store import VersionStore
from tests.support.command.command_line import call, make_shop, springtide
from tests.support.synthetic.commits import World


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


def ledger(shop):
    return shop / "state" / "versions" / "ledger.sqlite"


def lose(shop, content=None):
    for part in ("", "-wal", "-shm"):
        ledger(shop).with_name(f"ledger.sqlite{part}").unlink(missing_ok=True)
    if content is not None:
        ledger(shop).write_bytes(content)


@pytest.mark.parametrize("content", [None, b"", b"no database" * 500])
def test_a_lost_ledger_is_restored_by_the_command_that_its_error_names(shop, content):
    quarantines = springtide(shop, "quarantine", "list")
    lose(shop, content)
    refused = call("versions", "--project", shop, "--json")
    assert refused.code == DamagedError.exit_code
    assert "springtide restore-ledger" in refused.result["error"]
    rehearsed = springtide(shop, "restore-ledger", "--dry-run")
    assert (rehearsed["backup_bytes"] > 1_000, rehearsed["dry_run"]) == (True, True)
    assert call("versions", "--project", shop).code == DamagedError.exit_code
    restored = springtide(shop, "restore-ledger")["restored"]
    assert (restored["current"], restored["generation"], restored["quarantines"]) == (["g0/s0-of-1/3"], 0, 1)
    assert (restored["set_aside"] is None) == (content is None)
    assert springtide(shop, "quarantine", "list") == quarantines
    assert len(springtide(shop, "versions")["versions"]) == 3


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_an_intact_ledger_is_left_alone(shop, words):
    before = springtide(shop, "versions"), springtide(shop, "quarantine", "list")
    refused = call("restore-ledger", *words, "--project", shop, "--json")
    assert refused.code == VersionError.exit_code
    assert "is intact. hint: there is nothing to restore" in refused.result["error"]
    assert (springtide(shop, "versions"), springtide(shop, "quarantine", "list")) == before
    assert not list(ledger(shop).parent.glob("*damaged*"))


def test_a_lost_backup_is_named(shop):
    lose(shop)
    for backup in ledger(shop).parent.glob("*backup*"):
        backup.unlink()
    for words in ((), ("--dry-run",)):
        refused = call("restore-ledger", *words, "--project", shop, "--json")
        assert refused.code == DamagedError.exit_code
        assert "backup" in refused.result["error"]
