"""Dead letters of the join take their original bytes from the log, many with one read."""

import pyarrow as pa
import pytest

from pipeline.configuration.streams.events import Events
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.dead_letters import dead_letters
from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.samples.run.original_records import with_originals
from tests.support.manual_clock import ManualClock

EVENTS = Events.model_validate(
    {"key": ["id"], "impressions": {"columns": {"id": "int"}}, "clicks": {"columns": {"id": "int"}}}
)


class CountingLog(SqliteLog):
    """Notes where it was read."""

    def read(self, topic, partition, start, limits=ReadLimits()):  # noqa: B008 - as the log has it
        self.reads = [*getattr(self, "reads", []), start]
        return super().read(topic, partition, start, limits)


@pytest.fixture
def log(tmp_path):
    made = CountingLog(tmp_path, ManualClock())
    made.create_topic("clicks", 2)
    yield made
    made.close()


def letter(offset, row=0, partition=0):
    place = {"topic": "clicks", "partition": partition, "offset": offset, "row": row}
    return {"reason": "orphan_click", **place, "event_at": 1, "detail": "", "original": b"json"}


def originals(log, letters):
    return with_originals(dead_letters(letters), log).table.column("original").to_pylist()


def singles(log, count):
    codec = EventCodec(EVENTS, "clicks", log)
    return [codec.encode_event(number, {"id": number}) for number in range(count)]


def test_letters_in_any_order_get_their_own_records(log):
    values = singles(log, 50)
    for partition in (0, 1):
        log.append("clicks", partition, values[:: 1 - 2 * partition])
    places = [(7, 0), (3, 1), (49, 0), (0, 1), (8, 0)]
    assert originals(log, [letter(at, partition=p) for at, p in places]) == [
        values[7], values[46], values[49], values[49], values[8]
    ]  # fmt: skip


@pytest.mark.parametrize(("distance", "reads"), [(1_024, 1), (1_025, 2)])
def test_letters_that_lie_near_are_read_together(log, distance, reads):
    values = singles(log, 1_100)
    log.append("clicks", 0, values)
    log.reads = []
    assert originals(log, [letter(0), letter(distance)]) == [values[0], values[distance]]
    assert len(log.reads) == reads


def test_what_does_not_fit_one_read_is_jumped_over(log):
    first, last = singles(log, 2)
    block = EventCodec(EVENTS, "clicks", log).encode_block(
        pa.record_batch({"at": pa.array(range(1 << 17)), "id": pa.array(range(1 << 17))})
    )
    log.append("clicks", 0, [first, block, block, block, last])
    log.reads = []
    assert originals(log, [letter(0), letter(4)]) == [first, last]
    assert log.reads == [0, 4]


def test_packed_rows_keep_their_json(log):
    codec = EventCodec(EVENTS, "clicks", log)
    log.append("clicks", 0, [codec.encode_block(pa.record_batch({"at": [1, 2], "id": [1, 2]})), *singles(log, 1)])
    assert originals(log, [letter(0), letter(0, row=1), letter(1)]) == [b"json", b"json", singles(log, 1)[0]]


def test_a_record_that_is_gone_leaves_the_json(log):
    values = singles(log, 5)
    log.append("clicks", 0, values)
    log.trim("clicks", 0, 3)
    assert originals(log, [letter(1), letter(2), letter(3)]) == [b"json", b"json", values[3]]


def test_no_letters_read_nothing(log):
    log.reads = []
    assert originals(log, []) == []
    assert log.reads == []
