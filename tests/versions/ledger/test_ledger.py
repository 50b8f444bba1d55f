"""The ledger: one writer per shard, CURRENT moves atomically, and the tables that survive a rollback; manifests."""

import json
import re
import resource
import subprocess
import sys
import textwrap
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, DamagedError, FencedError, InputError, LogError, VersionError
from pipeline.logs.open import open_log
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.versions.deltas.delta import decode_delta
from pipeline.versions.deltas.published_files import delta_manifest
from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.ledger.partition import SNAPSHOT_EVERY
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.support.manual_clock import ManualClock
from tests.support.synthetic.commits import World, project_in

ROOT = Path(__file__).parents[3]


def ledger_in(folder, model="shop"):
    """A ledger of two shards in an embedded log."""
    log = SqliteLog(folder / "logs", ManualClock(5_000))
    log.create_topic("ledger", 3)
    return Ledger(log, "ledger", 2, ManualClock(5_000), model)


@pytest.fixture
def ledger(tmp_path):
    return ledger_in(tmp_path)


@pytest.fixture
def store(tmp_path):
    opened = VersionStore(project_in(tmp_path))
    yield opened
    opened.close()


def test_every_new_writer_raises_the_epoch(ledger):
    assert ledger.epoch(0) == 0
    assert [ledger.raise_epoch(0), ledger.raise_epoch(0), ledger.raise_epoch(1)] == [1, 2, 1]
    assert (ledger.epoch(0), ledger.epoch(1)) == (2, 1)


def test_a_second_model_on_the_same_log_does_not_take_over_the_first(tmp_path, ledger):
    ledger.raise_epoch(0)
    with pytest.raises(ConfigError, match=r"ledger is that of model shop, name is other\. hint: set topics\."):
        ledger_in(tmp_path, "other").raise_epoch(0)
    assert ledger.epoch(0) == 1


def test_a_shard_without_versions_has_no_current_and_no_lineage(ledger):
    ledger.raise_epoch(0)
    assert ledger.current(0) is None
    assert ledger.lineage(0) == []
    assert ledger.shards() == []


def test_a_commit_without_an_epoch_is_fenced(store, tmp_path):
    commit = World(store).build()
    with pytest.raises(FencedError, match="shard 0 is at epoch 0"):
        ledger_in(tmp_path / "other").commit(store.stage(commit))


def test_a_process_that_does_not_write_a_shard_records_no_commit(store, tmp_path):
    commit = World(store).build()
    with closing(VersionStore(project_in(tmp_path))) as other, pytest.raises(FencedError, match="comes from epoch 1"):
        other.ledger.commit(store.stage(commit))
    assert store.current(0) is None


def test_times_of_a_lineage_never_decrease(store):
    world = World(store)
    world.commit()
    latest = world.at_ms
    world.at_ms -= 50_000
    world.commit()
    assert [version.last_at_ms for version in store.lineage(0)] == [latest, latest]


def test_a_record_that_is_none_of_a_ledger_is_named(store, tmp_path):
    World(store).commit()
    with closing(open_log(project_in(tmp_path))) as log:
        log.append("ledger", 0, [b"{}"], headers={"format": "1"})
        with pytest.raises(DamagedError, match=r"ledger, partition 0, offset 2 is no record.*restore-ledger"):
            store.current(0)


def test_a_record_of_another_format_is_refused(store, tmp_path):
    with closing(open_log(project_in(tmp_path))) as log:
        log.append("ledger", 1, [b"{}"], headers={"format": "9"})
    with pytest.raises(DamagedError, match=r"headers \{'format': '9'\}, wanted \{'format': '1'\}"):
        store.ledger.generation()


def test_a_full_disk_does_not_move_current(store):
    world = World(store)
    id = world.commit()
    commit = world.build()
    staged = store.stage(commit)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(LogError, match=r"partition ledger/0 cannot be written or read: .*free space"):
            store.ledger.commit(staged)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.current(0) == id
    store.commit(commit)
    assert store.current(0) == commit.id


