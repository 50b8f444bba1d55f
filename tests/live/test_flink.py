"""Both jobs on a real Flink: the same samples as in process, whatever is stopped or killed, and the same model."""

import os
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.command_line import call, feed, freshet, make_events, make_shop, samples_of
from tests.scrape import scrape, url_of

PIECES, ROWS = 4, 500
WAIT_S = 90.0
SHARDED = {"[logs]\n": "[logs]\npartitions = 2\nshards = 2\n"}


class Shop:
    """A project on the cluster, and a twin whose jobs run in process over the same events."""

    def __init__(self, root, cluster, replaced):
        self.cluster = cluster
        self.project = make_shop(root / "live", replaced)
        self.twin = make_shop(root / "twin", replaced)
        with (self.project / "freshet.toml").open("a") as file:
            file.write(f'\n[flink]\nrest = "{cluster.rest_url}"\njar = "{cluster.base_jar}"\ncheckpoint_every_s = 1\n')
        self._fed = 0

    def feed(self, pieces=1, close=False):
        """The next events, into both."""
        for piece in range(self._fed, self._fed + pieces):
            for folder in (self.project, self.twin):
                feed(folder, make_events(7, ROWS, piece * ROWS), f"piece-{piece}", close=close and piece + 1 == pieces)
        self._fed += pieces
        freshet(self.twin, "run", "samples", "--until-end")

    def run(self, job="samples", *options):
        started = freshet(self.project, "run", job, "--runner", "flink", *options)["jobs"]
        return {row["job"]: row for row in started}

    def stop(self):
        return freshet(self.project, "stop")["stopped"]

    def job(self, name="samples"):
        return next(row for row in freshet(self.project, "status")["jobs"] if row["job"] == name)

    def wait_until_joined(self):
        """Return once the live project has said what its twin has; fail where it says anything else."""
        wanted, ends_s = samples_of(self.twin), time.monotonic() + WAIT_S
        while len(found := samples_of(self.project)) < len(wanted):
            assert time.monotonic() < ends_s, (len(found), len(wanted), self.job())
            time.sleep(0.2)
        pd.testing.assert_frame_equal(found, wanted)

    def wait_for(self, reached):
        ends_s = time.monotonic() + WAIT_S
        while not reached():
            assert time.monotonic() < ends_s, freshet(self.project, "status")
            time.sleep(0.2)


@pytest.fixture
def shop(cluster, tmp_path, request):
    made = Shop(tmp_path, cluster, getattr(request, "param", None))
    yield made
    made.stop()


def workers(cluster):
    """Process ids of the Python workers that this cluster's TaskManager started."""
    parent, found = cluster.running()["taskmanager-1"].pid, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == parent and b"freshet-worker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("shop", [None, SHARDED], indirect=True, ids=["one shard", "two shards"])
def test_samples_are_row_for_row_those_of_a_run_in_process(shop):
    shop.feed(2)
    shop.run()
    shop.wait_until_joined()
    shop.feed(2, close=True)
    shop.wait_until_joined()


def test_stopped_job_goes_on_from_its_savepoint(shop):
    shop.feed()
    assert shop.run()["samples"]["from"] is None
    shop.wait_until_joined()
    (stopped,) = shop.stop()
    assert shop.job()["state"] == "FINISHED"
    shop.feed(2, close=True)
    assert shop.run()["samples"]["from"] == stopped["savepoint"]
    shop.wait_until_joined()


def test_job_without_savepoint_and_checkpoint_goes_on_from_the_logs_alone(shop):
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    shop.stop()
    shutil.rmtree(shop.project / "state" / "flink")
    shutil.rmtree(shop.project / "state" / "samples", ignore_errors=True)
    shop.feed(2, close=True)
    assert shop.run()["samples"]["from"] is None
    shop.wait_until_joined()


def test_killed_worker_loses_and_doubles_nothing(shop):
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    for pid in workers(shop.cluster):
        os.kill(pid, signal.SIGKILL)
    shop.feed(2, close=True)
    shop.wait_until_joined()
    shop.wait_for(lambda: shop.job()["restarts"] >= 1)


def test_killed_task_manager_loses_and_doubles_nothing(shop):
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    orphans = workers(shop.cluster)
    shop.cluster.kill("taskmanager-1")
    shop.feed(2, close=True)
    shop.wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
    shop.wait_for(lambda: (shop.job()["stands_still"] or "").endswith("no TaskManager is there"))
    assert "job samples stands still: " in call("status", "--project", shop.project).err
    shop.cluster.start("taskmanager-1")
    shop.wait_until_joined()
    assert shop.job()["stands_still"] is None


