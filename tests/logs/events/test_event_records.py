"""The fast encoder of single events in the benchmarks writes the same bytes as the codec."""

import pyarrow as pa
import pytest

from pipeline.configuration.streams.events import Events
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from tests.benchmarks.load.event_records import encode_events
from tests.benchmarks.stages.join import events_of
from tests.support.manual_clock import ManualClock

COLUMNS = {"id": "int", "user": "string", "item": "string", "position": "int", "price": "float"}
EVENTS = Events.model_validate(
    {"key": ["id"], "impressions": {"columns": COLUMNS}, "clicks": {"columns": {"id": "int"}}}
)
EDGES = pa.RecordBatch.from_pydict(
    {
        "at": [-1, 0, 2**62, 63, 64, -(2**63)],
        "id": [-64, -65, 8191, 8192, 2**63 - 1, -(2**63)],
        "user": ["", "a", "ü", "z" * 200, "nul\0", "\0"],
        "item": ["x"] * 6,
        "position": [0] * 6,
        "price": [0.0, 1.5, -1e300, float("inf"), -0.0, 5e-324],
    }
)


@pytest.mark.parametrize("batch", [EDGES, events_of(300)[0], EDGES.slice(2, 3)])
def test_records_are_what_the_codec_writes(tmp_path, batch):
    codec = EventCodec(EVENTS, "impressions", SqliteLog(tmp_path, ManualClock()))
    assert encode_events(codec.schema.id, batch) == [codec.encode_event(r.pop("at"), r) for r in batch.to_pylist()]
