"""Retention: which versions each period retains, on both sides of its limit, and that retained versions stay intact."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.configuration.model.training import RetentionPolicy
from pipeline.errors import SpringtideError, VersionError
from pipeline.versions.state import VersionId, VersionSummary
from pipeline.versions.store.retention import Retention, plan_retention
from pipeline.versions.store.version_store import VersionStore
from tests.support.synthetic.commits import World, project_in, rows_of, served_of
from tests.support.world.stored_paths import path_of

POLICY = RetentionPolicy(all_s=3600, ten_minutes_s=86_400)
SHORT = {"newest": 1, "all_s": 60, "ten_minutes_s": 3600}
HOUR, TEN_MINUTES, DAY = 3_600_000, 600_000, 86_400_000


def summary(sequence, at_ms, full=True, parent=True):
    id = VersionId(0, 0, 1, sequence)
    before = VersionId(0, 0, 1, sequence - 1) if parent and sequence > 1 else None
    return VersionSummary(
        id, before, 1, f"{sequence}", "", None, None, 0, 0, at_ms, at_ms, "", "", 1, 1, 1, 0, full, False
    )  # fmt: skip


def retained_of(versions, now_ms, pinned=(), policy=POLICY):
    dropped = {version.id for version in plan_retention(versions, pinned, policy, now_ms).dropped}
    return [version.id.sequence for version in versions if version.id not in dropped]


def test_all_versions_of_the_last_hour_stay():
    versions = [summary(i + 1, i * 1000) for i in range(5)]
    assert retained_of(versions, HOUR) == [1, 2, 3, 4, 5]


def test_a_version_past_the_hour_shares_its_ten_minutes():
    versions = [summary(1, 0), summary(2, 1000), summary(3, 2000)]
    assert retained_of(versions, HOUR + 1000) == [1, 2, 3]
    assert retained_of(versions, HOUR + 1001) == [1, 3]


def test_one_version_in_ten_minutes_stays_for_a_day():
    versions = [summary(i + 1, i * TEN_MINUTES // 2) for i in range(8)]
    assert retained_of(versions, 10 * HOUR) == [1, 3, 5, 7]


def test_the_end_of_ten_minutes_is_part_of_the_next():
    versions = [summary(1, 0), summary(2, TEN_MINUTES - 1), summary(3, TEN_MINUTES)]
    assert retained_of(versions, 10 * HOUR) == [1, 3]


def test_one_version_a_day_stays_for_ever():
    versions = [summary(i + 1, i * DAY // 4) for i in range(12)]
    assert retained_of(versions, 1000 * DAY) == [1, 5, 9]


def test_daily_versions_are_dropped_after_the_last_period():
    versions = [summary(i + 1, i * DAY) for i in range(4)]
    policy = RetentionPolicy(all_s=1, ten_minutes_s=10, daily_s=2 * 86_400)
    assert retained_of(versions, 3 * DAY, policy=policy) == [2, 3, 4]
    assert retained_of(versions, 3 * DAY + 1, policy=policy) == [3, 4]


def test_a_retained_version_stays_the_choice_of_its_period():
    versions = [summary(i + 1, i * 60_000, parent=False) for i in range(60)]
    at_once = retained_of(versions, 4 * HOUR)
    for now in range(HOUR, 4 * HOUR, 60_000):
        dropped = {version.id for version in plan_retention(versions, (), POLICY, now).dropped}
        versions = [version for version in versions if version.id not in dropped]
    assert [version.id.sequence for version in versions] == at_once


def test_a_protected_version_stays():
    versions = [summary(1, 0), summary(2, 1), summary(3, 2), summary(4, 3)]
    assert retained_of(versions, 10 * HOUR) == [1]
    assert retained_of(versions, 10 * HOUR, pinned=[versions[3].id]) == [1, 4]


def test_nothing_is_planned_if_no_version_is_old():
    assert not plan_retention([], (), POLICY, 0)
    assert not plan_retention([summary(1, 0)], (), POLICY, 10)


@pytest.fixture
def store(tmp_path):
    opened = VersionStore(project_in(tmp_path, retention=SHORT))
    yield opened
    opened.close()


def test_versions_stay_complete_when_the_ones_before_them_are_dropped(store):
    world = World(store, step_ms=100_000)
    ids = [world.commit(full=i % 7 == 3) for i in range(20)]
    plan = store.retain(0, world.at_ms)
    assert len(plan.dropped) > 5
    assert plan.bridged
    retained = [version.id for version in store.versions(0)]
    assert set(retained) | {version.id for version in plan.dropped} == set(ids)
    for id in retained:
        assert rows_of(store.restore(id)) == world.expected[id][0]
        assert served_of(store.restore(id)) == world.expected[id][1]
        assert store.manifest(id)["id"] == str(id)


def test_digests_sample_position_and_delta_survive_the_versions_before(store):
    world = World(store, step_ms=100_000)
    deltas, rows = {}, {}
    for i in range(20):
        commit = world.build(full=i % 7 == 3)
        store.commit(commit)
        deltas[commit.id] = commit.delta
        rows[commit.id] = (commit.digest, commit.served_digest, commit.offset, commit.dense, commit.training_state)
    plan = store.retain(0, world.at_ms)
    assert plan.bridged
    for version, _ in plan.bridged:
        id = version.id
        state, listed = store.restore(id), store.ledger.version(id)
        assert (state.digest, state.served_digest, state.offset, state.dense, state.training_state) == rows[id]
        assert (listed.digest, listed.served_digest, listed.offset) == rows[id][:3]
        assert store.delta(id) == deltas[id]


def test_dropped_files_are_deleted_and_retained_ones_are_not(store):
    world = World(store, step_ms=100_000)
    for i in range(20):
        world.commit(full=i % 4 == 0)
    plan = store.retain(0, world.at_ms)
    named = {path_of(store.folder) / p for v in store.versions(0) for p in (v.path, v.touched_path) if p}
    named |= {path_of(store.folder) / file.path for file in store.ledger.change_files(0).files()}
    assert {path for path in path_of(store.folder).glob("g*/*/*")} == named
    assert len(named) < 20
    with pytest.raises(VersionError, match="does not exist"):
        store.restore(plan.dropped[0].id)


def test_keys_touched_by_dropped_versions_are_still_listed(store):
    world = World(store, step_ms=100_000)
    touched = {}
    for i in range(30):
        commit = world.build(full=i % 4 == 0)
        store.commit(commit)
        touched[commit.id.sequence] = set(commit.fields["user"].touched.tolist())
    for now in (world.at_ms - 1_000_000, world.at_ms):
        store.retain(0, now)
    retained = [version.id for version in store.versions(0)]
    assert len(retained) < 20
    for first in retained[:-1]:
        wanted = set().union(*(touched[s] for s in range(first.sequence + 1, retained[-1].sequence + 1)))
        assert set(store.touched(first, retained[-1])["user"].tolist()) >= wanted


def test_a_second_retention_changes_nothing(tmp_path, store):
    world = World(store, step_ms=100_000)
    for i in range(20):
        world.commit(full=i % 7 == 3)
    assert store.retain(0, world.at_ms)
    again = VersionStore(project_in(tmp_path, retention={"all_s": 60, "ten_minutes_s": 3600}))
    assert not again.retain(0, world.at_ms)
    again.close()


def test_retention_runs_again_only_after_a_minute(store):
    world = World(store, step_ms=100_000)
    for _ in range(10):
        world.commit(full=True)
    assert store.retain(0, world.at_ms)
    looked_at_ms = world.at_ms
    later = [world.commit(full=True) for _ in range(9)]
    assert not store.retain(0, looked_at_ms + 59_999)
    assert store.retain(0, world.at_ms)
    assert store.current(0) == later[-1]


def test_published_and_pinned_versions_are_not_changed(store):
    world = World(store, step_ms=100_000)
    ids = [world.commit(full=i % 5 == 0) for i in range(20)]
    store.ledger.published.set("full", ids[2], "a")
    store.ledger.published.set("incremental", ids[3], "b")
    store.ledger.pin(ids[8])
    before = {id: store.ledger.version(id).path for id in (ids[2], ids[3], ids[8])}
    store.retain(0, world.at_ms)
    assert {id: store.ledger.version(id).path for id in before} == before
    store.ledger.pin(ids[8], False)
    store.retain(0, world.at_ms + 60_000)
    with pytest.raises(VersionError):
        store.ledger.version(ids[8])


def test_a_version_is_restorable_after_its_chain_is_dropped(store):
    world = World(store, step_ms=100_000)
    for i in range(20):
        world.commit(full=i % 7 == 3)
    lock = path_of(store.folder) / "retention.lock"
    retention = Retention(store.folder, lock, store.ledger, RetentionPolicy(**SHORT))
    id = retention.plan(0, world.at_ms).bridged[-1][0].id
    chain = store.ledger.chain(id)
    store.retain(0, world.at_ms)
    assert store.ledger.chain(id) == chain
    assert all((path_of(store.folder) / file.path).exists() for file in chain)
    assert rows_of(store.restore(id)) == world.expected[id][0]


def test_readers_during_commits_and_retention_see_complete_versions_or_none(tmp_path, store):
    world = World(store, step_ms=100_000)
    for i in range(6):
        world.commit(full=i % 5 == 3)
    wrong, done, reads = [], threading.Event(), []

    def read():
        reader = VersionStore(project_in(tmp_path))
        while not done.is_set():
            for version in reader.versions(0):
                try:
                    state = reader.restore(version.id)
                    reader.touched(version.id, reader.current(0))
                except VersionError:
                    continue  # dropped since it was listed
                except SpringtideError as failure:
                    wrong.append(failure)
                    continue
                reads.append((version.id, rows_of(state)))
        reader.close()

    thread = threading.Thread(target=read)
    thread.start()
    for i in range(40):
        world.commit(full=i % 7 == 3)
        store.retain(0, world.at_ms)
    done.set()
    thread.join()
    assert wrong == []
    assert len(reads) > 10
    assert all(rows == world.expected[id][0] for id, rows in reads)


@settings(max_examples=15)
@given(data=st.data())
def test_random_operations_leave_every_listed_version_complete(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("life")
    project = project_in(root, retention={"newest": 2, "all_s": 50, "ten_minutes_s": 2000, "daily_s": 4000})
    store = VersionStore(project)
    world = World(store, seed=data.draw(st.integers(0, 1000)), step_ms=data.draw(st.sampled_from([5_000, 60_000])))
    for _ in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.sampled_from(["commit", "full", "empty", "retain", "restart", "pin"]))
        if action == "retain":
            store.retain(0, world.at_ms)
        elif action in ("restart", "pin") and store.current(0):
            if action == "pin":
                store.ledger.pin(store.current(0))
            else:
                world.restart()
        elif action in ("commit", "full", "empty"):
            world.commit(full=action == "full", keys=0 if action == "empty" else 8, removals=20)
    for version in store.versions(0):
        state = store.restore(version.id)
        assert (rows_of(state), served_of(state)) == world.expected[version.id]
    assert np.all(np.diff([version.last_at_ms for version in store.lineage(0)]) >= 0)
    store.close()


def test_the_newest_versions_stay_after_a_pause_of_the_input(tmp_path):
    store = VersionStore(project_in(tmp_path, retention={**SHORT, "newest": 4}))
    world = World(store)
    ids = [world.commit() for _ in range(10)]
    world.at_ms += 10 * DAY
    ids.append(world.commit())
    store.retain(0, world.at_ms)
    assert [version.id for version in store.versions(0)] == [ids[0], *ids[-4:]]
    store.close()
