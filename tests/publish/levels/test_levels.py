"""Incremental and full: merged from the chain, written once, replaced when damaged, due by the log's time."""

import json
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DamagedError, DeltaError
from pipeline.files.folder import local_file
from pipeline.publish.levels.level_deltas import ServedVersion, merge_deltas
from pipeline.publish.levels.level_publisher import publish_level
from pipeline.versions.deltas.delta import decode_delta
from pipeline.versions.deltas.published_files import (
    delta_manifests,
    read_delta_manifest,
    read_published,
    write_published,
)
from tests.support.synthetic.trainer import SyntheticTrainer, project_at
from tests.support.world.stored_paths import path_of


@pytest.fixture
def trainer(tmp_path):
    trainer = SyntheticTrainer(project_at(tmp_path))
    yield trainer
    trainer.close()


def files(trainer):
    return {path_of(file).stem: path_of(file) for file, _ in delta_manifests(trainer.project.published, 0, 1)}


def deltas(trainer):
    return [commit.prepared.delta for commit in trainer.commits]


def test_an_incremental_holds_the_last_value_of_every_touched_key(trainer):
    trainer.run(6)
    version = ServedVersion(trainer.commits[-1].prepared.delta, trainer.publisher.views)
    change = merge_deltas(deltas(trainer)[2:], version).fields["user"]
    view = trainer.publisher.views["user"]
    handles = np.concatenate([change.handles, change.new_handles])
    keys, there = view.keys_of(handles)
    assert there.all()
    assert view.export(keys)[2].tobytes() == change.payload.tobytes()


def test_an_incremental_keeps_every_tombstone(trainer):
    trainer.run(6)
    version = ServedVersion(trainer.commits[-1].prepared.delta, trainer.publisher.views)
    wanted = np.unique(np.concatenate([d.fields["user"].removed for d in deltas(trainer)[2:]]))
    assert merge_deltas(deltas(trainer)[2:], version).fields["user"].removed.tolist() == wanted.tolist()


def test_deltas_with_a_gap_cannot_be_merged(trainer):
    trainer.run(4)
    version = ServedVersion(trainer.commits[-1].prepared.delta, trainer.publisher.views)
    with pytest.raises(DeltaError, match="does not follow"):
        merge_deltas([deltas(trainer)[1], deltas(trainer)[3]], version)


def test_a_full_holds_every_row_that_serving_holds(trainer):
    trainer.run(4)
    manifest = trainer.levels.publish_full()
    views = trainer.publisher.views
    assert manifest.rows == sum(len(view) for view in views.values())
    path = files(trainer)[f"full-0-{manifest.to_sequence}"]
    change = read_published(local_file(path), manifest)[0].fields["item"]
    assert sorted(change.new_keys.tolist()) == views["item"].keys().tolist()


def test_the_callers_views_and_the_stores_give_the_same_file(trainer):
    trainer.run(4)
    from_store = trainer.levels.publish_full()
    path = files(trainer)["full-0-4"]
    path.unlink()
    assert trainer.levels.publish_full(trainer.publisher.views) == from_store


def test_the_second_incremental_starts_where_the_first_ended(trainer):
    trainer.run(3)
    trainer.levels.publish_incremental()
    trainer.run(2)
    manifest = trainer.levels.publish_incremental()
    assert (manifest.from_sequence, manifest.to_sequence) == (3, 5)


def test_nothing_new_publishes_no_incremental(trainer):
    assert trainer.levels.publish_incremental() is None
    trainer.run(1)
    trainer.levels.publish_incremental()
    assert trainer.levels.publish_incremental() is None


def test_levels_are_due_by_the_logs_time(tmp_path):
    publish = {"incremental_every_s": 120.0, "full_every_s": 300.0}
    trainer = SyntheticTrainer(project_at(tmp_path, publish=publish))
    levels = []
    for _ in range(12):  # one commit a minute
        commit = trainer.commit()
        levels.append([m.level for m in trainer.levels.publish_due(commit.id.sequence * 60_000)])
    trainer.close()
    inc, full = ["incremental"], ["full"]
    assert levels == [full, [], inc, [], inc, full, [], inc, [], inc, full, []]


def test_a_level_that_is_off_is_never_due(tmp_path):
    publish = {"incremental_every_s": None, "full_every_s": None}
    trainer = SyntheticTrainer(project_at(tmp_path, publish=publish))
    trainer.run(3)
    assert trainer.levels.publish_due(10**12) == []
    trainer.close()


