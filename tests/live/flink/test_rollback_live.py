"""Bad data while both jobs run on Flink, undone by one command: no restart, and the replica is correct immediately."""

import threading
from contextlib import contextmanager

from pipeline.logs.interface.log import read_to_end
from pipeline.logs.open import open_log
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.torture.head import Head
from tests.torture.run import judge

RIGHT_WITHIN_MS = 1_000


def test_a_rollback_while_both_jobs_run_needs_no_restart_and_the_replica_is_right_at_once(site, load, tmp_path, capsys):
    clock, began_s = site.project.clock, site.project.clock.monotonic_s()
    site.open()
    head = Head(site, load)
    head.wait(began_s)
    bad_ms = load.contaminate()
    head.wait_until_learned(bad_ms[1])
    restarts = {row["job"]: row["restarts"] for row in site.jobs()}
    with watched(site) as seen:
        done = site.result_of(site.begin_rollback(bad_ms), "rollback")["done"]
        returned_at_ms = clock.now_ms()
        site.wait_for(lambda: len(seen) == 2, "the replica still serves the old generation")
    right_at_ms = max(at_ms for at_ms, _, _ in seen.values())
    after = {"notice": right_at_ms - noticed_at_ms(site, done["id"]), "command": right_at_ms - returned_at_ms}
    with capsys.disabled():
        print("the replica was right", *(f"{passed_ms:+} ms after the {what}" for what, passed_ms in after.items()))
    assert after["notice"] <= RIGHT_WITHIN_MS
    assert_right(site, done, seen)
    head.wait(clock.monotonic_s())
    head.close()
    load.end()
    assert judge(site, tmp_path, print)["equal"]
    assert {row["job"]: row["restarts"] for row in site.jobs()} == restarts
    assert {row["state"] for row in site.jobs()} == {"RUNNING"}


@contextmanager
def watched(site):
    """Within the block, by shard: when the replica first served another generation, which version, and its digest."""
    before = {shard["shard"]: shard["generation"] for shard in site.replica_status()["shards"]}
    seen, over = {}, threading.Event()

    def look():
        while not over.wait(0.02):
            for shard in (site.replica_status() or {"shards": []})["shards"]:
                if shard["generation"] != before[shard["shard"]]:
                    served = site.project.clock.now_ms(), shard["version"], shard["digest"]
                    seen.setdefault(shard["shard"], served)

    watching = threading.Thread(target=look)
    watching.start()
    yield seen
    over.set()
    watching.join()


def assert_right(site, done, seen):
    """What the replica served first of the new generation is the rollback's version or a later one, byte for byte."""
    store = VersionStore(site.project)
    for shard, (_, name, digest) in seen.items():
        version, rolled_back = VersionId.parse(name), VersionId.parse(done["shards"][shard]["version"])
        assert version.generation == rolled_back.generation
        assert version.sequence >= rolled_back.sequence
        assert digest == store.ledger.version(version).served_digest
    store.close()


def noticed_at_ms(site, number):
    """When the rollback was announced, by the log's clock."""
    log, topic = open_log(site.project), site.project.config.topics.notices
    records = [r for p in range(log.partitions(topic)) for run in read_to_end(log, topic, p) for r in run]
    log.close()
    return next(r.appended_at_ms for r in records if f"rollback/{number}".encode() in r.value)
