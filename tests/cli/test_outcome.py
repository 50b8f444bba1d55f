"""However a command ends: one line, a documented exit code, and a file with the traceback of what was unexpected."""

import errno
import os
import re
import signal
import sys
import threading
from pathlib import Path

import pytest

from pipeline.cli import error_file
from pipeline.cli.app import EXIT_CODES, app
from tests.support.command.command_line import call, make_shop

RUN = [sys.executable, "-m", "pipeline.cli.main"]


@pytest.fixture
def shop(tmp_path):
    return make_shop(tmp_path / "shop")


@pytest.fixture
def failing():
    """Adds a command `fails` that calls a function; returns the function that sets it."""

    def set_action(action):
        app.command("fails")(lambda project=".", as_json=False: action())
        app.registered_commands[-1].callback = command_of(action)

    yield set_action
    app.registered_commands.pop()


def command_of(action):
    from pipeline.cli.terminal.options import HERE, AsJson, ProjectFolder

    def fails(project: ProjectFolder = HERE, as_json: AsJson = False) -> None:
        action()

    return fails


def raising(exception):
    def action():
        raise exception

    return action


UNEXPECTED = [
    ValueError("a value\nof two lines"),
    RuntimeError(""),
    KeyError("[bold]key"),
    RecursionError("maximum recursion depth exceeded"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    AssertionError(),
    EOFError(),
    BrokenPipeError(errno.EPIPE, "Broken pipe"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    BaseException("of a native library"),
]


@pytest.mark.parametrize("exception", UNEXPECTED, ids=lambda e: type(e).__name__)
def test_an_unexpected_exception_is_one_line_and_a_file_with_its_traceback_in_the_project(shop, failing, exception):
    failing(raising(exception))
    done = call("fails", "--project", shop)
    assert (done.code, done.out, len(done.err.splitlines())) == (70, "", 1)
    assert done.err.startswith("error: unexpected ")
    [path] = (shop / "state" / "errors").iterdir()
    assert f"hint: report this with the traceback in {path}" in done.err
    text = path.read_text()
    assert "springtide 0." in text
    assert f"fails --project {shop}" in text
    assert "Traceback (most recent call last)" in text
    assert type(exception).__name__ in text
    machine = call("fails", "--project", shop, "--json").result
    assert machine["exit_code"] == 70
    assert "Traceback" in Path(machine["traceback_file"]).read_text()


def test_without_a_project_the_traceback_is_in_the_temporary_folder(tmp_path, monkeypatch, failing):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    failing(raising(ValueError("x")))
    done = call("fails", "--project", tmp_path / "absent")
    assert done.code == 70
    [path] = tmp_path.iterdir()
    assert str(path) in done.err


def test_where_no_file_can_be_written_the_error_is_still_one_line(tmp_path, monkeypatch, failing):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    failing(raising(ValueError("x")))
    done = call("fails", "--project", tmp_path)
    assert done.code == 70
    assert len(done.err.splitlines()) == 1
    assert "no traceback is stored: " in done.err


def test_a_command_that_fails_in_a_loop_keeps_a_limited_number_of_files(shop, failing, monkeypatch):
    monkeypatch.setattr(error_file, "KEPT", 3)
    failing(raising(ValueError("x")))
    shown = [call("fails", "-C", shop).err for _ in range(5)]
    kept = list((shop / "state" / "errors").iterdir())
    assert len(kept) == 3
    assert any(str(path) in shown[-1] for path in kept)


EXPECTED = [
    (OSError(errno.ENOSPC, "No space left on device"), 1, "error: disk: No space left on device. hint: "),
    (PermissionError(errno.EACCES, "Permission denied", "/a/[b]"), 1, "error: /a/[b]: Permission denied. hint: "),
    (MemoryError(), 1, "error: memory is exhausted. hint: "),
    (KeyboardInterrupt(), 130, "error: interrupted\n"),
]


@pytest.mark.parametrize(("exception", "code", "line"), EXPECTED, ids=lambda value: type(value).__name__)
def test_failures_of_the_system_have_their_own_line_and_leave_no_file(shop, failing, exception, code, line):
    failing(raising(exception))
    done = call("fails", "--project", shop)
    assert done.code == code
    assert done.err.startswith(line)
    assert len(done.err.splitlines()) == 1
    assert not (shop / "state" / "errors").exists()
    assert call("fails", "--project", shop, "--json").result["exit_code"] == code


def test_an_interrupt_that_surfaces_as_another_exception_is_an_interrupt(shop, failing):
    def action():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("libx.so is only half initialized") from None

    failing(action)
    assert call("fails", "--project", shop)[::2] == (130, "error: interrupted\n")


def test_an_exception_that_ends_a_thread_is_one_line_and_the_command_continues(shop, failing):
    def action():
        thread = threading.Thread(target=raising(ValueError("inside")), name="reader")
        thread.start()
        thread.join()

    failing(action)
    done = call("fails", "--project", shop)
    assert done.code == 0
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("error in thread reader: unexpected ValueError: inside. hint: report this with the ")


@pytest.mark.parametrize("words", [[], ["run"], ["cluster"], ["dead-letters"]])
def test_a_group_without_a_command_shows_its_help_and_nothing_else(words):
    done = call(*words)
    assert done.code == 2
    assert "Usage: " in done.out + done.err
    assert "error" not in done.err.replace("unexpected error", "")


def test_the_version_is_shown():
    done = call("--version")
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"springtide \d+\.\d+\.\S+ \(Python 3\.\S+\)\n", done.out)


def test_every_exit_code_of_the_entry_point_is_documented():
    documented = {int(part.split()[0]) for part in EXIT_CODES.removeprefix("Exit codes: ").rstrip(".").split(", ")}
    assert {0, 1, 2, 70, 130, 141} <= documented