def test_publishing_again_after_a_crash_gives_the_same_file(trainer):
    trainer.run(3)
    first = trainer.levels.publish_incremental()
    before = (path_of(trainer.project.published) / "g0/s0-of-1" / first.file).read_bytes()
    trainer.store.ledger.published.remove_before(
        replace(trainer.commits[-1].id, sequence=4)
    )  # a crash after the files were written
    assert trainer.levels.publish_incremental() == first
    assert (path_of(trainer.project.published) / "g0/s0-of-1" / first.file).read_bytes() == before


def on_disk(trainer):
    """Names of all files of the shard, by generation."""
    return {f"{path.parts[-3]}/{path.name}" for path in path_of(trainer.project.published).glob("g*/s0-of-1/*")}


def file_names(*stems):
    return {f"{stem}.{kind}" for stem in stems for kind in ("json", "delta")}


def publish_levels(trainer, levels):
    """Publish a level after every second commit."""
    for level in levels:
        trainer.run(2)
        trainer.levels.publish_full() if level == "full" else trainer.levels.publish_incremental()


def test_two_fulls_and_the_incrementals_after_them_stay(trainer):
    publish_levels(trainer, ["incremental", "full", "incremental", "full", "incremental"])
    wanted = file_names("g0/full-0-4", "g0/incremental-4-6", "g0/full-0-8", "g0/incremental-8-10")
    assert on_disk(trainer) == wanted


def test_a_third_full_drops_the_files_before_the_second(trainer):
    publish_levels(trainer, ["full", "incremental", "full", "incremental"])
    before = on_disk(trainer)
    assert len(before) == 8
    publish_levels(trainer, ["full"])
    assert before - on_disk(trainer) == file_names("g0/full-0-2", "g0/incremental-2-4")
    assert on_disk(trainer) - before == file_names("g0/full-0-10")
    assert trainer.store.ledger.published.latest("incremental", 0).id.sequence == 8


def test_files_of_other_shards_stay(tmp_path):
    trainers = [SyntheticTrainer(project_at(tmp_path, logs={"shards": 2}), shard=shard) for shard in range(2)]
    for trainer, fulls in zip(trainers, (1, 3), strict=True):
        publish_levels(trainer, ["full"] * fulls)
    assert [path_of(file).stem for file, _ in delta_manifests(trainers[0].project.published, 0, 2)] == ["full-0-2"]
    assert [path_of(file).stem for file, _ in delta_manifests(trainers[0].project.published, 1, 2)] == [
        "full-0-4",
        "full-0-6",
    ]
    for trainer in trainers:
        trainer.close()


def test_the_next_full_completes_an_interrupted_deletion(trainer):
    publish_levels(trainer, ["full", "incremental", "full"])
    folder = path_of(trainer.project.published) / "g0/s0-of-1"
    (folder / "full-0-2.json").unlink()  # a crash between manifests and deltas
    (folder / ".incremental-2-4.delta.123.temporary").touch()
    publish_levels(trainer, ["full"])
    assert on_disk(trainer) == file_names("g0/full-0-6", "g0/full-0-8")


def test_the_next_full_removes_the_pointer_of_a_dropped_file(trainer):
    publish_levels(trainer, ["full", "full"])
    trainer.store.ledger.published.set("incremental", trainer.commits[0].id, "gone")
    publish_levels(trainer, ["full"])
    assert trainer.store.ledger.published.latest("incremental", 0) is None


def test_a_damaged_file_is_named_and_replaced_by_publishing_again(trainer):
    trainer.run(2)
    manifest = trainer.levels.publish_full()
    path = files(trainer)["full-0-2"]
    file = path.parent / manifest.file
    original = file.read_bytes()
    file.write_bytes(original[:-1])
    with pytest.raises(DamagedError, match=r"full-0-2\.delta"):
        read_published(local_file(path), read_delta_manifest(local_file(path)))
    trainer.levels.publish_full()
    assert file.read_bytes() == original


def test_the_error_names_a_missing_file(trainer):
    trainer.run(1)
    manifest = trainer.levels.publish_full()
    path = files(trainer)["full-0-1"]
    (path.parent / manifest.file).unlink()
    with pytest.raises(DamagedError, match="is missing"):
        read_published(local_file(path), manifest)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"checksum": 1}'])
def test_the_error_names_an_unreadable_manifest(trainer, text):
    trainer.run(1)
    trainer.levels.publish_full()
    path = files(trainer)["full-0-1"]
    path.write_text(text)
    with pytest.raises(DamagedError, match=r"full-0-1\.json"):
        read_delta_manifest(local_file(path))