def test_opening_reads_the_last_snapshot_and_what_follows_it(store, tmp_path):
    world = World(store)
    ids = [world.commit() for _ in range(SNAPSHOT_EVERY + 20)]
    store.ledger.quarantines.add(Quarantine(0, "bots", times_ms=(100, 200)))
    with closing(open_log(project_in(tmp_path))) as log:
        left = log.end_offset("ledger", 0) - log.begin_offset("ledger", 0)
        assert left < 25
    again = VersionStore(project_in(tmp_path))
    assert (again.current(0), again.versions(0)) == (ids[-1], store.versions(0))
    assert [file.path for file in again.ledger.chain(ids[3])] == [file.path for file in store.ledger.chain(ids[3])]
    assert again.ledger.quarantines.all() == store.ledger.quarantines.all()
    again.close()


def test_a_reader_that_was_left_behind_by_a_snapshot_reads_on_from_it(store, tmp_path):
    world, behind = World(store), VersionStore(project_in(tmp_path))
    world.commit()
    assert behind.current(0) == store.current(0)
    for _ in range(SNAPSHOT_EVERY + 20):
        world.commit()
    assert (behind.current(0), behind.versions(0)) == (store.current(0), store.versions(0))
    behind.close()


def test_quarantines_of_many_processes_get_numbers_of_their_own(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(ADDING), str(tmp_path)]
    ledger_in(tmp_path)
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)]
    ids = [int(id) for racer in racers for id in racer.communicate(timeout=120)[0].split()]
    assert sorted(ids) == list(range(1, 31))
    assert [quarantine.id for quarantine in ledger_in(tmp_path).quarantines.all()] == list(range(1, 31))


ADDING = """
import sys
from pathlib import Path
from pipeline.versions.ledger.quarantine import Quarantine
from tests.versions.ledger.test_ledger import ledger_in

ledger = ledger_in(Path(sys.argv[1]))
print(*[ledger.quarantines.add(Quarantine(0, "bots", times_ms=(1, 2))) for _ in range(10)])
"""

RACE = """
import sys
from pathlib import Path
from pipeline.errors import FencedError
from tests.versions.ledger.test_ledger import ledger_in

ledger = ledger_in(Path(sys.argv[1]))
epochs = []
while len(epochs) < 20:
    try:
        epochs.append(ledger.raise_epoch(0))
    except FencedError:
        pass
print(*epochs)
"""


def test_two_processes_never_get_the_same_epoch(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(RACE), str(tmp_path)]
    ledger_in(tmp_path)
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)]
    epochs = [int(epoch) for racer in racers for epoch in racer.communicate(timeout=120)[0].split()]
    assert sorted(epochs) == list(range(1, 61))


def test_a_time_quarantine_includes_its_start_and_excludes_its_end(ledger):
    id = ledger.quarantines.add(Quarantine(0, "bots", times_ms=(100, 200)))
    active = ledger.quarantines.active(3)
    assert active.ids() == [id]
    assert active.mask(np.array([99, 100, 199, 200]), 0).tolist() == [False, True, True, False]


def test_a_position_quarantine_masks_rows_of_its_shard_only(ledger):
    ledger.quarantines.add(Quarantine(0, "nan", positions=((5, 2), (7, 1)), shard=1))
    active, times = ledger.quarantines.active(1), np.zeros(3, np.int64)
    assert active.mask(times, 4).tolist() == [False] * 3
    assert active.mask(times, 5).tolist() == [False, False, True]
    assert active.mask(times, 5, first_row=1).tolist() == [False, True, True]
    assert active.mask(times, 6).tolist() == [True] * 3
    assert active.mask(times, 7).tolist() == [True, False, False]
    assert active.mask(times, 8).tolist() == [False] * 3
    assert ledger.quarantines.active(0).ids() == []


