"""The edges of the process: Ctrl-C during imports and at the end, standard streams that are full, closed or gone."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest

from pipeline.cli.terminal.output import StdoutClosedError, print_message, print_result
from tests.support.command.command_line import REPO

INTERRUPT = """
import atexit, os, signal, sys
from pipeline.cli.main import run_command
name, sys.argv = sys.argv[1], sys.argv[1:]
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
class Finder:
    def find_spec(self, found, path=None, target=None):
        if found == name:
            interrupt()
sys.meta_path.insert(0, Finder())
if name == "end":
    atexit.register(interrupt)
run_command()
"""
LINKS = """
import atexit, os, sys
from pathlib import Path
from pipeline.cli.main import run_command
out, sys.argv = sys.argv[1], ["springtide", "--version"]
atexit.register(lambda: Path(out).write_text(" ".join(os.readlink(f"/proc/self/fd/{n}") for n in range(3))))
run_command()
"""
VERSION = [sys.executable, "-m", "pipeline.cli.main", "--version"]


def run(command, **streams):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run(command, cwd=REPO, text=True, check=False, **pipes)


@contextmanager
def broken(file):
    """The file, which need not be closed without an error."""
    yield file
    with suppress(OSError):
        file.close()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("json", "--version"),
        ("numpy", "--version"),
        ("pyarrow.compute", "--version"),
        ("pipeline.cli.commands.jobs.run", "--version"),
        ("tensorflow", "config check --json"),
        ("end", "--version"),
    ],
)
def test_ctrl_c_at_any_moment_ends_with_130_and_one_line(module, words, tmp_path):
    command = [sys.executable, "-c", INTERRUPT, module, *words.split()]
    if "config" in words:
        command += ["--project", str(REPO / "pipeline" / "cli" / "starter")]
    ended = run(command)
    assert (ended.returncode, ended.stderr) == (130, "error: interrupted\n")
    if "--json" in words:
        assert json.loads(ended.stdout) == {"error": "interrupted", "kind": "Interrupted", "exit_code": 130}


def test_an_installation_that_cannot_be_imported_is_one_line_and_a_file_with_the_traceback(tmp_path):
    code = INTERRUPT.replace("os.kill(os.getpid(), signal.SIGINT)", "raise ImportError('libarrow.so is\\nabsent')")
    ended = run(
        [sys.executable, "-c", code, "pyarrow", "status", "--json"], env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    [path] = tmp_path.iterdir()
    reason = "springtide cannot be imported, ImportError: libarrow.so is absent"
    line = f"{reason}. hint: install it again; the traceback is in {path}"
    assert (ended.returncode, ended.stderr) == (70, f"error: {line}\n")
    assert json.loads(ended.stdout) == {"error": line, "kind": "ImportError", "exit_code": 70}
    assert "Traceback" in path.read_text()


def test_the_installed_command_runs():
    ended = run([str(Path(sys.executable).with_name("springtide")), "--version"])
    assert ended.stdout.startswith("springtide ")


def test_a_full_disk_under_stdout_is_named():
    with open("/dev/full", "w") as full:
        ended = run(VERSION, stdout=full)
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: standard output: No space left on device. hint: correct this, then run the command again\n"
    )


def test_a_full_disk_under_both_streams_still_gives_the_exit_code():
    with open("/dev/full", "w") as full:
        assert run(VERSION, stdout=full, stderr=full).returncode == 1


def test_a_reader_that_closes_the_output_ends_the_command_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    ended = run(VERSION, stdout=writing)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize("as_json", [False, True])
def test_results_of_any_size_are_refused_by_a_full_disk_and_by_a_closed_pipe(as_json):
    for result in ({"a": 1}, {"rows": [{"a": "x" * 100}] * 2_000}):
        named = pytest.raises(OSError, match="standard output")
        with broken(open("/dev/full", "w")) as full, redirect_stdout(full), named:
            print_result(result, as_json)
        reading, writing = os.pipe()
        os.close(reading)
        with broken(os.fdopen(writing, "w")) as gone, redirect_stdout(gone), pytest.raises(StdoutClosedError):
            print_result(result, as_json)


def test_a_message_that_cannot_be_written_stops_nothing():
    with broken(open("/dev/full", "w")) as full, redirect_stderr(full):
        print_message("one")


def test_closed_streams_are_opened_so_that_no_file_takes_their_place(tmp_path):
    out = tmp_path / "links"
    command = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", LINKS, str(out)]
    assert run(command).returncode == 0
    assert out.read_text().split() == ["/dev/null"] * 3


def test_an_encoding_without_a_character_shows_it_escaped(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "200"}
    ended = run([*VERSION[:-1], "status", "--project", str(tmp_path / "café")], env=environment)
    assert ended.returncode == 2
    assert "caf\\xe9/springtide.toml does not exist" in ended.stderr


def test_a_file_name_that_is_no_utf_8_is_shown_escaped(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    ended = run([*VERSION[:-1], "status", "--project", folder])
    assert ended.returncode == 2
    assert "caf\\udce9/springtide.toml does not exist" in ended.stderr
