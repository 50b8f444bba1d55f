"""Runs measurements in separate processes, so that memory and threads of one do not affect the next."""

import importlib
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.benchmarks.harness.report import Figure


def process() -> ProcessPoolExecutor:
    """A new process that inherits nothing and runs one task at a time; it ends with the `with` block."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def one_round(module: str, quick: bool) -> list[Figure]:
    """One round of the benchmark in a module of this package, such as "stages.join", in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix=f"springtide-{module}-"))
    try:
        measured: list[Figure] = importlib.import_module(f"tests.benchmarks.{module}").measure(folder, quick)
        return measured
    finally:
        shutil.rmtree(folder)


def peer_rate(quick: bool) -> float:
    """The peer's samples per second."""
    from tests.benchmarks.harness.peer import dense_part_alone

    return dense_part_alone(0.5 if quick else 4.0)
