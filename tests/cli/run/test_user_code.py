"""User code that prints, exits or never returns: the result stays one JSON object, and the process can be ended."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.interrupts import running_in
from tests.support.command.command_line import REPO, call

HEAD = "import keras\nfrom keras import layers\n"
BUILD = """
def build(inputs):
    x = layers.Concatenate()(list(inputs.values()))
    return keras.Model(inputs, LAST)
"""


def project_of(folder: Path, head: str = "", last: str = "layers.Dense(1)(x)", settings: str = "") -> Path:
    """A new project with another model."""
    assert call("init", folder).code == 0
    (folder / "model.py").write_text(HEAD + head + BUILD.replace("LAST", last))
    if settings:
        file = folder / "springtide.toml"
        file.write_text(settings + file.read_text())
    return folder


def test_config_check_takes_one_step_and_reports_what_fails_in_it(tmp_path):
    own = "class Own(layers.Layer):\n    def call(self, x):\n        return keras.ops.reshape(x, (7, -1))\n"
    project = project_of(tmp_path / "p", own, "layers.Dense(1)(Own()(x))[:, :1] * 0 + layers.Dense(1)(x)")
    done = call("config", "check", "--project", project, "--json")
    assert done.code == 2
    assert "model:build" in done.result["error"]


def test_what_user_code_prints_goes_to_stderr_and_stdout_is_one_object(tmp_path):
    project = project_of(tmp_path / "p", "print('hello from the user')\n")
    done = call("config", "check", "--project", project, "--json")
    assert done.code == 0
    assert done.result["problems"] == []
    assert "hello from the user" in done.err


def test_user_code_that_exits_is_an_error_of_the_model(tmp_path):
    project = project_of(tmp_path / "p", "import sys\nsys.exit(0)\n")
    done = call("config", "check", "--project", project, "--json")
    assert done.code == 2
    assert "it called sys.exit(0)" in done.result["error"]


STUCK = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pipeline.cli.commands.jobs.run import _until_signalled
from pipeline.configuration.project import Project

sys.path.insert(0, sys.argv[1])
import stuck
with _until_signalled(Project.open(Path(sys.argv[1])), until_end=True):
    running = ThreadPoolExecutor(1).submit(stuck.forever)
    os.kill(os.getpid(), signal.SIGTERM)
    running.result()
"""


def test_function_that_never_returns_is_ended_after_sigterm_and_named(tmp_path):
    project = project_of(tmp_path / "p", settings="stop_within_s = 1\n")
    (project / "stuck.py").write_text("def forever():\n    while True:\n        pass\n")
    done = subprocess.run(
        [sys.executable, "-c", STUCK, str(project)], cwd=REPO, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 130
    assert "not stopped within 1 s (stop_within_s), the process ends; running: stuck.py:" in done.stderr
    assert "in forever" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_process_that_stops_in_time_is_not_ended(tmp_path, number):
    project = project_of(tmp_path / "p", settings="stop_within_s = 86400\n")
    program = STUCK.replace("signal.SIGTERM", f"signal.{number.name}").replace("running.result()", "running.cancel()")
    (project / "stuck.py").write_text("def forever():\n    pass\n")
    done = subprocess.run([sys.executable, "-c", program, str(project)], cwd=REPO, capture_output=True, timeout=120)
    assert done.returncode == 0


def test_place_of_running_code_is_named_only_inside_the_project():
    assert running_in(Path(__file__).parent).startswith("test_user_code.py:")
    assert running_in(Path("/nowhere")) == ""