def test_a_position_quarantine_may_lie_inside_one_record(ledger):
    ledger.quarantines.add(Quarantine(0, "nan", positions=((5, 1), (5, 2)), shard=0))
    assert ledger.quarantines.active(0).mask(np.zeros(3, np.int64), 5).tolist() == [False, True, False]


def test_a_removed_quarantine_masks_nothing_and_stays_listed(ledger):
    id = ledger.quarantines.add(Quarantine(0, "bots", times_ms=(100, 200)))
    ledger.quarantines.remove(id)
    assert ledger.quarantines.active(0).ids() == []
    assert not ledger.quarantines.active(0).mask(np.array([150]), 0).any()
    assert [(q.id, q.added_at_ms, q.removed_at_ms) for q in ledger.quarantines.all()] == [(id, 5_000, 5_000)]
    with pytest.raises(VersionError, match=f"quarantine {id} is not in force"):
        ledger.quarantines.remove(id)


def test_ids_of_quarantines_are_never_used_again(ledger):
    first = ledger.quarantines.add(Quarantine(0, "a", times_ms=(1, 2)))
    ledger.quarantines.remove(first)
    assert ledger.quarantines.add(Quarantine(0, "b", times_ms=(1, 2))) == first + 1


@pytest.mark.parametrize(
    "range_",
    [
        {},
        {"times_ms": (5, 5)},
        {"times_ms": (5, 4)},
        {"positions": ((1, 2), (1, 2)), "shard": 0},
        {"positions": ((1, 2), (1, 3))},
        {"times_ms": (1, 2), "shard": 0},
        {"times_ms": (1, 2), "positions": ((1, 2), (1, 3)), "shard": 0},
    ],
)
def test_a_quarantine_without_a_range_is_refused(ledger, range_):
    with pytest.raises(InputError, match="quarantine"):
        ledger.quarantines.add(Quarantine(0, "wrong", **range_))
    assert ledger.quarantines.all() == []


def test_a_halted_shard_stays_halted_until_cleared(tmp_path, ledger):
    ledger.raise_epoch(1)
    ledger.halts.set(1, "loss nan at offset 5", "halted/5.parquet")
    other = ledger_in(tmp_path)
    found = other.halts.get(1)
    assert (found.reason, found.batch_file, found.at_ms) == ("loss nan at offset 5", "halted/5.parquet", 5_000)
    assert other.halts.get(0) is None
    assert other.halts.clear(1)
    assert ledger.halts.get(1) is None
    assert not ledger.halts.clear(1)
    ledger.halts.set(1, "again", "halted/6.parquet")
    assert other.halts.get(1).reason == "again"


def test_a_second_halt_replaces_the_first(ledger):
    ledger.raise_epoch(0)
    ledger.halts.set(0, "a", "1")
    ledger.halts.set(0, "b", "2")
    assert ledger.halts.get(0).reason == "b"
    ledger.halts.clear(0)
    assert ledger.halts.get(0) is None


def test_what_an_operator_publishes_counts_beside_what_the_trainer_does(store, tmp_path):
    ids = [World(store).commit()]
    operator = VersionStore(project_in(tmp_path))
    operator.ledger.published.set("full", ids[0], "by-hand")
    assert store.ledger.published.latest("full", 0).path == "by-hand"
    assert store.ledger.protected(0) == set(ids)
    store.ledger.published.remove_before(replace(ids[0], sequence=2))
    assert operator.ledger.published.latest("full", 0) is None
    operator.close()


def test_the_latest_published_pointer_of_each_level_is_returned(store):
    world = World(store)
    ids = [world.commit() for _ in range(4)]
    assert store.ledger.published.latest("full", 0) is None
    for id in ids[:3]:
        store.ledger.published.set("incremental", id, f"to-{id.sequence}")
    store.ledger.published.set("full", ids[0], "path-of-full")
    assert store.ledger.published.latest("incremental", 0).id == ids[2]
    assert store.ledger.published.latest("full", 0).path == "path-of-full"


