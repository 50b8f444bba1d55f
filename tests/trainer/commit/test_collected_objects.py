"""While batches are learned the cyclic collector is paused: nothing may pile up meanwhile."""

import copy
import gc
import threading
import types
import weakref

from pipeline.formats.container import WrittenFile
from pipeline.logs.open import open_log
from pipeline.process.clock import SystemClock
from pipeline.process.collector import collector_paused
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.ledger.change_files import ChangeFile
from pipeline.versions.state import VersionId, VersionSummary
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import WRITTEN, append_samples, make_project, make_samples

APPENDS, ROWS = 24, 384
"""Of 4 records and 6 full batches each."""


_PRUNED = (weakref.ref, types.BuiltinFunctionType)
"""SQLite's connections and Python's threads keep some hundreds of these and drop them all at once."""

_RETAINED = (VersionId, VersionSummary, ChangeFile, WrittenFile)
"""What the ledger holds of each retained version: a commit adds some of them, a batch none."""


def settled_objects():
    """Objects that are collected, once no thread makes any: files of versions are merged beside training."""
    counts, clock = [], SystemClock()
    while len(counts) < 10 or len(set(counts[-10:])) > 1:
        clock.wait(0.02)
        counts.append(sum(not isinstance(each, (*_PRUNED, *_RETAINED)) for each in gc.get_objects()))
    return counts[-1]


def test_batches_neither_keep_objects_nor_leave_cycles(tmp_path):
    # A commit at the end of `train` alone.
    project = make_project(tmp_path, copy.deepcopy(WRITTEN) | {"train": {"commit_every_s": 3600.0}})
    log = open_log(project)
    for number in range(APPENDS):
        append_samples(log, project, make_samples(1, ROWS, first=number * ROWS))
    trainer, found = TrainerShard(project, log, VersionStore(project), 0), []
    gc.callbacks.append(lambda phase, about: found.append(about["collected"]) if phase == "stop" else None)
    try:
        for stop_offset in (4, 8, 12):  # the network is traced once more at a later commit
            trainer.train(stop_offset, threading.Event())
        with collector_paused():  # objects of before are left out
            kept, cycles, batches = [], [], []
            for stop_offset in (16, 32, 4 * APPENDS):
                before = trainer.batches
                found.clear()
                trainer.train(stop_offset, threading.Event())
                batches.append(trainer.batches - before)
                cycles.append(sum(found))
                kept.append(settled_objects())
    finally:
        gc.callbacks.pop()
        trainer.close()
    assert batches[2] > 3 * batches[1] > 60
    assert kept[2] - kept[1] < batches[2] / 2, kept
    assert cycles[2] - cycles[1] < batches[2] / 2, cycles


def test_the_collector_is_paused_until_the_last_has_left():
    with collector_paused():
        with collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
