"""The records of the samples topic: samples of one join shard as packed columns, with the inputs its join still needs.

Layout: frame, Avro `sample_block`; its `columns` are an Arrow IPC stream of the impression's raw columns followed by
the system columns of `sample_schema`. Written by the join, read by the trainer, exports and a restarted join.

With other feedbacks than clicks, a label is null in a sample that does not decide it, and two columns follow: the kind
of the event that decides (`feedback`, null for a negative; `click_…` is its source then), and `observed_until`. If
candidates are logged, `candidate_score` follows: null but in samples of the kind `candidate`, whose labels are null.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.block import ARROW_TYPES
from pipeline.arrays.types import Bools, Int64s
from pipeline.configuration.config import Config
from pipeline.configuration.streams.events import CANDIDATE_SCORE, FEEDBACK_COLUMNS, SAMPLE_COLUMNS
from pipeline.errors import DamagedError, RecordError
from pipeline.formats.columns import pack, unpack
from pipeline.formats.schemas import decode, encode, load_schema
from pipeline.logs.interface.log import Record

CANDIDATE = "candidate"
KINDS = ("positive", "negative", "compensation", CANDIDATE)
"""Of samples; the last one is of an item that was not shown, whose source is that of `impression_…`."""

_TYPES = dict(
    zip(
        SAMPLE_COLUMNS,
        [
            *(pa.int64(), pa.int64()),
            *(pa.float32(), pa.float32(), pa.string(), pa.bool_()),
            *(pa.int32(), pa.int64(), pa.int32()),
            *(pa.int32(), pa.int64(), pa.int32()),
        ],
        strict=True,
    )
)
_FEEDBACK_TYPES = dict(zip(FEEDBACK_COLUMNS, [pa.string(), pa.int64()], strict=True))
_TIMES = 2
"""The first columns; labels follow them."""


@dataclass(frozen=True)
class SampleBlock:
    """n samples of one shard.

    Attributes:
        shard: the join shard that wrote them.
        batch: [n] columns of `sample_schema`.
        needed_offsets: per `topic/partition`, the input offset below which the shard needs no record.
        log_ids: per input topic, the log that these offsets belong to.
        watermark_ms: the join's watermark when this was written.
        flush: the trainer closes its batch after this record.
        needed_watermarks: per `topic/partition`, the watermark (ms) before the needed offset; absent if there was none.
    """

    shard: int
    batch: pa.RecordBatch
    needed_offsets: Mapping[str, int]
    log_ids: Mapping[str, str]
    watermark_ms: int
    flush: bool = False
    needed_watermarks: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.batch.num_rows)


def system_fields(labels: tuple[str, ...], clicks_only: bool = True) -> list[pa.Field]:
    """The system columns in order: times (ms), labels, weight, negative rate, kind, and both source positions; then
    those of several feedbacks.
    """
    columns = [*_TYPES.items(), *(() if clicks_only else _FEEDBACK_TYPES.items())]
    columns[_TIMES:_TIMES] = [(label, pa.float32()) for label in labels]
    return [pa.field(name, kind) for name, kind in columns]


def sample_schema(config: Config) -> pa.Schema:
    """Columns of a sample: raw impression columns, then system columns.

    If `samples.weight` names a raw column that is called `weight`, that column is the system column.
    """
    system = system_fields(config.label_names, config.clicks_only)
    if config.events.candidates is not None:
        system.append(pa.field(CANDIDATE_SCORE, pa.float32()))
    raw, names = config.events.impressions.columns, {field.name for field in system}
    return pa.schema([pa.field(n, ARROW_TYPES[t]) for n, t in raw.items() if n not in names] + system)


def impression_times(samples: pa.RecordBatch) -> Int64s:
    """[n] ms."""
    return np.asarray(samples.column("impression_at").to_numpy(zero_copy_only=False), np.int64)


def sample_times(samples: pa.RecordBatch) -> Int64s:
    """[n] ms: the later of impression and click of each sample."""
    click_at = samples.column("click_at").fill_null(np.iinfo(np.int64).min).to_numpy(zero_copy_only=False)
    return np.asarray(np.maximum(impression_times(samples), click_at), np.int64)


def of_kind(samples: pa.RecordBatch, kind: str) -> Bools:
    """[n] which samples are of a kind."""
    column = samples.column("kind")
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return np.asarray(pc.equal(column, kind).to_numpy(zero_copy_only=False), np.bool_)


def event_ages(samples: pa.RecordBatch) -> Int64s:
    """[n] ms from the impression to the event that decides each sample; -1 without an event."""
    ages = pc.subtract(samples.column("click_at"), samples.column("impression_at"))
    return np.asarray(ages.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)


def encode_sample_block(block: SampleBlock) -> bytes:
    """One record of the samples topic."""
    schema = load_schema("sample_block")
    return encode(
        schema,
        {
            "shard": block.shard,
            "needs": dict(block.needed_offsets),
            "marks": dict(block.needed_watermarks),
            "log_ids": dict(block.log_ids),
            "watermark_ms": block.watermark_ms,
            "flush": block.flush,
            "rows": len(block),
            "columns": pack(block.batch),
        },
    )


def decode_sample_record(record: Record, topic: str, partition: int) -> SampleBlock:
    """A record of the samples topic.

    Raises RecordError, which names its place, also for a block of another shard or without the system columns.
    """
    try:
        block = decode_sample_block(record.value)
        if block.shard != partition:
            raise DamagedError(f"it holds samples of shard {block.shard}")
        _check_system_columns(block.batch)
    except DamagedError as failure:
        raise RecordError(topic, partition, record.offset, record.value, failure) from failure
    return block


def _check_system_columns(batch: pa.RecordBatch) -> None:
    for name, kind in _TYPES.items():
        index = batch.schema.get_field_index(name)
        if index < 0 or batch.schema.field(index).type != kind:
            found = "none" if index < 0 else batch.schema.field(index).type
            raise DamagedError(f"its samples have {found} as {name}, wanted {kind}")
    if batch.column("impression_at").null_count:
        raise DamagedError("its samples have no impression_at")


def decode_sample_block(value: bytes) -> SampleBlock:
    """A record of the samples topic. Raises DamagedError."""
    datum = decode(load_schema("sample_block"), value)
    batch = unpack(datum["columns"], datum["rows"])
    return SampleBlock(
        datum["shard"],
        batch,
        datum["needs"],
        datum["log_ids"],
        datum["watermark_ms"],
        datum["flush"],
        datum["marks"],
    )
