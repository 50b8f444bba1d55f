"""While the gate is not healthy, an incremental or full is checked on samples that were not learned from."""

import copy
import threading
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from pipeline.cli.commands.jobs.status import _collect, _held_files, _summarize
from pipeline.files.folder import local_file
from pipeline.logs.open import open_log
from pipeline.serving.replica import Replica
from pipeline.telemetry import metrics
from pipeline.trainer.commit.file_check import ALLOWED
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.deltas.delta import decode_delta
from pipeline.versions.deltas.published_files import read_delta_manifest
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import append_samples, make_project, train
from tests.support.world.stored_paths import path_of
from tests.trainer.commit.test_served_loss import divergence
from tests.trainer.gate.test_gate import (
    CLEAN,
    assert_followed,
    continued,
    rows,
    with_bad_traffic,
    written,
)
from tests.trainer.run.test_cold_tier import TINY, zipf_samples

BATCH, EVERY = 64, 5
DUE_S = 400.0
"""Every second version of `EVERY` batches with a sample a second."""


def settings(loss=0.01, level="incremental", **gate):
    document = written(every=EVERY, dense="priced", **gate)
    document["publish"] |= {"loss": loss, f"{level}_every_s": DUE_S}
    return document


def shop(root, document, bad=BATCH, after=2_000):
    """Bad traffic of `bad` samples, then clean samples, in records of one batch."""
    project = make_project(root, copy.deepcopy(document))
    log, samples = open_log(project), traffic(bad, after)
    append_samples(log, project, samples, block_rows=BATCH)
    return project, log, VersionStore(project)


def traffic(bad, after):
    return with_bad_traffic(after=after, bad=bad)


def versions(store):
    """All versions with their quality and the delta of each."""
    return [(v, store.quality(v.id), decode_delta(store.delta(v.id))) for v in store.lineage(0)]


def published(project):
    """By last sequence the manifests of all files."""
    found = [read_delta_manifest(local_file(path)) for path in path_of(project.published).rglob("*.json")]
    return {manifest.to_sequence: manifest for manifest in found}


@pytest.fixture(scope="module")
def uncertain(tmp_path_factory):
    project, log, store = shop(tmp_path_factory.mktemp("uncertain"), settings())
    train(project, log)
    return project, log, store


def test_a_file_that_passes_goes_out_with_a_version_that_learns_nothing(uncertain):
    project, _, store = uncertain
    files, passed = published(project), 0
    for (before, held, empty), (version, quality, delta) in pairwise(versions(store)):
        if quality.held or quality.gate == "healthy":
            continue
        assert (held.held, rows(empty), quality.gate, quality.file_check) == (True, 0, "uncertain", "passed")
        assert 0 < quality.file_check_loss <= ALLOWED * project.config.publish.loss
        assert (version.offset, version.row, version.digest) == (before.offset, before.row, before.digest)
        assert delta.dense != empty.dense
        assert files[version.id.sequence].quality == quality
        assert before.id.sequence not in files
        passed += 1
    assert passed > 1


def test_the_loss_is_that_of_the_published_version_on_the_batch_after_it(uncertain):
    """Computed from what serving and trainer hold at the version, by the code of serving."""
    project, _, store = uncertain
    samples, checked = traffic(BATCH, 2_000), 0
    for version, quality, _ in versions(store):
        if quality.file_check == "passed":
            wanted = divergence(project, store.restore(version.id), samples.slice(version.offset * BATCH, BATCH))
            assert quality.file_check_loss == pytest.approx(wanted, rel=5e-3)
            checked += 1
    assert checked > 1


def test_every_path_over_a_checked_file_ends_in_the_same_bytes(uncertain, tmp_path):
    assert_followed(*uncertain)
    project, log, store = continued(uncertain, tmp_path / "files", settings())
    log.trim("deltas", 0, log.end_offset("deltas", 0))
    from_files = Replica(project, log)
    from_files.catch_up()
    last = max(published(project).items())[1]
    assert from_files.digest() == last.after == store.restore(VersionId(0, 0, 1, last.to_sequence)).served_digest


