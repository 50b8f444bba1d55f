"""Workers stopped between check and write while another took over, then continued; their TaskManager keeps running."""

import os
import signal
from unittest.mock import patch

from pipeline.versions.store.version_store import VersionStore
from tests.support.command.command_line import springtide
from tests.support.world.stored_paths import path_of
from tests.torture.head import Head
from tests.torture.run import judge
from tests.torture.site import is_stopped


def test_a_trainer_that_continues_after_another_took_over_cannot_commit(site, load, tmp_path):
    store = VersionStore(site.project)
    zombie = stop_at(site, "train", "trainer.before_commit")
    written = uncommitted(store)
    assert written
    springtide(site.project.root, "run", "train", "--until-end")
    taken_over = {shard: store.ledger.epoch(shard) for shard in range(2)}
    # Of the version or of the deltas topic, whichever the zombie writes to first.
    assert failure_of(site, "train", zombie).startswith("FencedError: ")
    site.wait_for(lambda: not (written & uncommitted(store)), "the files of the zombie are not removed")
    epochs = [[version.epoch for version in store.lineage(shard)] for shard in range(2)]
    assert all(of == sorted(of) for of in epochs)
    # If the remaining samples were less than a batch, there was nothing to commit.
    assert any(taken_over[shard] in of for shard, of in enumerate(epochs))
    assert not written & committed(store)
    continue_to_end(site, load, "train")
    assert judge(site, tmp_path, print)["equal"]


def test_a_join_that_continues_after_another_took_over_cannot_append(site, load, tmp_path):
    zombie = stop_at(site, "samples", "samples.before_append")
    springtide(site.project.root, "run", "samples", "--until-end")
    assert failure_of(site, "samples", zombie).startswith("FencedError: ")
    continue_to_end(site, load, "samples")
    assert judge(site, tmp_path, print)["equal"]


def stop_at(site, job, point):
    """Start everything; returns the job's worker that has stopped between check and write."""
    start_task_manager(site.cluster, SPRINGTIDE_CRASH_AT=f"{point}:5:stop")
    site.open()
    return site.wait_for_stopped(job)


def failure_of(site, job, zombie):
    """Continue the zombie until its job fails; returns the failure.

    Its other shard may stop it once more, before the first one's failure has reached Flink.
    """

    def failed():
        if is_stopped(zombie):
            os.kill(zombie, signal.SIGCONT)
        return [row for row in site.jobs() if row["job"] == job and row["last_failure"]]

    return site.wait_for(failed, "nothing fails")[0]["last_failure"]


def continue_to_end(site, load, job):
    """Restart the workers without a crash point and process all events."""
    for pid in site.workers(job):
        os.kill(pid, signal.SIGKILL)
    start_task_manager(site.cluster)
    head = Head(site, load)
    head.wait(site.project.clock.monotonic_s())
    head.close()
    load.end()


def start_task_manager(cluster, **environment):
    """Restart the TaskManager; its workers inherit `environment`."""
    cluster.kill("taskmanager-1")
    with patch.dict(os.environ, environment):
        cluster.up()


def committed(store):
    """Files of the versions in the ledger."""
    return {path_of(store.folder) / version.path for shard in range(2) for version in store.versions(shard)}


def uncommitted(store):
    """Files of versions that are not in the ledger."""
    return set(path_of(store.folder).rglob("*.version")) - committed(store)
