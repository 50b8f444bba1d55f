"""Training on the samples of several feedbacks: a label learns and is scored where it is observed, and nowhere else."""

import copy
import threading

import numpy as np
import pyarrow as pa

from pipeline.cli.commands.jobs.status import _collect
from pipeline.cli.terminal.options import read_time
from pipeline.ingest.event_writer import EventWriter, append_heartbeat
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.open import open_log
from pipeline.model.loss.targets import targets_of
from pipeline.samples.run.in_process import run_samples
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.support.manual_clock import ManualClock
from tests.support.shop.shop import MODEL, START_MS, WRITTEN, make_project, make_samples, train


def shop_of(root, rows=600):
    """A shop with clicks and purchases, joined; purchases are of items that are not clicked."""
    document = copy.deepcopy(WRITTEN)
    del document["events"]["clicks"]
    document["events"] |= {
        "click": {"columns": {"id": "int"}, "window_s": 10.0, "horizon_s": 0.0},
        "purchase": {"columns": {"id": "int"}, "window_s": 100.0, "horizon_s": 100.0, "policy": "fake_negative"},
    }
    document["samples"] = {"block_rows": 100}
    model = MODEL.replace("layers.Dense(1)", "layers.Dense(2)")
    project = make_project(root, document, model, ManualClock(START_MS + 10**8))
    log, random = open_log(project), np.random.default_rng(1)
    user, item, ids = random.integers(0, 40, rows), random.integers(0, 30, rows), np.arange(rows)
    at_ms = START_MS + ids * 1000
    shown = {
        "at": pa.array(at_ms),
        "id": pa.array(ids),
        "user": pa.array([f"u{u}" for u in user]),
        "item": pa.array([f"i{i}" for i in item]),
        "tags": pa.array([["t"]] * rows, pa.list_(pa.string())),
    }
    EventWriter(project, log, "impressions").append(pa.record_batch(shown))
    for kind, which, delay in (("click", item % 3 == 0, 5_000), ("purchase", item % 3 == 1, 50_000)):
        events = {"at": pa.array(at_ms[which] + delay), "id": pa.array(ids[which])}
        EventWriter(project, log, kind).append(pa.record_batch(events))
    append_heartbeat(project, log, START_MS + 10**7)
    run_samples(project, log, until_end=True)
    return project, log, {"click": int((item % 3 == 0).sum()), "purchase": int((item % 3 == 1).sum())}


def test_each_label_is_scored_on_the_samples_that_decide_it(tmp_path):
    project, log, positives = shop_of(tmp_path)
    batches = [decode_sample_block(record.value).batch for record in log.read("samples", 0, 0)]
    train(project, log)
    [row] = _collect(project, log)["trainer"]
    for label, count in positives.items():
        total = row["validation"][label]
        observed = sum(len(batch) - batch.column(label).null_count for batch in batches)
        assert observed < sum(map(len, batches))
        assert (total["samples"], total["positives"]) == (observed, count)
        assert total["negatives"] == 600 - count  # compensations take back their fake negatives
        assert total["auc"] > 0.5
    assert_matured(row, log.read("samples", 0, 0))


def assert_matured(row, records):
    """Matured purchases are those of the impressions that log time has passed by window, horizon and disorder."""
    at_ms, bought = {}, set()
    for batch in (decode_sample_block(record.value).batch for record in records):
        for sample in batch.to_pylist():
            at_ms[sample["id"]] = sample["impression_at"]
            bought |= {sample["id"]} if sample["purchase"] else set()
    final_ms = read_time(row["log_time"]) - 200_000 - 60_000
    final = {id for id, at in at_ms.items() if (at // 10_000 + 1) * 10_000 <= final_ms}
    matured = row["matured"]["purchase"]
    assert (matured["total"]["positives"], matured["total"]["negatives"]) == (
        len(final & bought),
        len(final - bought),
    )
    assert 300 < len(final) < 600
    assert [(scores["age"], scores["positives"]) for scores in matured["by_age"]] == [
        ("1m", len(final & bought)),
        ("100s", len(final & bought)),
    ]
    assert row["matured"]["click"]["total"]["samples"] > matured["total"]["samples"] / 2


def test_a_trainer_that_is_restarted_at_every_record_matures_the_same_labels(tmp_path):
    project, log, _ = shop_of(tmp_path / "straight")
    train(project, log)
    [straight] = _collect(project, log)["trainer"]
    project, log, _ = shop_of(tmp_path / "broken")
    store = VersionStore(project)
    for end in range(2, log.end_offset("samples", 0) + 1, 2):
        trainer = TrainerShard(project, log, store, 0)
        trainer.train(end, threading.Event())
        trainer.close()
    train(project, log)
    [broken] = _collect(project, log)["trainer"]
    assert broken["matured"] == straight["matured"]
    assert straight["matured"]["purchase"]["cohorts"]


def test_samples_that_were_written_before_a_label_was_declared_do_not_observe_it():
    targets = targets_of(make_samples(1, 5), ("label", "purchase"))
    assert targets.observed.tolist() == [[True, False]] * 5
    assert not targets.positive[:, 1].any()
    assert not targets.negative[:, 1].any()
    assert (targets.positive + targets.negative)[:, 0].all()


def test_the_same_events_give_the_same_model(tmp_path):
    digests = []
    for name in ("one", "two"):
        project, log, _ = shop_of(tmp_path / name, 200)
        digests.append(train(project, log))
    assert digests[0] == digests[1]
