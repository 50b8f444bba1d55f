"""Files of items are appended to their topic completely or not at all."""

import json

import pytest

from pipeline.configuration.project import Project
from pipeline.errors import FencedError, LogError
from pipeline.ingest.items import ingest_items
from pipeline.logs.interface.log import read_to_end
from pipeline.logs.open import open_log
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.recall.item_changes import decode_changes
from tests.support.command.command_line import call
from tests.support.world.two_towers import project_folder

LINES = [{"item": 1, "price": 2.5}, {"item": 2, "$removed": True}, {"item": 3}]


@pytest.fixture
def project(tmp_path):
    return Project.open(project_folder(tmp_path, '[recall]\ntopic = "goods"\n'))


def appended(project):
    """The changes in the topic, as lines of a file."""
    found = []
    for record in (r for records in read_to_end(open_log(project), "goods", 0) for r in records):
        changes, problems = decode_changes(record.value, "item", record.key)
        assert not problems
        found += [{"item": c.name, "$removed": True} if c.columns is None else c.columns for c in changes]
    return found


def written(project, *lines):
    path = project.root / "goods.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_every_line_is_appended_in_its_order(project):
    found = call("ingest", "items", written(project, *LINES, ""), "--project", project.root, "--json")
    assert json.loads(found.out) == {"put": 2, "removed": 1}
    assert appended(project) == LINES


def test_a_dry_run_appends_nothing(project):
    found = call("ingest", "items", written(project, *LINES), "--project", project.root, "--json", "--dry-run")
    assert json.loads(found.out) == {"would_put": 2, "would_remove": 1}
    assert appended(project) == []


def test_a_dry_run_says_what_was_appended_before(project):
    path = written(project, *LINES)
    dry = ("ingest", "items", path, "--project", project.root, "--json", "--dry-run")
    call("ingest", "items", path, "--project", project.root)
    before = call(*dry)
    assert json.loads(before.out) == {"would_put": 0, "would_remove": 0}
    assert f"{path} was appended before" in before.err
    assert json.loads(call(*dry, "--again").out) == {"would_put": 2, "would_remove": 1}
    assert appended(project) == LINES


def test_every_change_is_a_record_with_the_key_of_its_item(project):
    many = [{"item": i} for i in range(2_500)]
    call("ingest", "items", written(project, *many, {"item": 7, "$removed": True}), "--project", project.root)
    assert appended(project) == [*many, {"item": 7, "$removed": True}]
    records = [r for found in read_to_end(open_log(project), "goods", 0) for r in found]
    assert len(records) == 2_501 + 3  # of each thousand, and of the rest, how much was appended
    assert [(r.key, r.value) for r in records[:2]] == [(b"0", b'{"item": 0}'), (b"1", b'{"item": 1}')]
    assert (records[-2].key, records[-2].value) == (b"7", b"")


def test_a_file_that_was_appended_before_is_known_from_the_last_record_of_each_key(project, tmp_path_factory):
    many = [{"item": i} for i in range(1_500)]
    files = [written(project, *many).rename(project.root / "many.jsonl"), written(project, *LINES)]
    call("ingest", "items", *files, "--project", project.root)
    last = {r.key: r for found in read_to_end(open_log(project), "goods", 0) for r in found}
    compacted = Project.open(project_folder(tmp_path_factory.mktemp("compacted"), '[recall]\ntopic = "goods"\n'))
    log = open_log(compacted)
    log.create_topic("goods", 1)
    for record in sorted(last.values()):
        log.append("goods", 0, [record.value], headers=record.headers, keys=[record.key])
    report = ingest_items(compacted, log, files)
    assert (report.put, report.removed, report.known) == (0, 0, tuple(files))
    assert log.end_offset("goods", 0) == len(last)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "goods.jsonl, line 4 is not json"),
        ("[" * 100_000, "goods.jsonl, line 4 is not json"),
        ("[1]", "goods.jsonl, line 4: got list, wanted an object of raw columns"),
        ({"price": 1}, "goods.jsonl, line 4: item is None, wanted a text or an integer"),
        ({"itme": 4}, "line 4: item is None, wanted a text or an integer. the columns are: itme"),
        ({"item": 4, "prize": 1}, "goods.jsonl, line 4: has column prize, which impressions do not have"),
        ({"item": 4, "price": "dear"}, "goods.jsonl, line 4: column price: got 'dear', wanted float"),
        ('{"item": "\u2028\u0085"}', "goods.jsonl, line 4: column item: got '\\u2028\\x85', wanted int"),
        ({"item": "\ud800"}, "goods.jsonl, line 4: item is '\\ud800', which is no text of unicode characters"),
        ({"item": 4, "$removed": False}, 'goods.jsonl, line 4: a removal is {"item": 4, "$removed": true}'),
    ],
)
def test_a_file_with_a_wrong_line_is_refused_as_a_whole(project, line, problem):
    found = call("ingest", "items", written(project, *LINES, line), "--project", project.root)
    assert found.code == 3
    assert problem in found.err
    assert appended(project) == []


