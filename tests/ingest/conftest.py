"""A project and its log, for every test of ingest."""

import pytest

from pipeline.logs.open import open_log
from tests.support.world.ingest_world import make_project


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


@pytest.fixture
def log(project):
    log = open_log(project)
    yield log
    log.close()
