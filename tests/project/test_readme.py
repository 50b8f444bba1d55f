"""The tutorial of the README works as written, and its model learns."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.command.command_line import REPO, springtide
from tests.support.command.fork_server import write_command

TEXT = (REPO / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- tutorial -->\n```sh\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which the tutorial runs, with the command `springtide` in `bin`."""
    folder = tmp_path_factory.mktemp("tutorial")
    write_command(folder / "bin" / "springtide")
    return folder


def run_block(folder, number):
    path = os.pathsep.join([str(folder / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]])
    script = "set -euo pipefail\n" + ("" if number == 0 else "cd shop\n") + BLOCKS[number]
    ended = subprocess.run(
        ["bash", "-c", script], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def first(folder):
    """Output of the first block, and the scores of the model."""
    out = run_block(folder, 0)
    return out, springtide(folder / "shop", "status")["trainer"][0]["validation"]["label"]


def test_the_tutorial_runs_from_top_to_bottom(folder, first):
    assert len(BLOCKS) == 2
    assert (folder / "shop" / "samples.parquet").exists()
    undone = springtide(folder / "shop", "status")["trainer"][0]["version"]
    assert undone.startswith("g0/")
    run_block(folder, 1)
    assert springtide(folder / "shop", "status")["trainer"][0]["version"].startswith("g1/")


def test_the_model_of_the_tutorial_learns_what_the_readme_promises(first):
    out, scores = first
    lowest = float(re.search(r"lower NE than (0\.\d+)\n", out)[1])
    promised = [float(number) for number in re.findall(r"[01]\.\d\d", TEXT.partition("lower NE than 0.")[2])[:3]]
    hours = {row[4]: float(row[9]) for row in map(str.split, out.splitlines()) if row[1:4] == ["label", "hour", "from"]}
    assert f"no model can have a lower NE than {lowest:.2f}" in TEXT
    assert [
        hours["2026-01-01T00:00:00Z"],
        hours["2026-01-01T05:00:00Z"],
        scores["normalized_entropy"],
    ] == pytest.approx(promised, abs=0.015)
    assert scores["samples"] == 20_000
    assert lowest < promised[1] < 1 - (1 - lowest) * 0.7
