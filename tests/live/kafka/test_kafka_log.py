"""The log on a real broker: the contract of every engine, and the behaviour that only Kafka has."""

import os
import signal
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from kafka import KafkaProducer

from pipeline.configuration.project import Project
from pipeline.errors import FencedError, LogError, LogReplacedError, OffsetError
from pipeline.logs.interface.end_offsets import EndOffsets
from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.interface.topic_specs import partition_counts
from pipeline.logs.kafka.kafka_log import KafkaLog
from pipeline.logs.kafka.reader import KafkaReader
from pipeline.logs.kafka.settings import KafkaSettings
from pipeline.telemetry import exporter
from tests.live.everything import everything
from tests.support.command.command_line import call, make_events, make_shop, springtide
from tests.support.command.scrape import parsed
from tests.support.world.log_contract import LogContract

ONE, ALL = ReadLimits(records=1), ReadLimits()


@pytest.fixture
def reading(log):
    return lambda: log


class TestKafka(LogContract):
    pass


class TestFences:
    def test_a_zombie_is_fenced_for_good(self, log, another):
        first = log.acquire_fence("t", 0)
        log.append("t", 0, [b"before"], fence=first)
        second = another.acquire_fence("t", 0)
        for _ in range(2):
            with pytest.raises(FencedError, match="writer of t/0 is fenced"):
                log.append("t", 0, [b"zombie"], fence=first)
        another.append("t", 0, [b"after"], fence=second)
        assert [r.value for r in everything(log)] == [b"before", b"after"]

    def test_a_second_fence_in_one_process_invalidates_the_first(self, log):
        first, second = log.acquire_fence("t", 0), log.acquire_fence("t", 0)
        with pytest.raises(FencedError):
            log.append("t", 0, [b"x"], fence=first)
        assert log.append("t", 0, [b"y"], fence=second) >= 0

    def test_a_later_fence_has_a_greater_epoch_in_any_process(self, log, another):
        epochs = [taken_by.acquire_fence("t", 0).epoch for taken_by in (log, another, another, log)]
        assert epochs == sorted(set(epochs))

    def test_fences_of_two_partitions_are_independent(self, log):
        fences = [log.acquire_fence("t", p) for p in (0, 1)]
        for p, fence in enumerate(fences):
            log.append("t", p, [b"x"], fence=fence)
        with pytest.raises(LogError, match="fence of t/0 cannot append to t/1"):
            log.append("t", 1, [b"x"], fence=fences[0])

    def test_a_fence_of_a_topic_that_was_created_again_is_refused(self, log):
        fence, log_id = log.acquire_fence("t", 0), log.log_id("t")
        log.delete_topic("t")
        log.create_topic("t", 2)
        assert log.log_id("t") != log_id
        with pytest.raises(LogReplacedError, match=f"the fence is of {log_id}"):
            log.append("t", 0, [b"x"], fence=fence)

    def test_a_topic_recreated_by_another_process_is_noticed_within_a_second(self, log, another, clock):
        fence, log_id = log.acquire_fence("t", 0), log.log_id("t")
        another.delete_topic("t")
        another.create_topic("t", 3)
        clock.wait(1.1)
        with pytest.raises(LogReplacedError, match=f"the fence is of {log_id}"):
            log.append("t", 0, [b"x"], fence=fence)
        assert log.partitions("t") == 3

    def test_the_values_of_a_fenced_append_are_contiguous(self, log):
        fence = log.acquire_fence("t", 0)
        starts = [log.append("t", 0, [b"%d" % n] * 3, fence=fence, headers={"n": str(n)}) for n in range(4)]
        found = everything(log)
        assert [r.offset for r in found] == [s + i for s in starts for i in range(3)]
        assert [(r.value, r.headers["n"]) for r in found] == [(b"%d" % n, str(n)) for n in range(4) for _ in range(3)]


DEAD_WRITER = """
import sys, time
from kafka import KafkaProducer
bootstrap, name, topic, timeout_ms = sys.argv[1:]
producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=name, transaction_timeout_ms=int(timeout_ms))
producer.init_transactions()
producer.begin_transaction()
producer.send(topic, b"never committed", partition=0).get(timeout=20)
print("open", flush=True)
time.sleep(600)
"""


