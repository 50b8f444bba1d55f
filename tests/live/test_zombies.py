"""A trainer's worker that stood still between check and write, while its TaskManager lives and another took over."""

import os
import signal
from unittest.mock import patch

from pipeline.versions.store import VersionStore
from tests.command_line import freshet
from tests.torture.head import Head
from tests.torture.run import judge


def test_a_trainer_that_wakes_after_another_took_over_cannot_commit(site, load, tmp_path):
    clock, store = site.project.clock, VersionStore(site.project)
    start_task_manager(site.cluster, FRESHET_CRASH_AT="trainer.before_commit:5:stop")
    site.open()
    zombie = site.wait_for_stopped("train")
    written = uncommitted(store)
    assert written
    freshet(site.project.root, "run", "train", "--until-end")
    taken_over = {shard: store.epoch(shard) for shard in range(2)}
    os.kill(zombie, signal.SIGCONT)
    site.wait_for(lambda: not (written & uncommitted(store)), "what the zombie wrote stays")
    failed = site.wait_for(
        lambda: next(row["last_failure"] for row in site.jobs() if row["job"] == "train"), "no failure"
    )
    assert failed.startswith("FencedError: version "), failed
    for shard in range(2):
        epochs = [version.epoch for version in store.lineage(shard)]
        assert epochs == sorted(epochs)
        assert taken_over[shard] in epochs
    assert not {store.folder / version.path for shard in range(2) for version in store.versions(shard)} & written
    for pid in site.workers("train"):  # those that came after it are to stop as well
        os.kill(pid, signal.SIGKILL)
    start_task_manager(site.cluster)
    head = Head(site, load)
    head.wait(clock.monotonic_s())
    head.close()
    load.end()
    assert judge(site, tmp_path, print)["equal"]


def start_task_manager(cluster, **environment):
    """Again, its workers to see `environment`."""
    cluster.kill("taskmanager-1")
    with patch.dict(os.environ, environment):
        cluster.up()


def uncommitted(store):
    """Files of versions that the ledger does not name."""
    named = {store.folder / version.path for shard in range(2) for version in store.versions(shard)}
    return set(store.folder.rglob("*.version")) - named
