"""Samples this process with py-spy while it works.

Only threads that run are drawn. py-spy stops the process to read a native stack, so rates are not to be read from a
profile: `tests/benchmarks/stages/batch.py` measures them.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

Work = Callable[[threading.Event], None]
"""Works until the event is set."""
_SAMPLES_A_SECOND = 50
_PR_SET_PTRACER, _ANY = 0x59616D61, -1


def profile(prepare: Callable[[Path], Work], seconds: int, graph: Path) -> int:
    """Sample this process at the workload that `prepare` makes in a folder; returns py-spy's exit code."""
    # Otherwise only an ancestor may read the stacks.
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_long(_ANY), 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="springtide-profile-") as folder:
        work = prepare(Path(folder))
        sampler = subprocess.Popen(_sampler(seconds, graph), stdout=subprocess.DEVNULL)
        work(_Ended(sampler))
        return sampler.wait()


class _Ended(threading.Event):
    """Set once the sampler has ended."""

    def __init__(self, sampler: "subprocess.Popen[bytes]") -> None:
        super().__init__()
        self._sampler = sampler

    def is_set(self) -> bool:
        return self._sampler.poll() is not None


def _sampler(seconds: int, graph: Path) -> list[str | Path]:
    spy = Path(sys.executable).with_name("py-spy")
    options = ["--native", "--pid", str(os.getpid()), "--rate", str(_SAMPLES_A_SECOND), "--duration", str(seconds)]
    return [spy, "record", *options, "--format", "flamegraph", "--output", graph]