@pytest.fixture
def dead_writer(log, settings):
    """Leaves a transaction open in t/0 and dies; the arguments are its transactional id and its timeout."""

    def die(name: str, timeout_ms: int) -> None:
        arguments = [settings.bootstrap, name, settings.prefix + "t", str(timeout_ms)]
        writer = subprocess.Popen([sys.executable, "-c", DEAD_WRITER, *arguments], stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "open\n"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()

    return die


class TestDeadWriters:
    def test_acquiring_the_fence_aborts_the_open_transaction(self, log, another, settings, dead_writer):
        dead_writer(f"springtide/{settings.prefix}t/0/{log.log_id('t')}", 600_000)
        log.append("t", 0, [b"other"])
        assert (log.end_offset("t", 0), log.read("t", 0, 0)) == (0, [])
        fence = another.acquire_fence("t", 0)
        # No transaction is open any more, so all records can be read.
        assert [r.value for r in everything(another)] == [b"other"]
        another.append("t", 0, [b"mine"], fence=fence)
        assert [r.value for r in everything(log)] == [b"other", b"mine"]

    def test_without_a_new_fence_the_cluster_aborts_it_after_the_timeout(self, log, dead_writer, clock):
        dead_writer("another writer", 1_000)
        log.append("t", 0, [b"other"])
        assert log.read("t", 0, 0) == []
        ends_s = clock.monotonic_s() + 40
        while not (found := log.read("t", 0, 0, ReadLimits(wait_ms=500))):
            assert clock.monotonic_s() < ends_s
        assert [r.value for r in found] == [b"other"]

    def test_a_read_may_start_inside_an_open_transaction_but_not_beyond_it(self, log, dead_writer):
        dead_writer("another writer", 600_000)
        assert log.read("t", 0, 1) == []
        with pytest.raises(OffsetError, match="t/0 ends at offset 1, offset 2"):
            log.read("t", 0, 2)


class TestGaps:
    def test_a_read_may_start_on_a_gap(self, log):
        fence = log.acquire_fence("t", 0)
        starts = [log.append("t", 0, [b"%d" % n], fence=fence) for n in range(3)]
        assert starts == [0, 2, 4]
        assert [log.read("t", 0, at, ONE)[0].offset for at in range(5)] == [0, 2, 2, 4, 4]
        assert log.end_offset("t", 0) == 6
        assert log.read("t", 0, 5) == []
        assert log.read("t", 0, 6) == []

    def test_aborted_records_are_skipped_and_do_not_end_a_read(self, log, settings):
        producer = KafkaProducer(bootstrap_servers=settings.bootstrap, transactional_id=uuid.uuid4().hex)
        producer.init_transactions()
        for n in range(30):
            producer.begin_transaction()
            producer.send(settings.prefix + "t", os.urandom(1 << 19), partition=0).get(timeout=20)
            (producer.abort_transaction if n % 10 else producer.commit_transaction)()
        producer.close()
        # Some fetches return aborted records only.
        assert [r.offset for r in everything(log)] == [0, 20, 40]

    def test_a_read_of_an_offset_trimmed_meanwhile_is_refused(self, log, another):
        log.append("t", 0, [b"%d" % n for n in range(6)])
        log.read("t", 0, 0, ReadLimits(records=2))
        another.trim("t", 0, 5)
        with pytest.raises(OffsetError, match="begins at offset 5, offset 1 was removed"):
            log.read("t", 0, 1)
        assert [r.offset for r in log.read("t", 0, 5)] == [5]


class TestForeignProducers:
    @pytest.mark.parametrize("compression", [None, "gzip", "lz4", "zstd"])
    def test_every_compression_is_read(self, log, settings, compression):
        producer = KafkaProducer(bootstrap_servers=settings.bootstrap, compression_type=compression, linger_ms=20)
        values = [b"event %d " % n * 40 for n in range(500)]
        for value in values:
            producer.send(settings.prefix + "t", value, partition=0)
        producer.close()
        assert [r.value for r in everything(log)] == values
        # A start inside a compressed batch drops the records before it.
        assert log.read("t", 0, 250, ONE)[0].value == values[250]

    def test_invalid_text_in_headers_is_replaced_and_a_missing_value_is_empty(self, log, settings):
        producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
        producer.send(settings.prefix + "t", key=b"k", headers=[("a", b"\xff"), ("b", b"1"), ("b", b"2")], partition=0)
        producer.close()
        (found,) = everything(log)
        assert (found.value, found.headers) == (b"", {"a": "�", "b": "2"})

    @pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
    def test_every_compression_is_written(self, settings, clock, compression):
        log = KafkaLog(KafkaSettings(settings.bootstrap, settings.prefix, compression=compression), clock)
        log.create_topic("t", 1)
        log.append("t", 0, [b"x" * 1000] * 100)
        assert [r.value for r in everything(log)] == [b"x" * 1000] * 100
        log.close()


class TestSizes:
    def test_a_record_larger_than_a_fetch_is_read(self, log):
        value = os.urandom(9 << 20)
        log.append("t", 0, [b"before", value, b"after"])
        assert [r.value for r in everything(log)] == [b"before", value, b"after"]

    def test_values_that_do_not_fit_one_batch_are_one_append(self, log):
        values = [os.urandom(1 << 20) for _ in range(40)]
        log.append("t", 0, values)
        assert [r.value for r in everything(log)] == values

    def test_a_too_large_record_is_named_and_the_next_one_is_appended(self, settings, clock):
        log = KafkaLog(KafkaSettings(settings.bootstrap, settings.prefix, max_record_bytes=100_000), clock)
        log.create_topic("t", 1)
        fence = log.acquire_fence("t", 0)
        for held in (None, fence):
            with pytest.raises(LogError, match=r"200000 bytes is too large for topic t: logs\.max_record_bytes is"):
                log.append("t", 0, [bytes(200_000)], fence=held)
            log.append("t", 0, [b"small"], fence=held)
        assert [r.value for r in everything(log)] == [b"small"] * 2
        log.close()

    def test_a_record_that_the_broker_rejects_as_too_large_fails_the_writer_only(self, log):
        log.change_settings("t", {"max.message.bytes": "1000"})
        fence = log.acquire_fence("t", 0)
        for held in (None, fence):
            with pytest.raises(LogError, match=r"topic t rejects a record: .*raise max.message.bytes"):
                log.append("t", 0, [os.urandom(5_000)], fence=held)
        with pytest.raises(LogError, match="topic t rejects a record"):
            log.append("t", 0, [b"small"], fence=fence)
        log.append("t", 0, [b"small"])
        log.append("t", 0, [b"small"], fence=log.acquire_fence("t", 0))
        assert [r.value for r in everything(log)] == [b"small"] * 2


class TestOutages:
    def test_no_record_is_lost_or_duplicated_when_the_broker_is_killed(self, log, broker):
        wanted = [b"%d" % n for n in range(300)]
        fence = log.acquire_fence("t", 0)
        failures = []

        def append() -> None:
            try:
                for n, value in enumerate(wanted):
                    log.append("t", 0, [value], fence=fence if n % 2 else None)
            except Exception as failure:
                failures.append(failure)

        writer = threading.Thread(target=append)
        writer.start()
        found, at, killed = [], 0, 0
        while len(found) < len(wanted) and not failures:
            records = log.read("t", 0, at, ReadLimits(wait_ms=200))
            found += [r.value for r in records]
            at = records[-1].offset + 1 if records else at
            if len(found) > 100 * (killed + 1) and killed < 2:
                killed += 1
                broker.kill("kafka")
                broker.start("kafka")
        writer.join()
        assert (failures, killed) == ([], 2)
        assert found == wanted

    def test_fenced_appends_that_began_without_a_broker_succeed_after_its_restart(self, log, broker, clock):
        log.create_topic("many", 8)
        fences = [log.acquire_fence("many", partition) for partition in range(8)]
        for partition, fence in enumerate(fences):
            log.append("many", partition, [b"before"], fence=fence)
        broker.kill("kafka")
        with ThreadPoolExecutor(8) as threads:
            appends = [threads.submit(log.append, "many", n, [b"after"], fence=fence) for n, fence in enumerate(fences)]
            clock.wait(0.5)
            broker.start("kafka")
            assert [append.exception() for append in appends] == [None] * 8
        for partition in range(8):
            assert [r.value for r in everything(log, "many", partition)] == [b"before", b"after"]

    def test_the_waiting_time_is_reported_while_a_call_waits_for_an_unavailable_broker(self, log, broker, clock):
        def metric(name, **labels):
            return parsed(exporter.metrics_text().decode())(name, **labels)

        log.append("t", 0, [b"before"])
        assert log.read("t", 0, 0)
        counted = metric("springtide_log_append_seconds_count", topic="t")
        assert counted >= 1
        assert metric("springtide_log_read_seconds_count", topic="t") >= 1
        broker.kill("kafka")
        writer = threading.Thread(target=log.append, args=("t", 0, [b"after"]))
        writer.start()
        ends_s = clock.monotonic_s() + 20
        while metric("springtide_log_waiting_seconds") < 2 and clock.monotonic_s() < ends_s:
            clock.wait(0.1)
        assert 2 <= metric("springtide_log_waiting_seconds") < 20
        # A reader of end offsets does not wait.
        ends, began_s = EndOffsets(log), clock.monotonic_s()
        assert ends.end_offset("t", 0) is None
        assert ends.lag("t", 0, 0) is None
        assert clock.monotonic_s() - began_s < 10
        broker.start("kafka")
        writer.join()
        while (end := ends.end_offset("t", 0)) is None:
            clock.wait(0.1)
        assert end == log.end_offset("t", 0)
        assert metric("springtide_log_waiting_seconds") < 1
        assert metric("springtide_log_append_seconds_count", topic="t") == counted + 1
        assert [r.value for r in everything(log)] == [b"before", b"after"]

    def test_the_error_of_an_unavailable_broker_contains_the_time(self, settings, clock, broker):
        log = KafkaLog(KafkaSettings(settings.bootstrap, settings.prefix, retry_timeout_s=2.0), clock)
        log.create_topic("t", 1)
        fence = log.acquire_fence("t", 0)
        log.append("t", 0, [b"a"])
        log.read("t", 0, 0)
        broker.kill("kafka")
        try:
            for call in (
                lambda: log.read("t", 0, 1),
                lambda: log.end_offset("t", 0),
                lambda: log.append("t", 0, [b"b"]),
                lambda: log.append("t", 0, [b"b"], fence=fence),
            ):
                began_s = clock.monotonic_s()
                with pytest.raises(
                    LogError, match=rf"kafka at {settings.bootstrap}: could not .*t.*, retried for \d+\.\d s"
                ):
                    call()
                assert clock.monotonic_s() - began_s < 30
        finally:
            broker.start("kafka")
            log.close()

    def test_a_stalled_consumer_is_replaced_until_the_retry_timeout(self, log, settings, clock):
        short = KafkaSettings(settings.bootstrap, settings.prefix, retry_timeout_s=3.0, stall_s=0.5)
        reader = KafkaReader(short, clock, "t", 0)
        with pytest.raises(LogError, match=r"read t/0, retried for 3.* no record was received at offset 0 although"):
            reader.read(0, ReadLimits(), lambda: 1)
        assert reader.rebuilds >= 2
        log.append("t", 0, [b"a"])
        assert [r.value for r in reader.read(0, ReadLimits(), lambda: 1)] == [b"a"]
        reader.close()


class TestProcesses:
    def test_a_forked_process_cannot_use_the_log(self, log):
        child = os.fork()
        if child == 0:
            try:
                log.topics()
            except LogError as failure:
                os._exit(3 if "open it after the fork" in str(failure) else 4)
            os._exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3

    def test_threads_share_the_log(self, log):
        failures = []

        def work(partition: int) -> None:
            try:
                at = 0
                for n in range(40):
                    log.append("t", partition, [b"%d" % n])
                    (record,) = log.read("t", partition, at, ReadLimits(records=1, wait_ms=5_000))
                    assert record.value == b"%d" % n
                    at = record.offset + 1
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=work, args=(p,)) for p in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []

    def test_topics_of_another_prefix_are_not_seen(self, log, settings, clock):
        other = KafkaLog(KafkaSettings(settings.bootstrap, prefix=uuid.uuid4().hex), clock)
        assert (log.topics(), other.topics()) == (["t"], [])
        other.close()