def replaced_at_every_commit(project, log):
    """Every `EVERY` records another trainer takes the shard over."""
    end = log.end_offset("samples", 0)
    for stop in (*range(EVERY, end, EVERY), end):
        trainer = TrainerShard(project, log, VersionStore(project), 0)
        trainer.train(stop, threading.Event())
        trainer.close()


def test_only_the_first_batch_after_a_commit_decides_also_if_a_sweep_follows_each_batch(tmp_path):
    """A state that turns, and a file that becomes due, within the batches of a version lets nothing out among them."""
    found = []
    for name, expiry in (("none", {}), ("sweeps", {"ttl_s": 1e6, "sweep_every_s": BATCH})):
        document = settings() | {"train": written(every=10)["train"]}
        document["publish"] |= {"incremental_every_s": 300.0}
        document["fields"] = [field | {"expiry": expiry} for field in document["fields"]]
        project, log, store = shop(tmp_path / name, document, bad=3 * BATCH, after=800)
        train(project, log)
        found.append([(v.offset, v.row, quality.gate, quality.file_check) for v, quality, _ in versions(store)])
    assert found[0] == found[1]
    assert {check for *_, check in found[1]} == {None, "calibration", "passed"}


@pytest.mark.parametrize("level", ["incremental", "full"])
def test_a_trainer_that_is_replaced_at_every_commit_publishes_the_same(tmp_path, level):
    found = []
    for name, how in (("one", train), ("other", replaced_at_every_commit)):
        project, log, store = shop(tmp_path / name, settings(level=level), after=1_000)
        how(project, log)
        files = {path.name: path.read_bytes() for path in path_of(project.published).rglob("*.delta")}
        found.append(([r.value for r in log.read("deltas", 0, 0)], [q for _, q, _ in versions(store)], files))
    assert found[0] == found[1]
    assert "passed" in [quality.file_check for quality in found[0][1]]


def test_a_file_by_which_serving_would_lose_too_much_is_held_and_sent_later(tmp_path):
    """The price does not reach an allowed loss this small."""
    project, log, store = shop(tmp_path, settings(loss=1e-12), after=3_000)
    before = checks("loss")
    train(project, log)
    found = versions(store)
    refused = [i for i, (_, quality, _) in enumerate(found) if quality.file_check]
    assert len(refused) > 1
    assert checks("loss") - before == len(refused)
    for i in refused:
        quality = found[i][1]
        assert quality.file_check == "loss"
        assert quality.file_check_loss > ALLOWED * 1e-12
        assert quality.held or quality.gate == "healthy"
    files = published(project)
    first, last = found[refused[0]][0].id.sequence, found[refused[-1]][0].id.sequence
    assert not {n for n in files if first <= n < last}
    assert max(files) > last  # healthy again: everything that was held is published
    assert_followed(project, log, store)


def test_a_file_that_mispredicts_the_newest_labels_is_held(tmp_path):
    """Of the version after 85 batches, the last seven of which are clicks, learned fast; a clean batch follows."""
    document = settings()
    document["model"]["learning_rate"] = 0.3
    project, log, store = shop(tmp_path, document, bad=85 * BATCH - CLEAN)
    train(project, log)
    outcomes = [(version.offset, quality.file_check, quality.held) for version, quality, _ in versions(store)]
    checked = [outcome for outcome in outcomes if outcome[1]]
    assert checked[0] == (90, "calibration", True)  # the next version carries it
    assert checked[1] == (90, "passed", False)
    assert 17 not in published(project)
    assert_followed(project, log, store)


