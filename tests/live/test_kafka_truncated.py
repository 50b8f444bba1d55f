"""A broker that lost the end of its log, as by an unclean election: who had read further says so, and reads nothing."""

import struct

import pytest

from pipeline.errors import OffsetError
from pipeline.logs.kafka.kafka_log import KafkaLog
from pipeline.logs.kafka.settings import KafkaSettings
from tests.live.everything import everything
from tests.live.own_broker import own_broker

WRITTEN, KEPT = 50, 30


@pytest.fixture
def forgetful(tmp_path):
    with own_broker(tmp_path, {}) as made:
        yield made


@pytest.fixture
def reading(forgetful, clock):
    """A log whose readers have read all that was written, and the broker has lost what was written last."""
    log = KafkaLog(KafkaSettings(forgetful.bootstrap, retry_timeout_s=60.0), clock)
    log.create_topic("t", 1)
    for n in range(WRITTEN):
        log.append("t", 0, [b"%d" % n])
    assert len(everything(log, "t", 0)) == log.read_run("t", 0, 0).next_offset == WRITTEN
    forgetful.kill()
    cut_log(forgetful.data / "t-0" / f"{0:020}.log", KEPT)
    forgetful.start({})
    yield log
    log.close()


def cut_log(path, offset):
    """Take the batches from `offset` on away, as a disk does that lied about what it had written."""
    held, at = path.read_bytes(), 0
    while struct.unpack_from(">q", held, at)[0] < offset:
        at += 12 + struct.unpack_from(">i", held, at + 8)[0]
    path.write_bytes(held[:at])


@pytest.mark.parametrize("way", ["read", "read_run"])
def test_who_has_read_beyond_the_end_says_so(reading, way):
    with pytest.raises(OffsetError, match=f"ends at offset {KEPT}, offset {WRITTEN} does not exist"):
        getattr(reading, way)("t", 0, WRITTEN)


def test_who_has_read_what_was_replaced_since_says_so(reading, forgetful, clock):
    again = KafkaLog(KafkaSettings(forgetful.bootstrap), clock)
    for n in range(WRITTEN):
        again.append("t", 0, [b"other %d" % n])
    again.close()
    with pytest.raises(OffsetError, match="read t/0: records that were read no longer exist, and others may have"):
        reading.read("t", 0, WRITTEN)