def test_published_pointers_before_a_version_are_removed(store):
    world = World(store)
    ids = [world.commit() for _ in range(3)]
    store.ledger.published.set("full", ids[0], "first")
    store.ledger.published.set("incremental", ids[1], "second")
    store.ledger.published.set("incremental", ids[2], "third")
    store.ledger.published.remove_before(ids[1])
    assert store.ledger.published.latest("full", 0) is None
    assert store.ledger.published.latest("incremental", 0).id == ids[2]
    store.ledger.published.remove_before(ids[2])
    assert store.ledger.published.latest("incremental", 0).id == ids[2]


def test_publishing_a_version_again_changes_only_the_path(store):
    id = World(store).commit()
    store.ledger.published.set("full", id, "a")
    store.ledger.published.set("full", id, "b")
    assert store.ledger.published.latest("full", 0).path == "b"


def test_an_unknown_version_cannot_be_pinned(ledger):
    with pytest.raises(VersionError, match="g0/s0-of-2/7 does not exist"):
        ledger.pin(VersionId(0, 0, 2, 7))


@pytest.mark.parametrize("name", ["", "42", "g0/s0-of-1", "g0/s0-of-1/x", "g0/s0-of-1/4/5", "g-1/s0-of-1/4"])
def test_a_malformed_version_name_is_refused(name):
    with pytest.raises(InputError, match="is not a version id, wanted one like g0/s0-of-1/42"):
        VersionId.parse(name)


def problems_of(document, schema, root, at="manifest"):
    """Violations of a schema, for the part of JSON Schema that our schema uses."""
    if "$ref" in schema:
        return problems_of(document, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, at)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            tried = [problems_of(document, option, root, at) for option in schema[word]]
            return [] if [] in tried else [problem for problems in tried for problem in problems]
    if "const" in schema or "enum" in schema:
        allowed = schema.get("enum", [schema.get("const")])
        return [] if document in allowed else [f"{at}: {document}"]
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float)}
    kinds |= {"boolean": bool, "null": type(None)}
    if not isinstance(document, kinds[schema["type"]]) or (schema["type"] == "integer" and isinstance(document, bool)):
        return [f"{at}: {document!r} is no {schema['type']}"]
    if schema["type"] == "object":
        known, further = schema.get("properties", {}), schema.get("additionalProperties", {"type": "object"})
        found = [f"{at} lacks {name}" for name in schema.get("required", []) if name not in document]
        for name, value in document.items() if known or "additionalProperties" in schema else ():
            inner = known.get(name, further)
            found += problems_of(value, inner, root, f"{at}.{name}") if inner else [f"{at}.{name} is unknown"]
        return found
    if schema["type"] == "array":
        return [p for i, value in enumerate(document) for p in problems_of(value, schema["items"], root, f"{at}[{i}]")]
    if schema["type"] == "string" and "pattern" in schema:
        return [] if re.search(schema["pattern"], document) else [f"{at}: {document} against {schema['pattern']}"]
    low = schema.get("minimum")
    return [f"{at}: {document} is below {low}"] if low is not None and document < low else []


def test_manifests_conform_to_the_schema(store):
    schema = json.loads((ROOT / "schemas" / "manifest.json").read_text())
    world = World(store)
    ids = [world.commit(), world.commit(full=True)]
    for id in ids:
        manifest = dict(store.manifest(id))
        assert problems_of(manifest, schema, schema) == []
        assert problems_of({**manifest, "odd": 1}, schema, schema)
        assert problems_of({**manifest, "row": -1}, schema, schema)
        del manifest["parent"]
        assert problems_of(manifest, schema, schema)
    encoded = store.delta(ids[1])
    published = json.loads(delta_manifest(decode_delta(encoded), encoded, "a.delta").to_json())
    assert problems_of(published, schema, schema) == []
    assert problems_of({**published, "sha256": "short"}, schema, schema)