def test_a_batch_without_labels_of_the_gate_leaves_a_file_held(tmp_path):
    """Until the hundredth batch, the first one of every version consists of compensations alone."""
    project, samples = make_project(tmp_path, settings()), traffic(BATCH, 2_000)
    number = np.arange(len(samples)) // BATCH
    without = (number % EVERY == 0) & (number < 100)
    kinds = np.where(without, "compensation", samples["kind"].to_numpy(zero_copy_only=False))
    samples = samples.set_column(samples.schema.get_field_index("kind"), "kind", pa.array(kinds))
    log, store, before = open_log(project), VersionStore(project), checks("unmeasured")
    append_samples(log, project, samples, block_rows=BATCH)
    train(project, log)
    outcomes = [(version.offset, quality.file_check) for version, quality, _ in versions(store) if quality.file_check]
    unmeasured = [offset for offset, outcome in outcomes if outcome == "unmeasured"]
    assert len(unmeasured) == checks("unmeasured") - before > 1
    assert max(unmeasured) <= 100 <= min(offset for offset, outcome in outcomes if outcome == "passed")
    held = range(unmeasured[0] // EVERY - 1, unmeasured[-1] // EVERY)
    assert not set(held) & set(published(project))
    assert_followed(project, log, store)


def test_status_and_a_warning_show_what_holds_a_file(tmp_path):
    project, log, store = shop(tmp_path, settings(loss=1e-12), after=700)
    train(project, log)
    assert store.quality(store.current(0)).file_check == "loss"
    shown = _summarize(_collect(project, log), now_ms=0)
    assert shown["warnings"][1].startswith("a file of shard 0 is due and held: its check measured a loss of ")
    assert "allowed 4e-12" in shown["warnings"][1]


@pytest.mark.parametrize(("loss", "shown"), [(None, "measured no loss"), (0.0, "measured a loss of 0,")])
def test_a_loss_that_was_not_measured_is_not_shown_as_zero(loss, shown):
    held = {"check": "loss", "loss": loss, "allowed": 0.1}
    (warning,) = _held_files([{"shard": 0, "held_file": held}])
    assert shown in warning


def test_a_corrupted_shard_that_holds_checks_nothing(tmp_path):
    project, log, store = shop(tmp_path, settings(on_corrupted="hold"), bad=640, after=0)
    train(project, log)
    assert store.quality(store.current(0)).gate == "corrupted"
    assert not [quality for _, quality, _ in versions(store) if quality.file_check]


def checks(outcome):
    return metrics.GATE_FILE_CHECKS.labels("0", outcome)._value.get()


def test_an_unfinished_run_publishes_the_file_with_the_next_sample(tmp_path):
    """A version without samples after it waits for them."""
    project, log, store = shop(tmp_path, settings(), after=0)
    samples = traffic(BATCH, 2_000)
    done = CLEAN + BATCH
    held = None
    while held is None:
        append_samples(log, project, samples.slice(done, EVERY * BATCH), block_rows=BATCH)
        done += EVERY * BATCH
        train(project, log)
        current = store.current(0)
        if store.quality(current).held and max(published(project)) < current.sequence - 1:
            held = current
    append_samples(log, project, samples.slice(done, BATCH), block_rows=BATCH)
    train(project, log)
    sent = VersionId(held.generation, 0, 1, held.sequence + 1)
    assert store.quality(sent).file_check == "passed"
    assert sent.sequence in published(project)


def test_what_is_resident_changes_no_check(tmp_path):
    found = []
    for memory_bytes in (None, TINY):
        document = settings()
        document["train"] |= {"memory_bytes": memory_bytes, "retention": {"all_s": 1e9}}
        project = make_project(tmp_path / str(memory_bytes), document)
        log, store = open_log(project), VersionStore(project)
        append_samples(log, project, with_labels_of(traffic(640, 700), zipf_samples(CLEAN + 1_340)), block_rows=BATCH)
        train(project, log)
        found.append(([r.value for r in log.read("deltas", 0, 0)], [quality for _, quality, _ in versions(store)]))
    assert found[0] == found[1]
    assert [quality for quality in found[0][1] if quality.file_check]


def with_labels_of(labelled, samples):
    """Other samples with the labels of the first ones."""
    return samples.set_column(samples.schema.get_field_index("label"), "label", labelled.column("label"))
