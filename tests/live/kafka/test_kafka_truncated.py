"""A broker that lost the end of its log, as by an unclean leader election: readers beyond the new end get an error."""

import struct

import pytest

from pipeline.errors import OffsetError
from pipeline.logs.kafka.kafka_log import KafkaLog
from pipeline.logs.kafka.settings import KafkaSettings
from tests.live.everything import everything
from tests.live.own_broker import own_broker

WRITTEN, KEPT = 50, 30


@pytest.fixture
def truncated_broker(tmp_path):
    with own_broker(tmp_path, {}) as broker:
        yield broker


@pytest.fixture
def reading(truncated_broker, clock):
    """A log whose readers have read all records, after the broker lost the last ones."""
    log = KafkaLog(KafkaSettings(truncated_broker.bootstrap, retry_timeout_s=60.0), clock)
    log.create_topic("t", 1)
    for n in range(WRITTEN):
        log.append("t", 0, [b"%d" % n])
    assert len(everything(log, "t", 0)) == log.read_run("t", 0, 0).next_offset == WRITTEN
    truncated_broker.kill()
    cut_log(truncated_broker.data / "t-0" / f"{0:020}.log", KEPT)
    truncated_broker.start({})
    yield log
    log.close()


def cut_log(path, offset):
    """Remove the batches from `offset` on, as a disk that lost acknowledged writes does."""
    content, at = path.read_bytes(), 0
    while struct.unpack_from(">q", content, at)[0] < offset:
        at += 12 + struct.unpack_from(">i", content, at + 8)[0]
    path.write_bytes(content[:at])


@pytest.mark.parametrize("method", ["read", "read_run"])
def test_a_reader_beyond_the_truncated_end_gets_an_error(reading, method):
    with pytest.raises(OffsetError, match=f"ends at offset {KEPT}, offset {WRITTEN} does not exist"):
        getattr(reading, method)("t", 0, WRITTEN)


def test_a_reader_of_replaced_records_gets_an_error(reading, truncated_broker, clock):
    again = KafkaLog(KafkaSettings(truncated_broker.bootstrap), clock)
    for n in range(WRITTEN):
        again.append("t", 0, [b"other %d" % n])
    again.close()
    with pytest.raises(OffsetError, match="read t/0: records that were read no longer exist, and others may have"):
        reading.read("t", 0, WRITTEN)
