"""The train job over many rounds: it rests when there is nothing new, and moves on with a rollback by itself."""

import numpy as np
import pytest

from pipeline.logs.events import sample_block
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.open import open_log
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.trainer.run.in_process import TrainJob
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import START_MS, append_samples, make_project, make_samples

ROWS = 1500


@pytest.fixture
def shop(tmp_path):
    project = make_project(tmp_path)
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS))
    return project, log


def test_a_round_without_news_learns_and_commits_nothing(shop):
    project, log = shop
    job = TrainJob(project, log)
    assert job.round() == ROWS
    commits = job.report().commits
    assert job.round() == 0
    append_samples(log, project, make_samples(1, 64, first=ROWS))
    assert job.round() == 64
    assert job.report().commits == commits + 1
    job.close()


def test_after_a_rollback_the_running_job_continues_from_the_target_without_the_bad_range(shop):
    project, log = shop
    job = TrainJob(project, log)
    job.round()
    before_ms = START_MS + 1000 * 1000
    roll_back(project, log, plan_rollback(project, log, before_ms=before_ms))
    store = VersionStore(project)
    target = store.ledger.version(store.current(0))
    assert target.id.generation == 1
    assert target.samples_seen < 1000
    learned = job.round()
    assert 0 < learned < 1000
    assert target.samples_seen + learned == int(np.count_nonzero(sample_times(log) < before_ms))
    job.close()


def test_a_quarantine_added_meanwhile_holds_for_what_is_read_next(shop):
    project, log = shop
    job = TrainJob(project, log)
    job.round()
    span = (START_MS + ROWS * 1000, START_MS + (ROWS + 50) * 1000)
    VersionStore(project).ledger.quarantines.add(Quarantine(0, "bots", times_ms=span))
    append_samples(log, project, make_samples(1, 64, first=ROWS))
    assert job.round() == 14
    job.close()


def sample_times(log):
    return np.concatenate(
        [sample_block.sample_times(decode_sample_block(record.value).batch) for record in log.read("samples", 0, 0)]
    )
