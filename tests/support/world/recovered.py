"""Crashes of a project that makes several commits, and what it must be after one more run."""

import shutil
from pathlib import Path
from typing import Any

from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from pipeline.serving.replica import Replica
from tests.support.command.command_line import springtide

SEVERAL_COMMITS = {
    "# policy = ": "round_records = 1\n# policy = ",
    "batch_size = 256": "batch_size = 64",
    "# commit_every_s = 1.0": 'commit_every_s = 1e6\ncommit_every_log_s = "off"\ncommit_every_batches = 2',
}
"""What to replace in a shop's springtide.toml for several rounds and several commits."""


def current(project: Path) -> dict[str, Any]:
    """The version that is CURRENT, as `springtide versions` lists it."""
    [found] = [version for version in springtide(project, "versions")["versions"] if version["current"]]
    return dict(found)


def trained_anew(project: Path, root: Path) -> Path:
    """A project with the samples log of the other and no version, trained to the end without a crash."""
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("versions", "published"))
    log = open_log(Project.open(root))
    for topic in ("deltas", "notices", "ledger"):
        log.delete_topic(topic)
    springtide(root, "run", "train", "--until-end")
    return root


def assert_served_is_current(project: Path) -> None:
    """A new replica serves the bytes of CURRENT."""
    opened = Project.open(project)
    replica = Replica(opened, open_log(opened))
    replica.catch_up()
    assert replica.digest() == current(project)["served_digest"]
