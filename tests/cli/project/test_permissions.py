"""A project folder that cannot be written or read: every command names what it could not open, in one line."""

import shutil

import pytest

from pipeline.cli.interrupts import UNEXPECTED
from tests.support.command.command_line import call, feed, make_events, make_shop, springtide
from tests.support.command.permissions import permissions_in_force

WRITING = (
    "ingest clicks clicks.csv",
    "heartbeat 2026-01-02T00:00:00Z",
    "run samples --until-end",
    "quarantine add 5..6",
    "publish --level full",
    "restore-ledger",
    "dead-letters replay",
)
READING = ("status", "versions", "quarantine list", "dead-letters list", "export samples --out samples.parquet")


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    shop = make_shop(tmp_path_factory.mktemp("joined"))
    feed(shop, make_events(3, 50))
    springtide(shop, "run", "samples", "--until-end")
    springtide(shop, "quarantine", "add", "1..2")
    return shop


@pytest.fixture
def shop(joined, tmp_path):
    shop = shutil.copytree(joined, tmp_path / "shop")
    yield shop
    for folder in (shop, *(path for path in shop.rglob("*") if path.is_dir())):
        folder.chmod(0o700)


def forbid(folder, mode_of_folders, mode_of_files):
    for path in (folder, *sorted(folder.rglob("*"), reverse=True)):
        path.chmod(mode_of_folders if path.is_dir() else mode_of_files)


def run(shop, command, cwd, monkeypatch):
    monkeypatch.chdir(cwd)
    (cwd / "clicks.csv").write_text("impression_id,at\na,1767225600000\n")
    with permissions_in_force():
        return call(*command.split(), "--project", shop)


def check(done, shop):
    assert done.code not in (0, UNEXPECTED), done
    assert [line for line in done.err.splitlines() if line.startswith("error: ")] == done.err.splitlines()[-1:]
    assert str(shop) in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", WRITING)
def test_a_folder_that_cannot_be_written_is_named(shop, tmp_path, monkeypatch, command):
    forbid(shop, 0o500, 0o400)
    check(run(shop, command, tmp_path, monkeypatch), shop)


@pytest.mark.parametrize("command", [*WRITING, *READING, "resume"])
def test_a_state_folder_of_another_user_is_named(shop, tmp_path, monkeypatch, command):
    (shop / "state").chmod(0)
    check(run(shop, command, tmp_path, monkeypatch), shop)


@pytest.mark.parametrize("command", ["status", "config check", "ingest clicks clicks.csv"])
def test_a_configuration_that_cannot_be_read_is_named(shop, tmp_path, monkeypatch, command):
    (shop / "springtide.toml").chmod(0)
    check(run(shop, command, tmp_path, monkeypatch), shop)
    (shop / "springtide.toml").chmod(0o600)
    shop.chmod(0)
    check(run(shop, command, tmp_path, monkeypatch), shop)
