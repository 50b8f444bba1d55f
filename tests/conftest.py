"""Temporary files of tests, and of what they start and kill, lie in one folder in memory that is gone afterwards.

A durable write waits for the disk: for milliseconds, tens of thousands of times in a run. No test depends on the disk,
because none turns off the power: files of a killed process are complete in memory too. `--basetemp` chooses another
folder.

No result depends on how fast the machine is: Hypothesis checks neither the time of an example nor that of its making.
"""

import os
import shutil
import tempfile
from multiprocessing.util import Finalize
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

LONGEST_FIRST = (
    "test_trainer",
    "test_crash_points",
    "test_mind",
    "test_kills",
    "test_two_shards",
    "test_shard_threads",
    "test_shared_tables",
    "test_obp",
    "test_gallery",
    "test_train_job",
    "test_labels",
    "test_calibration",
    "test_dictionary",
    "test_readme",
    "test_halts",
    "test_stored_shards",
    "test_model",
    "test_dense_optimizers",
)
"""Files that take longest; one that is started last would leave the other process idle."""

_MEMORY = Path("/dev/shm")
_LEAST_FREE_BYTES = 4 << 30
_PREFIX = "springtide-tests-"
_FOLDER = pytest.StashKey[Path]()
_COMPILED = pytest.StashKey[str]()
_QUICK = pytest.StashKey[str]()


def pytest_configure(config):
    """Temporary files in memory, and networks that XLA compiles in less time.

    XLA compiles each network for seconds, more than most tests take. LLVM's optimizations are off: they make a step
    faster, and tests take few. Compiled networks are shared between the processes of a run. TensorFlow reads both
    settings at its first compilation.
    """
    if not hasattr(config, "workerinput") and not config.option.basetemp and _memory_is_usable():
        _remove_folders_of_ended_runs()
        folder = _MEMORY / f"{_PREFIX}{os.getpid()}"
        config.option.basetemp = str(folder / "files")
        config.stash[_FOLDER] = folder
        folder.mkdir(mode=0o700)
    if "XLA_FLAGS" not in os.environ:
        config.stash[_QUICK] = os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    if "TF_XLA_FLAGS" not in os.environ:
        config.stash[_COMPILED] = tempfile.mkdtemp(prefix="springtide-xla-", dir=config.stash.get(_FOLDER, None))
        os.environ["TF_XLA_FLAGS"] = f"--tf_xla_persistent_cache_directory={config.stash[_COMPILED]}"


def pytest_sessionfinish(session, exitstatus):
    """The files of a run that failed stay until the next run starts."""
    if exitstatus != pytest.ExitCode.OK and _FOLDER in session.config.stash:
        del session.config.stash[_FOLDER]


def pytest_unconfigure(config):
    if config.stash.get(_QUICK, None):
        del os.environ["XLA_FLAGS"]
    if folder := config.stash.get(_COMPILED, None):
        del os.environ["TF_XLA_FLAGS"]
        shutil.rmtree(folder, ignore_errors=True)
    if folder := config.stash.get(_FOLDER, None):
        # At exit, after multiprocessing has removed its folder in it (priority -100).
        Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=-200)


def _memory_is_usable():
    """Whether there is a file system in memory with space for a run, from which programs can be started."""
    if not (_MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)):
        return False
    found = os.statvfs(_MEMORY)
    return found.f_bavail * found.f_frsize >= _LEAST_FREE_BYTES and not found.f_flag & os.ST_NOEXEC


def _remove_folders_of_ended_runs():
    for folder in _MEMORY.glob(f"{_PREFIX}*"):
        if not psutil.pid_exists(int(folder.name.removeprefix(_PREFIX))):
            shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Longest files first: `make test` distributes files in this order."""
    order = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session", autouse=True)
def _temporary_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield
    for path in folder.iterdir():
        if not path.name.startswith("pymp-"):  # multiprocessing removes its own at exit
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
