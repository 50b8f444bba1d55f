"""Notices are as `schemas/hooks.md` describes them, and its executable takes them."""

import hashlib
import json
import re
import sys

import pytest
from cloudevents.core.formats.json import JSONFormat

from pipeline.configuration.model.training import HookDelivery
from pipeline.publish.hooks.executable import Executable
from pipeline.publish.hooks.notices import HOOK_FAILED, ROLLBACK, VERSION_PUBLISHED
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from tests.support.page import page, program, rows_of_table
from tests.support.synthetic.trainer import SyntheticTrainer, project_at

PAGE = page("hooks.md")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A project with commits, an incremental, a full and a rollback; and the values of its notices."""
    trainer = SyntheticTrainer(project_at(tmp_path_factory.mktemp("hooks")))
    trainer.run(3)
    trainer.levels.publish_incremental()
    trainer.levels.publish_full()
    commit = trainer.commits[-1].prepared
    trainer.levels.announce_realtime(commit.delta, commit.encoded)
    trainer.log.create_topic("samples", 1)
    roll_back(trainer.project, trainer.log, plan_rollback(trainer.project, trainer.log, to=trainer.commits[0].id))
    values = [record.value for record in trainer.log.read("notices", 0, 0)]
    yield trainer.project, values
    trainer.close()


def section(begin):
    return PAGE[PAGE.index(begin) :]


def names_in(text, head):
    """The fields that the first column of a table lists, several in one cell."""
    (body,) = re.findall(rf"^{re.escape(head)}.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)[:1]
    return {name for line in body.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}


def events(world, kind):
    return [event for event in map(json.loads, world[1]) if event["type"] == kind]


def test_the_types_of_the_page_are_those_that_exist():
    assert {row[0] for row in rows_of_table(PAGE, "| `type` | when | `subject` |")} == {
        VERSION_PUBLISHED,
        ROLLBACK,
        HOOK_FAILED,
    }


def test_a_published_version_has_the_fields_of_the_page(world):
    listed = names_in(section("`data` of `springtide.version.published`"), "| field | holds |")
    found = events(world, VERSION_PUBLISHED)
    assert {event["data"]["level"] for event in found} >= {"realtime", "incremental", "full"}
    for event in found:
        data = event["data"]
        assert set(data) == listed
        assert event["subject"] == f"g{data['generation']}/s0-of-1/{data['to_sequence']}/{data['level']}"
        assert (data["file"] == "") == (data["level"] == "realtime")


def test_a_rollback_has_the_fields_of_the_page(world):
    text = section("`data` of `springtide.rollback`")
    (event,) = events(world, ROLLBACK)
    assert names_in(text, "| field | holds |") == set(event["data"])
    assert all(f"`{name}`" in text for name in event["data"]["shards"][0])
    assert event["subject"] == f"rollback/{event['data']['id']}"


def test_the_content_type_is_that_of_the_page():
    assert f"`{JSONFormat.CONTENT_TYPE}`" in PAGE


def test_every_notice_has_the_attributes_of_the_page(world):
    project, values = world
    for event in map(json.loads, values):
        assert all(f"`{name}`" in PAGE for name in event)
        assert (event["id"], event["specversion"]) == (f"{event['type']}:{event['subject']}", "1.0")
        assert event["source"] == f"/springtide/{project.config.name}"


def test_the_executable_of_the_page_finds_the_file_of_a_full(world):
    project, values = world
    code = program(PAGE, "executable").replace("#!/usr/bin/env python3", f"#!{sys.executable}")
    (project.root / "on_version.py").write_text(code)
    (project.root / "on_version.py").chmod(0o755)
    hook = Executable(project.root, "on_version.py", HookDelivery(timeout_s=60), project.clock)
    (full,) = [value for value in values if json.loads(value)["data"].get("level") == "full"]
    realtime = next(value for value in values if json.loads(value)["data"].get("level") == "realtime")
    assert (hook.send(full), hook.send(realtime)) == (None, None)
    ((id, path, digest),) = [line.split() for line in (project.root / "fulls.txt").read_text().splitlines()]
    assert id == json.loads(full)["id"]
    assert hashlib.sha256((project.root / path).read_bytes()).hexdigest() == digest
