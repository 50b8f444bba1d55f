"""Changes around jobs on Flink: configuration, parallelism, partitions, trimmed inputs.

The samples equal those of a run in process over the same logs with the same change at the same point.
"""

import re
import uuid

import numpy as np
import pyarrow as pa
import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewPartitions

from pipeline.arrays.keys import shard_of
from pipeline.cli.terminal.options import read_time
from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.flink_rest import FlinkRest
from pipeline.configuration.deployment.services import Cluster
from pipeline.configuration.project import Project
from pipeline.errors import LogError, OffsetError
from pipeline.flink.jobs import job_status
from pipeline.logs.open import open_log
from pipeline.process.clock import SystemClock
from pipeline.samples.run.in_process import SamplesJob
from tests.live.live_shop import SHARDED, Shop, change, copy_samples, current, reference_project, workers
from tests.support.command.command_line import call, samples_of, springtide
from tests.support.command.ports import free_port_range

COLOURED = {
    'position = "int"\n': 'position = "int"\ncolour = "string"\n',
    '[[fields]]\nname = "item"\n': '[[fields]]\nname = "colour"\ncolumns = ["colour"]\ndim = 4\n\n'
    '[[fields]]\nname = "item"\n',
}
COLOURS = ("red", "green", "blue")


def coloured(events):
    impressions, clicks = events
    return impressions.assign(colour=np.resize(COLOURS, len(impressions))), clicks


def test_join_continues_from_its_savepoint_with_a_column_and_a_field_more(shop):
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    (stopped,) = shop.stop()
    shop.change(COLOURED)
    shop.append(coloured(shop.next_events()), close=True)
    shop.join_twin()
    assert shop.run()["samples"]["from"] == stopped["savepoint"]
    shop.wait_until_joined()
    assert set(samples_of(shop.project)["colour"].dropna()) == set(COLOURS)


def test_trainer_continues_from_its_savepoint_once_migrated_to_a_field_more(shop):
    shop.feed()
    join_in_process(shop.project)
    shop.run("train")
    reference = reference_project(shop.project)
    springtide(reference, "run", "train", "--until-end")
    shop.wait_for(lambda: current(shop.project) == current(reference))
    (stopped,) = shop.stop()
    for folder in (shop.project, shop.twin, reference):
        change(folder, COLOURED)
    shop.append(coloured(shop.next_events()))
    join_in_process(shop.project)
    copy_samples(reference, shop.project)
    for folder in (shop.project, reference):
        springtide(folder, "run", "train", "--until-end", "--migrate")
    assert shop.run("train")["train"]["from"] == stopped["savepoint"]
    shop.append(coloured(shop.next_events()), close=True)
    join_in_process(shop.project)
    copy_samples(reference, shop.project)
    springtide(reference, "run", "train", "--until-end")
    shop.wait_for(lambda: current(shop.project) == current(reference))


def join_in_process(project):
    springtide(project, "run", "samples", "--until-end")


def set_parallelism(project, subtasks):
    """Set the number of subtasks of the jobs."""
    text = (project / "springtide.toml").read_text()
    others = [line for line in text.splitlines() if not line.startswith("parallelism = ")]
    (project / "springtide.toml").write_text("\n".join([*others, f"parallelism = {subtasks}", ""]))


def start_job(shop, job):
    """Start a job; returns its savepoint and the messages on stderr."""
    done = call("run", job, "--runner", "flink", "--project", shop.project, "--json")
    assert done.code == 0, done
    return done.result["jobs"][0]["from"], done.err


def busy_subtasks(shop, job, step):
    """Number of subtasks of a step that have read records."""
    rest = FlinkRest(shop.cluster.rest_url)
    id = shop.job(job)["id"]
    vertices = rest.get(f"/jobs/{id}")["vertices"]
    (found,) = [v["id"] for v in vertices if step in v["name"] and "PairWithRestriction" not in v["name"]]
    subtasks = rest.get(f"/jobs/{id}/vertices/{found}")["subtasks"]
    return sum(one["metrics"]["read-records"] > 0 for one in subtasks)


