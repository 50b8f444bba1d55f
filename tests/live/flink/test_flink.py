"""Both jobs on a real Flink: the same samples and model as in process, after any stop or kill."""

import os
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.live.live_shop import SHARDED, current, latest, reference_project, workers
from tests.support.command.command_line import call, samples_of, springtide
from tests.support.command.scrape import scrape, url_of
from tests.support.shop.purchases import PURCHASES, purchases_of
from tests.support.shop.unshown import CANDIDATES, candidates_of

ABSENCE_S = 60.0


def scratch_of(cluster):
    """Process ids of the workers that have a temporary folder."""
    return {int(path.name.split("-")[2]) for path in (cluster.folder / "tmp").glob("springtide-worker-*")}


def worker_options(shop, job="samples"):
    """Options of the submission that reached the latest worker, from its log."""
    logs = (shop.project / "state" / "flink" / "workers" / job).glob("*.log")
    log = max(logs, key=lambda path: path.stat().st_mtime).read_text()
    return {
        "state cache": int(re.search(r"Creating state cache with size (\d+)", log)[1]),
        "project": re.search(r"'--springtide_project=(.*?)'", log)[1],
        "job": re.search(r"'--springtide_job=(.*?)'", log)[1],
    }


@pytest.mark.parametrize("shop", [None, SHARDED], indirect=True, ids=["one shard", "two shards"])
def test_samples_are_row_for_row_those_of_a_run_in_process(shop):
    shop.feed(2)
    shop.run()
    shop.wait_until_joined()
    shop.feed(2, close=True)
    shop.wait_until_joined()


def test_samples_of_several_feedbacks_and_of_candidates_are_those_of_a_run_in_process(shop):
    shop.declare(PURCHASES + CANDIDATES)
    impressions, clicks = shop.next_events()
    shop.append((impressions, clicks))
    for folder in (shop.project, shop.twin):
        purchases_of(impressions, 3).to_parquet(folder / "purchases.parquet", index=False)
        candidates_of(impressions, 4).to_parquet(folder / "candidates.parquet", index=False)
    shop.run_both("ingest", "purchase", shop.project / "purchases.parquet")
    shop.run_both("ingest", "candidates", shop.project / "candidates.parquet")
    shop.join_twin()
    shop.run()
    shop.wait_until_joined()
    shop.feed(close=True)
    shop.wait_until_joined()
    samples = samples_of(shop.twin)
    assert {"compensation", "negative"} <= set(samples.dropna(subset="purchase")["kind"])
    assert (samples["kind"] == "candidate").sum() == sum(candidates_of(impressions, 4)["fine"] <= 1)


def test_stopped_job_continues_from_its_savepoint_and_leaves_no_temporary_file(shop, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    shop.feed()
    assert shop.run()["samples"]["from"] is None
    shop.wait_until_joined()
    (stopped,) = shop.stop()
    assert shop.job()["state"] == "FINISHED"
    shop.feed(2, close=True)
    assert shop.run()["samples"]["from"] == stopped["savepoint"]
    shop.wait_until_joined()
    shop.stop()
    assert list(temporary.iterdir()) == []
    assert list((shop.cluster.folder / "tmp" / "flink-web-upload").iterdir()) == []
    shop.wait_for(lambda: scratch_of(shop.cluster) == set())


def test_checkpoints_do_not_grow(shop):
    shop.feed()
    shop.run("all")
    shop.wait_until_joined()
    shop.wait_for(lambda: latest(shop.project) is not None)
    sizes = {}
    for _ in range(2):
        time.sleep(8)
        for job in ("samples", "train"):
            sizes.setdefault(job, []).append(shop.job(job)["last_checkpoint"]["size_bytes"])
    for first, later in sizes.values():
        assert later <= first + 1024


def test_job_without_savepoint_and_checkpoint_continues_from_the_logs_alone(shop):
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    shop.stop()
    shutil.rmtree(shop.project / "state" / "flink")
    shutil.rmtree(shop.project / "state" / "samples", ignore_errors=True)
    shop.feed(2, close=True)
    assert shop.run()["samples"]["from"] is None
    shop.wait_until_joined()


def test_killed_worker_loses_and_duplicates_nothing(shop):
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    assert worker_options(shop) == {"state cache": 100 << 20, "project": str(shop.project), "job": "samples"}
    killed = workers(shop.cluster)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    shop.feed(2, close=True)
    shop.wait_until_joined()
    shop.wait_for(lambda: shop.job()["restarts"] >= 1)
    assert scratch_of(shop.cluster) == set(workers(shop.cluster))
    assert not set(killed) & set(workers(shop.cluster))


def test_task_manager_that_is_killed_and_absent_for_a_minute_loses_and_duplicates_nothing(shop):
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    orphans = workers(shop.cluster)
    shop.cluster.kill("taskmanager-1")
    killed_s = time.monotonic()
    shop.feed(2, close=True)
    shop.wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
    shop.wait_for(lambda: (shop.job()["stalled"] or "").endswith("no TaskManager is registered"))
    assert "job samples is stalled: " in call("status", "--project", shop.project).err
    time.sleep(max(0.0, killed_s + ABSENCE_S - time.monotonic()))
    shop.cluster.start("taskmanager-1")
    shop.wait_until_joined()
    assert shop.job()["stalled"] is None


def test_worker_that_continues_after_another_took_over_emits_nothing(shop):
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    zombies = workers(shop.cluster)
    for pid in zombies:
        os.kill(pid, signal.SIGSTOP)
    shop.feed()
    shop.cluster.kill("taskmanager-1")
    shop.cluster.start("taskmanager-1")
    shop.wait_until_joined()
    for pid in zombies:
        os.kill(pid, signal.SIGCONT)
    shop.feed(close=True)
    shop.wait_until_joined()
    shop.wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in zombies))


