"""The demo's project folder: the market's project, begun afresh in every run.

A folder of an earlier demo is removed, any other is refused: only what carries the demo's own mark is touched.
"""

import shutil
from importlib import resources
from pathlib import Path

from pipeline.configuration.project import Project
from pipeline.demo.story import Story
from pipeline.errors import InputError
from pipeline.process.clock import Clock

_MARK = "made-by-springtide-demo"
_ALL_VERSIONS_S = 21_600


def make_project(out: Path, story: Story, clock: Clock) -> Project:
    """The market's project in `out/project`, with nothing learned. Raises InputError."""
    root = fresh_folder(out / "project")
    files = resources.files("pipeline.market") / "project"
    for name in ("springtide.toml", "model.py"):
        (root / name).write_text((files / name).read_text(encoding="utf-8"), encoding="utf-8")
    with (root / "springtide.toml").open("a", encoding="utf-8") as toml:
        toml.write(_training(story))
    return Project.open(root, clock)


def fresh_folder(root: Path) -> Path:
    """Make `root`, empty but for the mark. Raises InputError where something is there that no demo made."""
    if root.exists():
        if not (root / _MARK).exists():
            raise InputError(f"{root} is there and no demo made it. hint: springtide demo --out another-folder")
        shutil.rmtree(root)
    root.mkdir(parents=True)
    (root / _MARK).write_text("The demo removes this folder when it runs again.\n", encoding="utf-8")
    return root


def _training(story: Story) -> str:
    """What the demo adds to the market's configuration: versions by batches only, so that every run has the same."""
    return f"""
# Added by the demo.

[train]
commit_every_s = 86_400
commit_every_log_s = "off"
commit_every_batches = {story.commit_every_batches}

[train.retention]
all_s = {_ALL_VERSIONS_S}
"""
