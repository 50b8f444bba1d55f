"""The Kafka programs of the pages in `schemas/` on a real broker."""

import pytest

from pipeline.configuration.project import Project
from pipeline.logs.kafka.kafka_log import KafkaLog
from tests.support.command.command_line import make_shop, springtide
from tests.support.page import SCHEMAS, page, program, run
from tests.support.world.stored_paths import path_of

SEED = '"127.0.0.1:9092"'


@pytest.fixture
def shop(tmp_path, settings):
    engine = (
        f'[logs]\nengine = "kafka"\nbootstrap = "{settings.bootstrap}"\nprefix = "{settings.prefix}"\npartitions = 2'
    )
    return make_shop(tmp_path / "shop", {"[logs]": engine})


def test_the_producer_and_the_consumer_of_the_pages_work_on_kafka(shop, settings, clock, monkeypatch):
    springtide(shop, "topics", "create")
    events, deltas = page("events.md"), page("deltas.md")
    kafka = program(events, "kafka").replace(SEED, f'"{settings.bootstrap}"')
    assert SEED not in kafka
    for name in ("schemas", "impressions", "clicks"):  # the page's topics have no prefix
        kafka = kafka.replace(f'"{name}"', f'"{settings.prefix}{name}"')
    exec(compile(kafka, "kafka", "exec"), run(events, "producer"))
    done = springtide(shop, "run", "samples", "--until-end")
    assert (sum(done["samples"].values()), done["samples"]["positive"], done["dead_letters"]) == (100, 10, {})
    springtide(shop, "run", "train", "--until-end")
    monkeypatch.chdir(SCHEMAS)
    consumer = run(deltas, "stream", "dense", "consumer", "kafka")
    shard, project = consumer["Shard"](), Project.open(shop)
    read = consumer["kafka_reader"](settings.bootstrap, f"{settings.prefix}deltas", 0)
    consumer["catch_up"](shard, read, 0, path_of(project.published))
    (status,) = springtide(shop, "status")["trainer"]
    assert f"g{shard.version[0]}/s0-of-1/{shard.version[1]}" == status["version"]
    log = KafkaLog(settings, clock)
    assert len(log.read("deltas", 0, 0)) > 0
    log.close()
