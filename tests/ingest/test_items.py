"""Files of items are appended to their topic completely or not at all."""

import json

import pytest

from pipeline.configuration.project import Project
from pipeline.logs.interface.log import read_to_end
from pipeline.logs.open import open_log
from tests.support.command.command_line import call
from tests.support.world.two_towers import project_folder

LINES = [{"item": 1, "price": 2.5}, {"item": 2, "$removed": True}, {"item": 3}]


@pytest.fixture
def project(tmp_path):
    return Project.open(project_folder(tmp_path, '[recall]\ntopic = "goods"\n'))


def appended(project):
    records = (r for found in read_to_end(open_log(project), "goods", 0) for r in found)
    return [item for record in records for item in json.loads(record.value)]


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


def test_many_items_are_several_records(project):
    many = [{"item": i} for i in range(2_500)]
    call("ingest", "items", written(project, *many), "--project", project.root)
    assert appended(project) == many
    assert open_log(project).end_offset("goods", 0) == 3


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "goods.jsonl, line 4 is not json"),
        ("[1]", "goods.jsonl, line 4: got list, wanted an object of raw columns"),
        ({"price": 1}, "goods.jsonl, line 4: item is None, wanted a text or an integer"),
        ({"itme": 4}, "line 4: item is None, wanted a text or an integer. the columns are: itme"),
        ({"item": 4, "prize": 1}, "goods.jsonl, line 4: has column prize, which impressions do not have"),
        ({"item": 4, "price": "dear"}, "goods.jsonl, line 4: column price: got 'dear', wanted float"),
        ({"item": 4, "$removed": False}, 'goods.jsonl, line 4: a removal is {"item": 4, "$removed": true}'),
    ],
)
def test_a_file_with_a_wrong_line_is_refused_as_a_whole(project, line, problem):
    found = call("ingest", "items", written(project, *LINES, line), "--project", project.root)
    assert found.code == 3
    assert problem in found.err
    assert appended(project) == []


def test_a_byte_order_mark_is_no_part_of_the_first_line(project):
    path = written(project, *LINES)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    call("ingest", "items", path, "--project", project.root)
    assert appended(project) == LINES


def test_a_missing_file_is_refused(project):
    found = call("ingest", "items", project.root / "none.jsonl", "--project", project.root)
    assert (found.code, "items cannot be read from" in found.err) == (3, True)


def test_without_a_topic_items_are_refused(tmp_path):
    found = call("ingest", "items", "goods.jsonl", "--project", project_folder(tmp_path, ""))
    assert (found.code, "there is no topic of items. hint: set recall.topic" in found.err) == (2, True)