def test_job_of_a_killed_job_manager_continues_from_its_last_checkpoint(shop):
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    shop.wait_for(lambda: shop.job()["last_checkpoint"])
    shop.cluster.kill("jobmanager")
    shop.cluster.start("jobmanager")
    shop.cluster.wait_ready("taskmanager-1")
    shop.feed(2, close=True)
    assert "chk-" in shop.run()["samples"]["from"]
    shop.wait_until_joined()


def test_trainer_learns_what_a_run_in_process_learns_from_the_same_samples(shop):
    shop.feed(2)
    shop.run("all")
    shop.feed(2, close=True)
    shop.wait_until_joined()
    reference = reference_project(shop.project)
    springtide(reference, "run", "train", "--until-end")
    shop.wait_for(lambda: current(shop.project) == current(reference))


def test_rollback_while_both_jobs_run_needs_no_restart(shop):
    shop.feed()
    shop.run("all")
    shop.wait_for(lambda: latest(shop.project))
    good = latest(shop.project)
    shop.feed(2)
    shop.wait_for(lambda: latest(shop.project)["log_time"] > good["log_time"])
    before = pd.Timestamp(good["log_time"]) + pd.Timedelta(seconds=1)
    springtide(shop.project, "rollback", "--before", before.isoformat())
    shop.feed(close=True)
    shop.wait_until_joined()
    shop.wait_for(lambda: latest(shop.project)["version"].startswith("g1/"))
    shop.wait_for(lambda: latest(shop.project)["samples_seen"] > good["samples_seen"])
    assert {row["state"] for row in springtide(shop.project, "status")["jobs"]} == {"RUNNING"}


MEASURED = {**SHARDED, "[telemetry]\n": "[telemetry]\nport = 0\n"}


@pytest.mark.parametrize("shop", [MEASURED], indirect=True)
def test_workers_export_metrics_and_the_successor_of_a_killed_one_has_its_name(shop):
    def addresses():
        return sorted(path.stem for path in (shop.project / "state" / "telemetry").glob("*.json"))

    def metrics_of(job):
        return scrape(str(url_of(shop.project, next(name for name in addresses() if name.startswith(job)))))

    shop.feed()
    shop.run("all")
    shop.wait_until_joined()
    shop.wait_for(lambda: len(addresses()) == 2)
    names = addresses()
    assert [name.partition("-")[0] for name in names] == ["samples", "train"]
    joined = len(samples_of(shop.project))
    shop.wait_for(lambda: sum(metrics_of("samples").all("springtide_join_samples_total").values()) == joined)
    shop.wait_for(lambda: sum(metrics_of("train").all("springtide_train_samples_total").values()) == joined)
    samples, train = metrics_of("samples"), metrics_of("train")
    assert set(samples.all("springtide_join_lag_records").values()) == {0}
    assert set(samples.all("springtide_shard_failures_total").values()) == {0}
    assert samples("springtide_join_round_seconds_count") > 0
    assert set(train.all("springtide_train_halted").values()) == {0}
    assert all(count > 0 for count in train.all("springtide_commit_seconds_count").values())
    began = {job: metrics_of(job)("process_start_time_seconds") for job in ("samples", "train")}
    for pid in workers(shop.cluster):
        os.kill(pid, signal.SIGKILL)
    shop.feed(close=True)
    shop.wait_until_joined()
    shop.wait_for(lambda: all(started_after(shop, name, began[name.partition("-")[0]]) for name in names))
    assert addresses() == names
    shop.stop()
    shop.wait_for(lambda: addresses() == [])


def started_after(shop, name, at):
    """Whether the process of that name started after `at`."""
    try:
        return scrape(str(url_of(shop.project, name)))("process_start_time_seconds") > at
    except (OSError, ValueError):
        return False


def test_restart_loop_of_a_job_is_reported(shop):
    shop.feed()
    shop.run("all")
    shop.wait_for(lambda: latest(shop.project))
    shop.stop()
    settings = shop.project / "springtide.toml"
    text = settings.read_text()
    assert "dim = 8" in text
    settings.write_text(text.replace("dim = 8", "dim = 16"))
    call("run", "train", "--runner", "flink", "--project", shop.project)
    shop.wait_for(lambda: shop.job("train")["restart_loop"])
    assert shop.job("train")["last_failure"].startswith("MigrationError: ")
    stderr = call("status", "--project", shop.project).err
    assert "job train is in a restart loop" in stderr
    assert "MigrationError" in stderr
    settings.write_text(text)
    shop.feed(close=True)
    learned = latest(shop.project)["samples_seen"]
    shop.run("samples")
    shop.wait_for(lambda: latest(shop.project)["samples_seen"] > learned)
