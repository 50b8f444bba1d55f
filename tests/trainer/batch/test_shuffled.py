"""Shuffled samples: every window is permuted by the log alone, and a trainer commits at window ends only."""

import copy
import threading
from contextlib import closing

import numpy as np
import pytest

from pipeline.configuration.config import parse_config
from pipeline.errors import ConfigError
from pipeline.features.plan import FeaturePlan
from pipeline.logs.open import open_log
from pipeline.model.dense import DenseModel
from pipeline.model.identity import identity_of
from pipeline.trainer.batch.batches import BatchReader, Excluded, SamplePosition
from pipeline.trainer.batch.shuffled import ShuffledReader
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import WRITTEN, append_samples, make_project, make_samples, train

START = SamplePosition(0, 0)
SHUFFLED = copy.deepcopy(WRITTEN)
SHUFFLED["train"] = WRITTEN["train"] | {"shuffle_window": 256, "commit_every_batches": 3}


def read_all(log, start=START, before=0, window=128, size=32, seed=1):
    everything = Excluded(lambda samples, at_ms, offset: np.zeros(len(at_ms), bool))
    reader = ShuffledReader(BatchReader(log, "samples", 0, start, window, everything), start, before, size, seed)
    found = []
    while batch := reader.next(log.end_offset("samples", 0)):
        found.append(batch)
    return found


def ids(batches):
    return [i for batch in batches for i in batch.samples.column("id").to_pylist()]


def log_of(folder, rows=300, block_rows=100):
    project = make_project(folder)
    log = open_log(project)
    append_samples(log, project, make_samples(1, rows), block_rows=block_rows)
    return log


def test_each_window_holds_its_samples_in_an_order_of_its_own(tmp_path):
    batches = read_all(log_of(tmp_path))
    assert [len(batch) for batch in batches] == [32, 32, 32, 32, 32, 32, 32, 32, 32, 12]
    assert [batch.closes_window for batch in batches] == [False] * 3 + [True] + [False] * 3 + [True, False, True]
    assert [batch.window_row for batch in batches] == [0, 32, 64, 96, 0, 32, 64, 96, 0, 32]
    for first, rows in ((0, 128), (128, 128), (256, 44)):
        found = ids(batches)[first : first + rows]
        assert sorted(found) == list(range(first, first + rows))
        assert found != sorted(found)
    assert np.argsort(ids(batches[:4])).tolist() != np.argsort(ids(batches[4:8])).tolist()


def test_position_moves_at_window_ends_and_reading_again_from_one_gives_the_same_batches(tmp_path):
    log = log_of(tmp_path)
    batches = read_all(log)
    assert [batch.end for batch in batches[:3]] == [START] * 3
    assert [ids([b]) for b in read_all(log, batches[3].end, 128)] == [ids([b]) for b in batches[4:]]
    assert [ids([b]) for b in read_all(log, batches[4].end, 128)] == [ids([b]) for b in batches[4:]]


def test_order_depends_on_the_seed_and_not_on_records(tmp_path):
    one, other = (log_of(tmp_path / str(rows), 256, rows) for rows in (64, 128))
    assert ids(read_all(one)) != ids(read_all(one, seed=2))
    assert ids(read_all(one)) == ids(read_all(other))


def test_a_trainer_stopped_anywhere_commits_windows_and_ends_with_the_same_model(tmp_path):
    straight, restarted = (make_project(tmp_path / name, SHUFFLED) for name in ("straight", "restarted"))
    with closing(open_log(straight)) as log:
        append_samples(log, straight, make_samples(1, 1_000))
        digest = train(straight, log)
    with closing(open_log(restarted)) as log:
        append_samples(log, restarted, make_samples(1, 1_000))
        store = VersionStore(restarted)
        for end in (2, 4, 7):
            trainer = TrainerShard(restarted, log, store, 0)
            trainer.train(end, threading.Event())
            assert trainer.status()["samples_seen"] % 256 == 0
            trainer.close()
        seen = [version.samples_seen for version in store.lineage(0)]
        assert train(restarted, log) == digest
        assert {count % 256 for count in seen} == {0}


def test_stop_inside_a_window_waits_for_its_end(tmp_path):
    project = make_project(tmp_path, SHUFFLED)
    with closing(open_log(project)) as log:
        append_samples(log, project, make_samples(1, 1_000))
        trainer, stop = TrainerShard(project, log, VersionStore(project), 0), _AfterBatches(2)
        stop.trainer = trainer
        trainer.train(log.end_offset("samples", 0), stop)
        assert trainer.batches == 4
        assert trainer.status()["samples_seen"] == 256
        trainer.close()


class _AfterBatches(threading.Event):
    """Set once its trainer has learned so many batches."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count, self.trainer = count, None

    def is_set(self) -> bool:
        return self.trainer.batches >= self._count


@pytest.mark.parametrize(
    ("window", "problem"),
    [
        (100, "train.shuffle_window is 100, wanted a multiple of model.batch_size, which is 64. hint: 128"),
        (64, "train.shuffle_window is 64, wanted a multiple of model.batch_size, which is 64. hint: 128"),
        (1, "train.shuffle_window: Input should be greater than or equal to 2"),
        (1 << 23, "train.shuffle_window: Input should be less than or equal to"),
        ("many", "train.shuffle_window: Input should be a valid integer"),
    ],
)
def test_window_that_cannot_be_honoured_is_refused(window, problem):
    with pytest.raises(ConfigError, match=problem):
        parse_config(WRITTEN | {"train": {"shuffle_window": window}})


def test_window_that_would_take_lists_apart_is_refused():
    labels = [{"name": "label", "loss": "softmax", "list_column": "user"}]
    document = WRITTEN | {"labels": labels, "samples": {"policy": "close"}, "train": {"shuffle_window": 128}}
    with pytest.raises(ConfigError, match="label label has lists, and train"):
        parse_config(document)


def test_window_behind_samples_in_quarantine_begins_behind_them(tmp_path):
    log = log_of(tmp_path)
    excluded = Excluded(lambda samples, at_ms, offset: np.full(len(at_ms), offset == 0))
    reader = ShuffledReader(BatchReader(log, "samples", 0, START, 128, excluded), START, 0, 32, 1)
    assert reader.next(1) is None
    assert reader.passed == SamplePosition(1, 0)
    assert reader.next(log.end_offset("samples", 0)).end == SamplePosition(1, 0)


def test_a_window_is_part_of_the_identity_and_no_window_is_not(tmp_path):
    pieces = []
    for name, document in (("plain", WRITTEN), ("shuffled", SHUFFLED)):
        project = make_project(tmp_path / name, document)
        plan = FeaturePlan(project.config, project.root)
        pieces.append(identity_of(project.config, plan, DenseModel(project.config, project.root)))
    assert {n: t for n, t in pieces[1].items() if pieces[0].get(n) != t} == {"shuffle window": "256"}
