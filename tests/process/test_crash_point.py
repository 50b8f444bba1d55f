"""A thread that reaches a crash point executes nothing after it, however busy the other threads are."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROCESS = """
import os
import threading
import time

from pipeline.process.crash_point import arm_crash_point, reach_crash_point

def spin():
    while True:
        pass

def write():
    time.sleep(0.05)
    reach_crash_point("trainer.before_commit")
    os.write(1, b"continued")

for _ in range(2):
    threading.Thread(target=spin, daemon=True).start()
arm_crash_point("trainer.before_commit" + ARMED)
writer = threading.Thread(target=write)
writer.start()
writer.join()
"""


@pytest.mark.parametrize("attempt", range(3))
def test_a_stopped_thread_writes_nothing_until_it_is_continued(attempt, tmp_path):
    process = start(tmp_path, ":1:stop")
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    assert written(tmp_path) == ""
    os.kill(process.pid, signal.SIGCONT)
    process.wait()
    assert written(tmp_path) == "continued"


def test_a_killed_process_writes_nothing(tmp_path):
    process = start(tmp_path, "")
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert written(tmp_path) == ""


def start(folder, armed):
    command = [sys.executable, "-c", PROCESS.replace("ARMED", repr(armed))]
    with open(folder / "output", "wb") as output:
        return subprocess.Popen(command, stdout=output, cwd=Path(__file__).parents[2])


def written(folder):
    return (folder / "output").read_text()
