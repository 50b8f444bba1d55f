"""`quarantine` and `rollback` with --where and --keys: wrong arguments leave no trace, right ones are shown in full."""

import numpy as np
import pytest

from tests.support.command.command_line import START_MS, call, feed, make_events, make_shop, springtide

ROWS = 120


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A project with samples and no version."""
    project = make_shop(tmp_path_factory.mktemp("chosen") / "shop")
    feed(project, make_events(1, ROWS))
    springtide(project, "run", "samples", "--until-end")
    (project / "users.txt").write_text("u1\nu2\nu1\n")
    (project / "empty.txt").write_text("\n")
    return project


@pytest.fixture(autouse=True)
def _nothing_is_left(shop):
    yield
    for row in in_force(shop):
        springtide(shop, "quarantine", "remove", row["id"])


def in_force(shop):
    return [row for row in springtide(shop, "quarantine", "list")["quarantines"] if row["removed_at"] is None]


def stored_keys(shop):
    return sorted((shop / "state" / "versions" / "quarantine").glob("*"))


def users():
    return make_events(1, ROWS)[0]["user"].to_numpy()


def test_a_condition_is_counted_added_listed_and_shown_in_full(shop):
    where = "user in ('u3', 'u7') and position < 3"
    planned = springtide(shop, "quarantine", "add", "--where", where, "--dry-run")
    assert (planned["id"], planned["where"], planned["from"], planned["to"]) == (None, where, None, None)
    assert in_force(shop) == []
    added = springtide(shop, "quarantine", "add", "--where", where, "--reason", "bots")
    assert added == planned | {"id": added["id"], "dry_run": False}
    [row] = in_force(shop)
    assert (row["where"], row["reason"], row["from"], row["to"]) == (where, "bots", None, None)
    shown = springtide(shop, "quarantine", "show", added["id"])
    assert shown == row | {"skipped": added["skipped"]}
    assert added["skipped"]["learned"] == 0
    fields = {field["field"]: field for field in added["skipped"]["fields"]}
    assert (fields["user"]["keys"], fields["user"]["rows"], fields["user"]["importance_share"]) == (2, 0, None)
    assert springtide(shop, "status")["quarantines"] == 1


def test_a_file_of_keys_is_counted_and_stored_once(shop):
    words = ("quarantine", "add", "--keys", "user", shop / "users.txt")
    planned = springtide(shop, *words, "--dry-run")
    assert planned["skipped"]["samples"] >= np.isin(users(), ["u1", "u2"]).sum() > 0
    assert (planned["keys"]["column"], planned["keys"]["count"]) == ("user", 2)
    assert (stored_keys(shop), in_force(shop)) == ([], [])
    for _ in range(2):
        springtide(shop, *words)
    assert [path.stem for path in stored_keys(shop)] == [planned["keys"]["digest"]]
    assert [row["keys"] for row in in_force(shop)] == [planned["keys"]] * 2


def test_times_limit_a_condition_on_either_side(shop):
    middle = START_MS + ROWS * 5_000
    whole = springtide(shop, "quarantine", "add", "--where", "position >= 0", "--dry-run")["skipped"]["samples"]
    found = []
    ranges = [
        (["--to", middle], (True, False)),
        (["--from", middle], (False, True)),
        (["--from", START_MS, "--to", middle], (False, False)),
        ([f"{START_MS}..{middle}"], (False, False)),
    ]
    for times, open_ends in ranges:
        planned = springtide(shop, "quarantine", "add", *times, "--where", "position >= 0", "--dry-run")
        assert (planned["from"] is None, planned["to"] is None) == open_ends
        found.append(planned["skipped"]["samples"])
    assert found[0] + found[1] == whole
    assert found[0] == found[2] == found[3]


def test_text_output_names_everything(shop):
    done = call("quarantine", "add", "--where", "position < 3", "--keys", "user", shop / "users.txt", "--project", shop)
    assert (done.code, done.err) == (0, "")
    assert all(word in done.out for word in ("position < 3", "samples", "importance", "count"))
    assert "position < 3" in call("quarantine", "list", "--project", shop).out


WRONG = [
    (["--where", "user = 7"], 3, "condition, character 8: got 7, column user is string, wanted a text in quotes"),
    (["--where", "position <"], 3, "condition, character 11: got the end, wanted a column or a value"),
    (["--where", "campaign = 'x'"], 3, "condition, character 1: got campaign, column campaign does not exist"),
    (["--where", ""], 3, "condition, character 1: got the end"),
    (["--keys", "colour", "{shop}/users.txt"], 3, "field colour does not exist. known: user, item"),
    (["--keys", "position", "{shop}/users.txt"], 3, "users.txt line 1: got 'u1', wanted int64"),
    (["--keys", "user", "{shop}/absent.txt"], 3, "absent.txt cannot be read: No such file or directory"),
    (["--keys", "user", "{shop}/empty.txt"], 3, "empty.txt holds no key"),
    (["--where", "position < 3", "--offsets", "1..2"], 3, "--where and --keys choose samples of all shards by time"),
    (["--where", "position < 3", "--shard", "0"], 3, "--where and --keys choose samples of all shards by time"),
    (["--where", "position < 3", "--from", "20", "--to", "10"], 3, "quarantine (20, 10) is empty"),
    (["--where", "position < 3", "--from", "yesterday"], 3, "time yesterday is neither ISO 8601 nor milliseconds"),
    (["--where", "position < 3", "10..20", "--to", "30"], 3, "times are given twice, as 10..20 and by --from or --to"),
    (["--where", "position < 3", "20..10"], 3, "range 20..10 ends at 10"),
    (["--from", "10", "--to", "20"], 3, "--from and --to need --where or --keys"),
    (["10..20", "--from", "10"], 3, "--from and --to need --where or --keys"),
]


@pytest.mark.parametrize(("words", "code", "message"), WRONG)
@pytest.mark.parametrize("rehearsal", [[], ["--dry-run"]])
def test_wrong_arguments_are_one_line_and_write_nothing(shop, words, code, message, rehearsal):
    kept = stored_keys(shop)
    done = call("quarantine", "add", *(word.format(shop=shop) for word in words), *rehearsal, "--project", shop)
    assert (done.code, done.out, len(done.err.splitlines())) == (code, "", 1), done
    assert message in done.err
    assert (in_force(shop), stored_keys(shop)) == ([], kept)


def test_a_quarantine_that_does_not_exist_is_not_shown(shop):
    done = call("quarantine", "show", "99", "--project", shop)
    assert (done.code, done.out) == (11, "")
    assert "quarantine 99 does not exist. run: springtide quarantine list" in done.err


def test_a_rollback_refuses_a_wrong_condition_before_anything_else(shop):
    done = call("rollback", "--before", START_MS, "--where", "user = 7", "--project", shop)
    assert (done.code, "condition, character 8: got 7" in done.err) == (3, True)
    done = call("rollback", "--finish", "--where", "user = 'u1'", "--project", shop)
    assert (done.code, "--finish completes a rollback as it was planned" in done.err) == (10, True)