def test_a_file_is_appended_once_unless_it_is_wanted_again(project):
    path, changed = written(project, *LINES), [{"item": 1, "price": 9.0}]
    ingest = ("ingest", "items", path, "--project", project.root, "--json")
    call(*ingest)
    path.rename(project.root / "renamed.jsonl")
    written(project, *changed)
    call(*ingest)
    for _ in range(2):
        found = call("ingest", "items", project.root / "renamed.jsonl", "--project", project.root, "--json")
        assert json.loads(found.out) == {"put": 0, "removed": 0}
        assert "renamed.jsonl was appended before" in found.err
    assert appended(project) == [*LINES, *changed]
    again = call("ingest", "items", project.root / "renamed.jsonl", "--project", project.root, "--json", "--again")
    assert json.loads(again.out) == {"put": 2, "removed": 1}
    call("ingest", "items", project.root / "renamed.jsonl", "--project", project.root)
    assert appended(project) == [*LINES, *changed, *LINES]


def test_an_interrupted_ingest_appends_the_rest(project):
    class Interrupted(SqliteLog):
        """Fails at the second append."""

        left = 1

        def append(self, topic, partition, values, **named):
            if not self.left:
                raise LogError("the disk is full")
            self.left -= 1
            return super().append(topic, partition, values, **named)

    many = [{"item": i} for i in range(2_500)]
    path = written(project, *many)
    open_log(project).close()
    with pytest.raises(LogError):
        ingest_items(project, Interrupted(project.logs, project.clock), [path])
    assert appended(project) == many[:1_000]
    call("ingest", "items", path, "--project", project.root)
    assert appended(project) == many


def test_a_byte_order_mark_is_no_part_of_the_first_line(project):
    path = written(project, *LINES)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    call("ingest", "items", path, "--project", project.root)
    assert appended(project) == LINES


def test_a_file_without_lines_was_not_appended_before(project):
    path = written(project)
    report = ingest_items(project, open_log(project), [path])
    assert (report.put, report.removed, report.known) == (0, 0, ())


def test_a_missing_file_is_refused(project):
    found = call("ingest", "items", project.root / "none.jsonl", "--project", project.root)
    assert (found.code, "items cannot be read from" in found.err) == (3, True)


def test_without_a_topic_items_are_refused(tmp_path):
    found = call("ingest", "items", "goods.jsonl", "--project", project_folder(tmp_path, ""))
    assert (found.code, "there is no topic of items. hint: set recall.topic" in found.err) == (2, True)


def test_an_ingest_that_begins_ends_the_one_before_which_appends_the_rest_later(project):
    class Overtaken(SqliteLog):
        """Another ingest of the same file runs before the second append."""

        appends = 0

        def append(self, topic, partition, values, **named):
            self.appends += 1
            if self.appends == 2:
                ingest_items(project, open_log(project), [path])
            return super().append(topic, partition, values, **named)

    path = project.root / "items.jsonl"
    path.write_text("".join(f'{{"item": {i}}}\n' for i in range(2_500)))
    open_log(project).create_topic("goods", 1)
    with pytest.raises(FencedError, match="another process writes this partition now") as ended:
        ingest_items(project, Overtaken(project.logs, project.clock), [path])
    assert str(ended.value).startswith(
        f"{path} is appended up to change 1000 of 2500: another ingest of items of topic goods"
    )
    assert "hint: run this again after that one has ended" in str(ended.value)
    assert appended(project) == [{"item": i} for i in range(2_500)]
    assert ingest_items(project, open_log(project), [path]).known == (path,)
    assert ingest_items(project, open_log(project), [path], again=True).put == 2_500
    assert len(appended(project)) == 5_000


def test_a_removal_is_kept_by_a_compacted_topic_if_a_file_has_items_too(tmp_path):
    project = Project.open(project_folder(tmp_path, '[recall]\ntopic = "goods"\nitems = "all.jsonl"\n'))
    path, log = project.root / "changes.jsonl", open_log(project)
    path.write_text('{"item": 1}\n{"item": 2, "$removed": true}\n')
    log.create_topic("goods", 1)
    ingest_items(project, log, [path])
    first, removal, _ = [record for records in read_to_end(log, "goods", 0) for record in records]
    assert (first.key, removal.key, removal.value) == (b"1", b"2", b'{"item": 2, "$removed": true}')
    assert appended(project) == [{"item": 1}, {"item": 2, "$removed": True}]
