"""Times, offsets and reasons on the command line are checked before anything is written; rehearsals write nothing."""

from contextlib import closing

import pytest

from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.ledger.records import FORMAT, Quarantined, encode_record
from tests.support.command.command_line import call, feed, make_events, make_shop, springtide

TOO_LATE = ["253402300800000", "1767229200000000", "9" * 20, "9" * 5000]
NO_TIMES = ["²", "-1", "1e12", "0x10", "", "yesterday", "1969-12-31T23:59:59Z", "10000-01-01", "0001-01-01"]
TIMED = [
    ("heartbeat", "{}"),
    ("heartbeat", "{}", "--dry-run"),
    ("quarantine", "add", "0..{}"),
    ("quarantine", "add", "{}..1767229200000", "--dry-run"),
    ("rollback", "--before", "{}"),
    ("rollback", "--before", "2026-01-01T00:00:00Z", "--quarantine", "0..{}"),
    ("dead-letters", "list", "--since", "{}"),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp("times") / "shop")


@pytest.fixture(autouse=True)
def _nothing_is_kept(shop):
    yield
    for row in springtide(shop, "quarantine", "list")["quarantines"]:
        if row["removed_at"] is None:
            springtide(shop, "quarantine", "remove", row["id"])


def in_force(shop):
    return [row for row in springtide(shop, "quarantine", "list")["quarantines"] if row["removed_at"] is None]


@pytest.mark.parametrize("time", [*TOO_LATE, *NO_TIMES])
@pytest.mark.parametrize("words", TIMED)
def test_a_wrong_time_is_refused_in_one_line_before_anything_is_written(shop, words, time):
    done = call(*(word.format(time) for word in words), "--project", shop)
    assert done.code in (2, 3, 10), done
    assert len(done.err.splitlines()) == 1
    assert len(done.err) < 400
    assert in_force(shop) == []
    log = open_log(Project.open(shop))
    assert all(log.end_offset(topic, 0) == 0 for topic in log.topics() if topic in ("impressions", "clicks"))
    log.close()


@pytest.mark.parametrize("time", ["0", "1767229200000", "253402300799999", "9999-12-31T23:59:59Z"])
def test_the_first_and_the_last_time_are_accepted(shop, time):
    assert springtide(shop, "heartbeat", time, "--dry-run")["dry_run"]


@pytest.mark.parametrize("version", ["g0/s0-of-1/99999999999999999999", "g0/s0-of-1/²", "g9/s0-of-1/1"])
def test_a_version_that_cannot_be_is_refused(shop, version):
    done = call("rollback", "--to", version, "--project", shop)
    assert (done.code in (3, 11), len(done.err.splitlines())) == (True, 1), done


def test_a_quarantine_with_a_time_too_late_that_an_earlier_release_has_stored_is_listed(shop):
    old = Quarantined(quarantine=Quarantine(1, "old", times_ms=(0, 253402300800000)))
    with closing(open_log(Project.open(shop))) as log:
        log.append("ledger", 1, [encode_record(old)], headers=FORMAT)
    (row,) = in_force(shop)
    assert row["to"] == "253402300800000 ms"


def test_a_quarantine_of_offsets_is_added_and_listed(shop):
    words = ("quarantine", "add", "--shard", "0", "--offsets", "12..14", "--reason", "foreign")
    assert springtide(shop, *words, "--dry-run") == {"id": None, "shard": 0, "offsets": "12..14", "dry_run": True}
    assert in_force(shop) == []
    assert springtide(shop, *words)["id"] > 0
    (row,) = in_force(shop)
    assert (row["shard"], row["offsets"], row["reason"]) == (0, "12..14", "foreign")
    assert springtide(shop, "status")["quarantines"] == 1


WRONG_OFFSETS = [
    ("--offsets", "14..12"),
    ("--offsets", "12..12"),
    ("--offsets", "12"),
    ("--offsets", "a..b"),
    ("--offsets=-1..3",),
    ("--offsets", "0..99999999999999999999"),
    ("--offsets", "1..2", "--shard", "7"),
    ("--offsets", "1..2", "--shard=-1"),
    ("--offsets", "1..2", "10..20"),
    ("10..20", "--shard", "0"),
    (),
]


@pytest.mark.parametrize("words", WRONG_OFFSETS)
@pytest.mark.parametrize("rehearsal", [("--dry-run",), ()])
def test_wrong_offsets_are_refused_also_in_a_rehearsal(shop, words, rehearsal):
    done = call("quarantine", "add", *words, *rehearsal, "--project", shop)
    assert (done.code, len(done.err.splitlines())) == (3, 1), done
    assert in_force(shop) == []


def test_a_rehearsed_replay_writes_nothing_and_an_unknown_reason_is_refused(tmp_path):
    shop = make_shop(tmp_path / "shop")
    feed(shop, make_events(1, 20))
    log = open_log(Project.open(shop))
    log.append("clicks", 0, [b"poison"])
    springtide(shop, "run", "samples", "--until-end")
    ends = {topic: log.end_offset(topic, 0) for topic in log.topics()}
    found = springtide(shop, "dead-letters", "replay", "--reason", "undecodable", "--dry-run")
    assert (found["replayed"], found["dry_run"]) == (1, True)
    assert {topic: log.end_offset(topic, 0) for topic in log.topics()} == ends
    log.close()
    for rehearsal in (["--dry-run"], []):
        done = call("dead-letters", "replay", "--reason", "nonsense", *rehearsal, "--project", shop)
        assert done.code == 3
        assert "no dead letter has reason 'nonsense'. known: candidate_too_late, click_before_impression, " in done.err