def test_worker_that_wakes_after_another_took_over_says_nothing(shop):
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


def test_job_of_a_killed_job_manager_goes_on_from_its_last_checkpoint(shop):
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
    calm = make_shop(shop.project.parent / "calm")
    shutil.copytree(shop.project / "state" / "logs" / "samples", calm / "state" / "logs" / "samples")
    freshet(calm, "run", "train", "--until-end")
    shop.wait_for(lambda: current(shop.project) == current(calm))


def test_rollback_while_both_jobs_run_needs_no_restart(shop):
    shop.feed()
    shop.run("all")
    shop.wait_for(lambda: newest(shop.project))
    good = newest(shop.project)
    shop.feed(2)
    shop.wait_for(lambda: newest(shop.project)["log_time"] > good["log_time"])
    before = pd.Timestamp(good["log_time"]) + pd.Timedelta(seconds=1)
    freshet(shop.project, "rollback", "--before", before.isoformat())
    shop.feed(close=True)
    shop.wait_until_joined()
    shop.wait_for(lambda: newest(shop.project)["version"].startswith("g1/"))
    shop.wait_for(lambda: newest(shop.project)["samples_seen"] > good["samples_seen"])
    assert {row["state"] for row in freshet(shop.project, "status")["jobs"]} == {"RUNNING"}


MEASURED = {**SHARDED, "[telemetry]\n": "[telemetry]\nport = 0\n"}


@pytest.mark.parametrize("shop", [MEASURED], indirect=True)
def test_workers_answer_prometheus_and_one_that_follows_a_killed_one_takes_its_name(shop):
    def addresses():
        return sorted(path.stem for path in (shop.project / "state" / "telemetry").glob("*.json"))

    def told(job):
        return scrape(url_of(shop.project, next(name for name in addresses() if name.startswith(job))))

    shop.feed()
    shop.run("all")
    shop.wait_until_joined()
    shop.wait_for(lambda: len(addresses()) == 2)
    names = addresses()
    assert [name.partition("-")[0] for name in names] == ["samples", "train"]
    joined = len(samples_of(shop.project))
    shop.wait_for(lambda: sum(told("samples").all("freshet_join_samples_total").values()) == joined)
    shop.wait_for(lambda: sum(told("train").all("freshet_train_samples_total").values()) == joined)
    samples, train = told("samples"), told("train")
    assert set(samples.all("freshet_join_lag_records").values()) == {0}
    assert set(samples.all("freshet_shard_failures_total").values()) == {0}
    assert samples("freshet_join_round_seconds_count") > 0
    assert set(train.all("freshet_train_halted").values()) == {0}
    assert all(count > 0 for count in train.all("freshet_commit_seconds_count").values())
    began = {job: told(job)("process_start_time_seconds") for job in ("samples", "train")}
    for pid in workers(shop.cluster):
        os.kill(pid, signal.SIGKILL)
    shop.feed(close=True)
    shop.wait_until_joined()
    shop.wait_for(lambda: all(answers_since(shop, name, began[name.partition("-")[0]]) for name in names))
    assert addresses() == names
    shop.stop()
    shop.wait_for(lambda: addresses() == [])


def answers_since(shop, name, at):
    """Whether the process of that name is one that began after `at`."""
    try:
        return scrape(url_of(shop.project, name))("process_start_time_seconds") > at
    except OSError:
        return False


def test_job_that_restarts_for_ever_is_noticed_and_said(shop):
    shop.feed()
    shop.run("all")
    shop.wait_for(lambda: newest(shop.project))
    shop.stop()
    settings = shop.project / "freshet.toml"
    text = settings.read_text()
    assert "dim = 8" in text
    settings.write_text(text.replace("dim = 8", "dim = 16"))
    call("run", "train", "--runner", "flink", "--project", shop.project)
    shop.wait_for(lambda: shop.job("train")["unsettled"])
    assert shop.job("train")["last_failure"].startswith("MigrationError: ")
    said = call("status", "--project", shop.project).err
    assert "job train restarts again and again" in said
    assert "MigrationError" in said
    settings.write_text(text)
    shop.feed(close=True)
    learned = newest(shop.project)["samples_seen"]
    shop.run("samples")
    shop.wait_for(lambda: newest(shop.project)["samples_seen"] > learned)


def newest(project):
    """The version that is CURRENT of shard 0; None before the first commit."""
    return next((row for row in freshet(project, "versions")["versions"] if row["current"]), None)


def current(project):
    """Digest and position of CURRENT, by shard."""
    listed = freshet(project, "versions")["versions"]
    return [(row["digest"], row["position"]) for row in listed if row["current"]]
