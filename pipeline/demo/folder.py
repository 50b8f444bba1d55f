"""The demo's project folder: a copy of the market's project, new in every run.

A folder of an earlier demo, recognised by a marker file, is removed; any other folder is refused.
"""

import shutil
from importlib import resources
from pathlib import Path

from pipeline.configuration.project import Project
from pipeline.demo.scenario import Scenario
from pipeline.errors import InputError
from pipeline.process.clock import Clock

_FOLDERS, _FILES = ("project", "without-rollback"), ("demo.png", "demo.json")
CASCADE = "cascade"
_MARKER = "made-by-springtide-demo"
_ALL_VERSIONS_S = 21_600


def plan_folders(out: Path) -> dict[str, list[str]]:
    """What a demo would write to `out`, and the folders it would remove first. Raises InputError as `fresh_folder`."""
    folders = [out / name for name in _FOLDERS]
    written = [str(path) for path in (*folders, *(out / name for name in _FILES))]
    return {"would_write": written, "would_remove": [str(root) for root in folders if _is_demo(root)]}


def plan_cascade(out: Path) -> dict[str, list[str]]:
    """The same of a demo of the cascade."""
    folder = out / CASCADE
    return {"would_write": [str(folder)], "would_remove": [str(folder)] if _is_demo(folder) else []}


def make_project(out: Path, scenario: Scenario, clock: Clock) -> Project:
    """Create the market's project in `out/project`, without any state. Raises InputError."""
    root = fresh_folder(out / "project")
    files = resources.files("pipeline.market") / "project"
    for name in ("springtide.toml", "model.py"):
        (root / name).write_text((files / name).read_text(encoding="utf-8"), encoding="utf-8")
    with (root / "springtide.toml").open("a", encoding="utf-8") as toml:
        toml.write(_training_sections(scenario))
    return Project.open(root, clock)


def fresh_folder(root: Path) -> Path:
    """Create the folder `root`, empty except for the marker. Raises InputError if it exists without a marker."""
    if _is_demo(root):
        shutil.rmtree(root)
    root.mkdir(parents=True)
    (root / _MARKER).write_text("The demo removes this folder when it runs again.\n", encoding="utf-8")
    return root


def _is_demo(root: Path) -> bool:
    """Whether the folder `root` exists. Raises InputError if it was not created by a demo."""
    if root.exists() and not (root / _MARKER).exists():
        raise InputError(f"{root} exists and was not created by a demo. hint: springtide demo --out another-folder")
    return root.exists()


def _training_sections(scenario: Scenario) -> str:
    """Configuration added for the demo: commits by batches only, so that every run makes the same versions."""
    return f"""
# Added by the demo.

[train]
commit_every_s = 86_400
commit_every_log_s = "off"
commit_every_batches = {scenario.commit_every_batches}

[train.retention]
all_s = {_ALL_VERSIONS_S}
"""