def test_a_changed_manifest_is_refused(trainer):
    trainer.run(1)
    trainer.levels.publish_full()
    path = files(trainer)["full-0-1"]
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "to_sequence": 2}))
    with pytest.raises(DamagedError, match="checksum"):
        read_delta_manifest(local_file(path))


def test_another_delta_under_a_published_name_is_refused(trainer):
    trainer.run(2)
    trainer.levels.publish_full()
    other = SyntheticTrainer(project_at(trainer.project.root / "other"), seed=9)
    other.run(2)
    manifest = other.levels.publish_full()
    encoded = (path_of(other.project.published) / "g0/s0-of-1" / manifest.file).read_bytes()
    other.close()
    with pytest.raises(DeltaError, match="never change"):
        write_published(trainer.project.published, decode_delta(encoded), encoded)


def test_publishing_on_command_sets_the_pointer_and_announces(trainer):
    trainer.run(2)
    manifest = publish_level(trainer.project, trainer.log, trainer.store, 0, "full")
    pointer = trainer.store.ledger.published.latest("full", 0)
    assert pointer.id == trainer.commits[-1].id
    assert (path_of(trainer.project.published) / pointer.path).exists()
    notice = json.loads(trainer.log.read("notices", 0, 0)[-1].value)
    assert notice["type"] == "springtide.version.published"
    assert notice["data"]["name"] == manifest.name
    quality = trainer.store.quality(trainer.commits[-1].id)
    assert (manifest.quality, notice["data"]["quality"]) == (quality, asdict(quality))
    assert read_delta_manifest(local_file(files(trainer)["full-0-2"])) == manifest


def test_a_commit_is_announced_with_its_level(trainer):
    commit = trainer.commit()
    trainer.levels.announce_realtime(commit.prepared.delta, commit.prepared.encoded)
    notice = json.loads(trainer.log.read("notices", 0, 0)[-1].value)
    assert notice["subject"] == "g0/s0-of-1/1/realtime"
    assert notice["data"]["after"] == commit.prepared.served_digest


KILLED = """
from pathlib import Path
from pipeline.process.crash_point import arm_crash_point
from tests.support.synthetic.trainer import SyntheticTrainer, project_at
trainer = SyntheticTrainer(project_at(Path({root!r})))
trainer.run(2)
arm_crash_point({point!r})
trainer.levels.publish_full()
"""


@pytest.mark.parametrize(("point", "announced"), [("publish.after_files", 1), ("publish.after_notice", 2)])
def test_after_a_crash_before_the_pointer_publishing_again_completes(tmp_path, point, announced):
    script = KILLED.format(root=str(tmp_path), point=point)
    killed = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -signal.SIGKILL
    trainer = SyntheticTrainer(project_at(tmp_path))
    file = path_of(trainer.project.published) / "g0/s0-of-1/full-0-2.delta"
    before = file.read_bytes()
    assert trainer.store.ledger.published.latest("full", 0) is None
    trainer.levels.publish_full()
    assert trainer.store.ledger.published.latest("full", 0).id.sequence == 2
    assert file.read_bytes() == before
    ids = [json.loads(record.value)["id"] for record in trainer.log.read("notices", 0, 0)]
    assert ids == ["springtide.version.published:g0/s0-of-1/2/full"] * announced
    trainer.close()


def test_realtime_deltas_carry_differences_and_the_other_levels_absolute_rows(trainer):
    trainer.run(8)
    known = [field for delta in deltas(trainer)[4:] for field in delta.fields.values() if len(field.handles)]
    assert np.concatenate([field.relative for field in known]).mean() > 0.3
    trainer.levels.publish_incremental()
    trainer.levels.publish_full()
    for stored, manifest in delta_manifests(trainer.project.published, 0, 1):
        published, _ = read_published(stored, manifest)
        assert not any(field.relative.any() for field in published.fields.values())


def test_a_manifest_of_another_format_is_refused_with_the_way_out(trainer):
    trainer.run(2)
    manifest = trainer.levels.publish_full()
    path = files(trainer)[f"full-0-{manifest.to_sequence}"]
    path.write_text(replace(manifest, format=2).to_json())
    way_out = r"format 2, wanted 4: another release wrote it\. run: springtide publish --level full"
    with pytest.raises(DamagedError, match=way_out):
        read_delta_manifest(local_file(path))