@pytest.fixture
def shop(tmp_path, settings):
    """A project on the broker, with its own topics."""
    engine = f'[logs]\nengine = "kafka"\nbootstrap = "{settings.bootstrap}"\nprefix = "{settings.prefix}"'
    return make_shop(tmp_path / "shop", {"[logs]": engine + "\noutage_s = 1000"})


class TestTopics:
    def test_topics_are_planned_then_created_and_then_need_no_change(self, shop, settings, clock):
        planned = springtide(shop, "topics", "create", "--dry-run")
        assert planned["would_change"] == []
        names = [row["topic"] for row in planned["would_create"]]
        assert sorted(names) == sorted(partition_counts(Project.open(shop).config))
        made = springtide(shop, "topics", "create")
        assert made == {"created": planned["would_create"], "changed": []}
        assert springtide(shop, "topics", "create") == {"created": [], "changed": []}
        log = KafkaLog(settings, clock)
        assert log.topics() == sorted(names)
        values = log.settings_of("clicks")
        assert (values["retention.ms"], values["message.timestamp.type"]) == ("5830000", "LogAppendTime")
        log.close()

    def test_too_short_retention_is_logged_at_start_and_corrected_by_the_command(self, shop, settings, clock):
        springtide(shop, "topics", "create")
        log = KafkaLog(settings, clock)
        log.change_settings("clicks", {"retention.ms": "5000"})
        logged = call("status", "--project", shop, "--json").err
        assert "topic clicks has retention.ms 5000, 5830000 is wanted: window 600 s + horizon 3600 s" in logged
        assert "run: springtide topics create" in logged
        (changed,) = springtide(shop, "topics", "create")["changed"]
        assert (changed["topic"], changed["found"], changed["wanted"]) == ("clicks", "5000", "5830000")
        assert log.settings_of("clicks")["retention.ms"] == "5830000"
        log.close()

    def test_topics_that_exist_are_used_and_their_settings_can_be_kept(self, shop, settings, clock):
        log = KafkaLog(settings, clock)
        for topic in ("impressions", "clicks"):
            log.create_topic(topic, 1)
        log.change_settings("clicks", {"retention.ms": "5000"})
        found = springtide(shop, "topics", "create", "--keep-settings")
        assert {row["topic"] for row in found["differs"]} == {"clicks"}
        assert "clicks" not in {row["topic"] for row in found["created"]}
        assert log.settings_of("clicks")["retention.ms"] == "5000"
        log.delete_topic("clicks")
        log.create_topic("clicks", 3)
        refused = call("topics", "create", "--project", shop)
        assert (refused.code, "topic clicks has 3 partitions, 1 are wanted" in refused.err) == (4, True)
        log.close()

    def test_a_complete_round_of_the_shop_runs_on_kafka(self, shop):
        impressions, clicks = make_events(seed=1, rows=400)
        for kind, events in (("impressions", impressions), ("clicks", clicks)):
            events.to_parquet(shop / f"{kind}.parquet")
            springtide(shop, "ingest", kind, shop / f"{kind}.parquet")
        springtide(shop, "heartbeat", "2026-01-01T00:00:00Z")
        done = springtide(shop, "run", "samples", "--until-end")
        assert sum(done["samples"].values()) >= 400, done
        assert springtide(shop, "run", "train", "--until-end")
        # The commit marker of the last transaction is no record, so the lag is 0.
        (shard,) = springtide(shop, "status")["trainer"]
        assert (shard["lag_records"], shard["samples_seen"]) == (0, sum(done["samples"].values()))