@pytest.mark.parametrize("shop", [SHARDED], indirect=True)
def test_join_continues_from_the_logs_with_two_subtasks_and_with_one_again(shop):
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    for before, subtasks in ((1, 2), (2, 1)):
        shop.stop()
        set_parallelism(shop.project, subtasks)
        shop.feed(close=subtasks == 1)
        savepoint, messages = start_job(shop, "samples")
        assert savepoint is None
        assert f"parallelism {before}, partitions 2; now " in messages
        assert "its savepoints are incompatible" in messages
        assert "job samples starts from the logs" in messages
        shop.wait_until_joined()
        shop.wait_for(lambda wanted=subtasks: busy_subtasks(shop, "samples", "join") == wanted)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A Flink cluster of two TaskManagers with eight slots, without a broker."""
    first = free_port_range(2)
    ports = {"flink_rest_port": first, "flink_rpc_port": first + 1}
    settings = Cluster(**ports, taskmanagers=2, taskmanager_slots=4, taskmanager_mb=768)
    made = LocalCluster(settings, tmp_path_factory.mktemp("wide"))
    try:
        made.up(["jobmanager", "taskmanager-1", "taskmanager-2"])
        yield made
    finally:
        made.down(wipe=True)


def test_four_subtasks_of_both_jobs_emit_and_learn_the_same_on_two_task_managers(wide, tmp_path):
    shop = Shop(tmp_path, wide, {"[logs]\n": "[logs]\npartitions = 2\nshards = 4\n"})
    set_parallelism(shop.project, 4)
    shop.feed(2)
    shop.run("all")
    shop.feed(2, close=True)
    shop.wait_until_joined()
    reference = reference_project(shop.project)
    springtide(reference, "run", "train", "--until-end")
    assert len(current(reference)) == 4
    shop.wait_for(lambda: current(shop.project) == current(reference))
    for job, step in (("samples", "join"), ("train", "train")):
        shop.wait_for(lambda job=job, step=step: busy_subtasks(shop, job, step) == 4)
    # Each TaskManager runs a worker of either job.
    assert len(workers(wide)) == 4
    shop.stop()


def events_of_partition(partition, events):
    """The events that belong to this one of two partitions."""
    return tuple(rows[of_partition(rows) == partition] for rows in events)


def of_partition(rows):
    return shard_of(pa.RecordBatch.from_pandas(rows[["impression_id"]], preserve_index=False), ("impression_id",), 2)


@pytest.mark.parametrize("shop", [SHARDED], indirect=True)
def test_windows_wait_for_an_idle_partition_until_a_heartbeat_as_in_process(shop):
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    for _ in range(2):
        shop.append(events_of_partition(0, shop.next_events()))
    shop.join_twin()
    shop.wait_until_joined()
    held = samples_of(shop.project)
    inputs = springtide(shop.twin, "status")["join"]["inputs"]
    watermarks = {name: read_time(at["watermark"]) for name, at in inputs.items()}
    assert watermarks["impressions/0"] > watermarks["impressions/1"] + 3_600_000
    assert held[held["kind"] == "negative"]["impression_at"].max() < watermarks["impressions/1"]
    shop.run_both("heartbeat", watermarks["impressions/0"])
    shop.join_twin()
    shop.wait_until_joined()
    assert len(samples_of(shop.project)) > len(held) + 100
    shop.feed(close=True)
    shop.wait_until_joined()


@pytest.fixture
def kafka_shop(cluster, tmp_path):
    """A shop whose logs are on Kafka, as are its twin's, and the names of both's inputs there."""
    prefix = uuid.uuid4().hex[:8]
    engine = f'[logs]\nengine = "kafka"\nbootstrap = "{cluster.bootstrap}"\npartitions = 1\nprefix = "{prefix}.live."\n'
    shop = Shop(tmp_path, cluster, {"[logs]\n": engine})
    change(shop.twin, {f'"{prefix}.live."': f'"{prefix}.twin."'})
    yield shop, [f"{prefix}.{who}.{topic}" for who in ("live", "twin") for topic in ("impressions", "clicks")]
    shop.stop()


def test_partition_that_is_added_stops_both_runners_by_name_and_is_read_once_configured(cluster, kafka_shop):
    shop, inputs = kafka_shop
    error = (
        r"topic (impressions|clicks) has 2 partitions, 1 are read\. hint: springtide stop, set logs\.partitions to 2"
    )
    shop.feed()
    job = shop.run()["samples"]["id"]
    shop.wait_until_joined()
    project = Project.open(shop.twin)
    in_process = SamplesJob(project, open_log(project))
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        admin.create_partitions({topic: NewPartitions(2) for topic in inputs})
    SystemClock().wait(1.1)  # partition counts are cached for a second
    with pytest.raises(LogError, match="topic impressions has 2 partitions, 1 are read"):
        in_process.catch_up()
    in_process.close()
    refused = call("status", "--project", shop.project, "--json")
    assert refused.code == LogError.exit_code
    assert re.search(error, refused.result["log_problem"])
    rest, now_ms = FlinkRest(cluster.rest_url), SystemClock().now_ms()
    failed = lambda: re.match(f"LogError: {error}", job_status(rest, job, now_ms).last_failure or "")  # noqa: E731
    shop.change({"partitions = 1\n": "partitions = 2\n"})
    shop.wait_for(failed)
    shop.stop()
    shop.feed(2, close=True)
    savepoint, messages = start_job(shop, "samples")
    assert savepoint is None
    assert "its savepoints are incompatible" in messages
    shop.wait_until_joined()
    assert set(samples_of(shop.project)["impression_partition"]) == {0, 1}


def trim_inputs(project, before):
    log = open_log(Project.open(project))
    for topic in ("impressions", "clicks"):
        log.trim(topic, 0, before)
    log.close()


def test_input_trimmed_while_the_join_was_stopped_is_reported_and_skipped_on_command(shop):
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    shop.wait_for(lambda: {at["lag"] for at in springtide(shop.project, "status")["join"]["inputs"].values()} == {0})
    shop.stop()
    for _ in range(2):
        shop.append(shop.next_events())
    for folder in (shop.project, shop.twin):
        trim_inputs(folder, 2)
    assert call("run", "samples", "--until-end", "--project", shop.twin).code == OffsetError.exit_code
    call("run", "samples", "--runner", "flink", "--project", shop.project)
    error = r"OffsetError: partition (impressions|clicks)/0 begins at offset 2, offset 1 was removed"
    shop.wait_for(lambda: re.match(error, shop.job()["last_failure"] or ""))
    shop.stop()
    gone = [{"topic": topic, "from_offset": 1, "to_offset": 2} for topic in ("impressions", "clicks")]
    for done in shop.run_both("skip"):
        assert [{name: row[name] for name in gone[0]} for row in done["skipped"]] == gone
    shop.feed(close=True)
    assert shop.run("samples", "--from-logs")["samples"]["from"] is None
    shop.wait_until_joined()
