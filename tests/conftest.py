"""Temporary files of tests, and of what they start and kill, lie in one folder that is gone afterwards.

No result depends on how fast the machine is: Hypothesis checks neither the time of an example nor that of its making.
"""

import os
import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

LONGEST_FIRST = ("test_trainer", "test_crash_points", "test_kills", "test_readme", "test_mind", "test_calibration")
"""Files that take longest; one that is started last would leave the other process idle."""

_COMPILED = pytest.StashKey[str]()


def pytest_configure(config):
    """Share compiled networks between all processes of a run: XLA compiles one for seconds, and tests repeat theirs.

    A compiled network is the same code as without the cache. TensorFlow reads the setting at its first compilation.
    """
    if "TF_XLA_FLAGS" not in os.environ:
        config.stash[_COMPILED] = tempfile.mkdtemp(prefix="springtide-xla-")
        os.environ["TF_XLA_FLAGS"] = f"--tf_xla_persistent_cache_directory={config.stash[_COMPILED]}"


def pytest_unconfigure(config):
    if folder := config.stash.get(_COMPILED, None):
        del os.environ["TF_XLA_FLAGS"]
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
