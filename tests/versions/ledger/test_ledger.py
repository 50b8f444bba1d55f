"""The ledger: one writer per shard, CURRENT moves atomically, and the tables that survive a rollback; manifests."""

import json
import re
import resource
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DamagedError, FencedError, InputError, VersionError
from pipeline.versions.deltas.delta import decode_delta
from pipeline.versions.deltas.published_files import delta_manifest
from pipeline.versions.ledger.database import Database
from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.ledger.schema import SCHEMA
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.support.manual_clock import ManualClock
from tests.support.synthetic.commits import World, project_in
from tests.support.world.stored_paths import path_of

ROOT = Path(__file__).parents[3]


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(tmp_path / "ledger.sqlite", ManualClock(5_000))
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path):
    opened = VersionStore(project_in(tmp_path))
    yield opened
    opened.close()


def test_every_new_writer_raises_the_epoch(ledger):
    assert ledger.epoch(0) == 0
    assert [ledger.raise_epoch(0, 2), ledger.raise_epoch(0, 2), ledger.raise_epoch(1, 2)] == [1, 2, 1]
    assert (ledger.epoch(0), ledger.epoch(1)) == (2, 1)


def test_a_shard_without_versions_has_no_current_and_no_lineage(ledger):
    ledger.raise_epoch(0, 1)
    assert ledger.current(0) is None
    assert ledger.lineage(0) == []
    assert ledger.shards() == []


def test_a_commit_without_an_epoch_is_fenced(store):
    world = World(store)
    commit = world.build()
    foreign = Ledger(path_of(store.folder) / "other" / "ledger.sqlite", ManualClock())
    with pytest.raises(FencedError, match="shard 0 is at epoch 0"):
        foreign.commit(store.stage(commit))
    foreign.close()


def test_times_of_a_lineage_never_decrease(store):
    world = World(store)
    world.commit()
    latest = world.at_ms
    world.at_ms -= 50_000
    world.commit()
    assert [version.last_at_ms for version in store.lineage(0)] == [latest, latest]


def test_reads_do_not_wait_for_a_writer(store):
    id = World(store).commit()
    other = Ledger(path_of(store.folder) / "ledger.sqlite", ManualClock())
    writer = Database(path_of(store.folder) / "ledger.sqlite", SCHEMA, "restore it")
    with writer.transaction():
        assert other.current(0) == id
        assert len(other.versions(0)) == 1
        assert other.protected(0) == {id}
        assert other.quarantines.active(0).ids() == []
        assert other.halts.get(0) is None
    writer.close()
    other.close()


def test_a_transaction_that_fails_changes_nothing(store):
    world = World(store)
    world.commit()
    before = store.ledger.versions(0)
    writer = Database(path_of(store.folder) / "ledger.sqlite", SCHEMA, "restore it")
    with pytest.raises(InputError):
        delete_then_fail(writer)
    writer.close()
    assert store.ledger.versions(0) == before


def delete_then_fail(writer):
    with writer.transaction() as connection:
        connection.execute("DELETE FROM version")
        raise InputError("no")


def test_a_file_that_is_no_ledger_is_reported_as_damaged(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database, but long enough to have a header " * 40)
    with pytest.raises(DamagedError, match=r"ledger\.sqlite is damaged"):
        Ledger(path, ManualClock())


def test_a_ledger_of_another_format_is_refused(tmp_path, ledger):
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute("PRAGMA user_version=9")
    connection.close()
    with pytest.raises(VersionError, match="has format 9, wanted 5"):
        Ledger(tmp_path / "ledger.sqlite", ManualClock())


def test_a_full_disk_does_not_move_current(store):
    world = World(store)
    id = world.commit()
    commit = world.build()
    staged = store.stage(commit)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(VersionError, match=r"ledger\.sqlite cannot be used: .*make room"):
            store.ledger.commit(staged)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.current(0) == id
    store.commit(commit)
    assert store.current(0) == commit.id


RACE = """
import sys
from pathlib import Path
from tests.support.manual_clock import ManualClock
from pipeline.versions.ledger.ledger import Ledger

ledger = Ledger(Path(sys.argv[1]), ManualClock())
print(*[ledger.raise_epoch(0, 1) for _ in range(20)])
"""


def test_two_processes_never_get_the_same_epoch(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(RACE), str(tmp_path / "new" / "ledger.sqlite")]
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
    ledger.halts.set(1, "loss nan at offset 5", "halted/5.parquet")
    other = Ledger(tmp_path / "ledger.sqlite", ManualClock())
    found = other.halts.get(1)
    assert (found.reason, found.batch_file, found.at_ms) == ("loss nan at offset 5", "halted/5.parquet", 5_000)
    assert other.halts.get(0) is None
    assert ledger.halts.clear(1)
    assert other.halts.get(1) is None
    assert not ledger.halts.clear(1)
    other.close()


def test_a_second_halt_replaces_the_first(ledger):
    ledger.halts.set(0, "a", "1")
    ledger.halts.set(0, "b", "2")
    assert ledger.halts.get(0).reason == "b"
    ledger.halts.clear(0)
    assert ledger.halts.get(0) is None


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
    with pytest.raises(VersionError, match="g0/s0-of-1/7 does not exist"):
        ledger.pin(VersionId(0, 0, 1, 7))


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
