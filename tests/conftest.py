"""Temporary files of tests, and of what they start and kill, lie in one folder that is gone afterwards."""

import shutil
import tempfile

import pytest


@pytest.fixture(scope="session", autouse=True)
def _temporary_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield
    shutil.rmtree(folder, ignore_errors=True)
