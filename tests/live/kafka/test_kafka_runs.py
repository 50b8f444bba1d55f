"""Runs of records decoded natively from a real broker: the contract of the log, and equality with plain consumers."""

import os
import random
import threading
import uuid
from dataclasses import dataclass

import pyarrow.parquet as pq
import pytest
from kafka import KafkaProducer

from pipeline.configuration.project import Project
from pipeline.errors import OffsetError
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.kafka.kafka_log import KafkaLog
from pipeline.logs.open import open_log
from tests.benchmarks.native import kafka
from tests.live.everything import everything
from tests.support.command.command_line import make_events, make_shop, springtide
from tests.support.world.log_contract import LogContract

ONE, ALL = ReadLimits(records=1), ReadLimits()


@dataclass(frozen=True)
class ByRuns:
    """A log whose `read` returns the records of a natively decoded run."""

    log: KafkaLog

    def read(self, topic, partition, start, limits=ALL):
        return list(self.log.read_run(topic, partition, start, limits))

    def __getattr__(self, name):
        return getattr(self.log, name)


class TestKafkaByRuns(LogContract):
    @pytest.fixture
    def reading(self, log):
        return lambda: ByRuns(log)

    def test_records_may_have_keys_and_an_empty_value_with_a_key_comes_back(self, log, reading):
        """Runs have no keys; a null is an empty value."""
        log.append("t", 0, [b"a", b"", b"c"], keys=[b"k", b"k", b"\xff"])
        found = reading().read("t", 0, 0)
        assert [(r.key, r.value) for r in found] == [(None, b"a"), (None, b""), (None, b"c")]
        assert [r.key for r in log.read("t", 0, 0)] == [b"k", b"k", b"\xff"]


def every_run(log, limits, topic="t"):
    """All records of a partition, read as runs; each run starts at the next offset of the one before."""
    at, end, found = log.begin_offset(topic, 0), log.end_offset(topic, 0), []
    while at < end:
        run = log.read_run(topic, 0, at, limits)
        assert run.next_offset > at
        found += run
        at = run.next_offset
    return found


class TestRunsEqualTheRecordsOfThePlainConsumer:
    @pytest.mark.parametrize("limits", [ReadLimits(), ReadLimits(records=7), ReadLimits(max_bytes=3_000)])
    def test_for_transactions_of_every_kind_codec_and_size(self, log, settings, limits):
        chance = random.Random(3)
        for round, codec in enumerate(["lz4", "zstd", "gzip", None] * 3):
            producer = KafkaProducer(
                bootstrap_servers=settings.bootstrap,
                transactional_id=uuid.uuid4().hex,
                compression_type=codec,
                batch_size=chance.choice([1, 1_000, 100_000]),
                linger_ms=5,
            )
            producer.init_transactions()
            for end in (producer.commit_transaction, producer.abort_transaction, producer.commit_transaction):
                producer.begin_transaction()
                for n in range(chance.randrange(1, 60)):
                    headers = [("round", b"%d" % round)] if n % 5 == 0 else []
                    producer.send(settings.prefix + "t", chance.randbytes(chance.randrange(900)), None, headers, 0)
                    if n % 7 == 0:
                        log.append("t", 0, [b"between"])
                end()
            producer.close()
        wanted = everything(log)
        assert len(wanted) > 300
        assert every_run(log, limits) == wanted
        starts = chance.sample(range(log.end_offset("t", 0)), 20)
        assert [list(log.read_run("t", 0, at, ONE)) for at in starts] == [log.read("t", 0, at, ONE) for at in starts]

    def test_for_records_larger_than_a_fetch(self, log):
        for size in (9 << 20, 5 << 20):
            log.append("t", 0, [b"before", os.urandom(size), b"after"])
        wanted = everything(log)
        assert [len(r.value) for r in wanted] == [6, 9 << 20, 5, 6, 5 << 20, 5]
        assert every_run(log, ReadLimits()) == every_run(log, ONE) == wanted

    def test_removed_and_missing_offsets_are_named(self, log):
        log.append("t", 0, [b"a", b"b", b"c"])
        log.trim("t", 0, 2)
        for start, message in (
            (1, "begins at offset 2, offset 1 was removed"),
            (4, "ends at offset 3, offset 4"),
            (-1, "was removed"),
        ):
            with pytest.raises(OffsetError, match=message):
                log.read_run("t", 0, start)

    def test_a_run_waits_for_a_first_record(self, log, another):
        threading.Timer(0.3, lambda: another.append("t", 0, [b"late"])).start()
        assert log.read_run("t", 0, 0, ReadLimits(wait_ms=20_000))[0].value == b"late"
        assert len(log.read_run("t", 0, 1, ReadLimits(wait_ms=200))) == 0

    def test_reading_continues_after_the_broker_was_killed(self, log, broker):
        log.append("t", 0, [b"a"])
        assert len(log.read_run("t", 0, 0)) == 1
        broker.kill("kafka")
        starter = threading.Thread(target=broker.start, args=("kafka",))
        starter.start()
        assert [r.value for r in log.read_run("t", 0, 0)] == [b"a"]
        starter.join()


class TestSource:
    def test_a_round_over_single_events_gives_the_samples_of_the_embedded_log(self, tmp_path, settings):
        """The same events, one per record, read as runs from Kafka and as records from SQLite."""
        impressions, clicks = make_events(seed=2, rows=300)
        on_kafka = f'[logs]\nengine = "kafka"\nbootstrap = "{settings.bootstrap}"\nprefix = "{settings.prefix}"'
        tables = []
        for name, engine in (("sqlite", "[logs]"), ("kafka", on_kafka)):
            shop = make_shop(tmp_path / name, {"[logs]": engine})
            opened = Project.open(shop)
            log = open_log(opened)
            for kind, events in (("impressions", impressions), ("clicks", clicks)):
                codec = EventCodec(opened.config.events, kind, log)
                rows = events.to_dict("records")
                log.append(kind, 0, [codec.encode_event(int(row.pop("at")), row) for row in rows] + [b"no event"])
            log.close()
            springtide(shop, "heartbeat", "2026-01-01T00:00:00Z")
            done = springtide(shop, "run", "samples", "--until-end")
            springtide(shop, "export", "samples", "--out", shop / "samples.parquet")
            columns = [c for c in pq.read_schema(shop / "samples.parquet").names if "offset" not in c]
            tables.append((done["samples"], pq.read_table(shop / "samples.parquet").select(columns)))
        assert tables[0][0] == tables[1][0]
        assert tables[0][1].num_rows >= 300
        assert tables[0][1].equals(tables[1][1])


def test_the_benchmark_runs_and_reads_every_event():
    results = kafka.measure(quick=True, rounds=1)
    assert len(results) == 6
    assert all(result.value > 0 and result.ratio > 1 for result in results)
