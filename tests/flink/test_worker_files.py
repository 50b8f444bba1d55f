"""Files of workers: only the latest logs of a job and no temporary files of dead workers remain."""

import os
import subprocess
import sys
import tempfile

import pytest

from pipeline.flink.worker_files import MAX_LOGS, open_log, open_scratch


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The folder for temporary files of this process."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_latest_logs_of_a_job_remain_and_this_process_has_one(tmp_path):
    olds = [tmp_path / f"1-1-{number}.log" for number in range(MAX_LOGS + 3)]
    for age, old in enumerate(olds):
        old.write_text("text")
        os.utime(old, (1_000_000 - age, 1_000_000 - age))
    other = tmp_path / "notes.txt"
    other.touch()
    mine = open_log(tmp_path, "1-1")
    assert mine.name == f"1-1-{os.getpid()}.log"
    assert set(tmp_path.iterdir()) == {mine, other, *olds[: MAX_LOGS - 1]}


def test_a_log_of_a_reused_process_id_is_appended_to(tmp_path):
    open_log(tmp_path / "job", "1-1").write_text("text")
    assert open_log(tmp_path / "job", "1-1").read_text() == "text"


def test_temporary_files_of_dead_workers_are_removed_and_those_of_living_ones_remain(root):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, living, other = (root / f"springtide-worker-{end}" for end in (f"{dead.pid}-a", f"{os.getppid()}-b", "x"))
    for folder in (left, living, other):
        folder.mkdir()
        (folder / "file").touch()
    mine = open_scratch()
    assert mine.name.startswith(f"springtide-worker-{os.getpid()}-")
    assert set(root.iterdir()) == {mine, living, other}
    assert (living / "file").exists()
