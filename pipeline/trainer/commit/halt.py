"""Stopping a shard on bad data: the reason goes into the ledger, the batch into a file for inspection."""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.configuration.config import Config
from pipeline.configuration.project import Project
from pipeline.errors import HaltedError, RecordError
from pipeline.formats.atomic_file import write_atomically
from pipeline.process.instant import format_instant
from pipeline.trainer.batch.batches import Batch, SamplePosition
from pipeline.versions.ledger.halt import HaltTable

_RECORD = ".record"


class Problem(NamedTuple):
    """Why a batch cannot be learned from, and the row that causes it, if it is a single one."""

    text: str
    row: int | None = None


def refuse_halted(halts: HaltTable, shard: int) -> None:
    """Raise HaltedError if the shard was halted and not resumed."""
    if halt := halts.get(shard):
        raise _halted_error(shard, halt.reason, halt.batch_file)


def halt_shard(
    project: Project, halts: HaltTable, shard: int, position: SamplePosition, batch: Batch, problem: Problem
) -> HaltedError:
    """Halt the shard durably, with the batch at `position` saved to a file; returns the error to raise."""
    path = project.state / "halted" / f"shard-{shard}-at-{position.offset}-{position.row}.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([batch.samples]), sink)
    write_atomically(path, [sink.getvalue()])
    reason = f"{problem.text}, at offset {position.offset} row {position.row}"
    if problem.row is not None:
        reason += _way_past(project.config, batch, problem.row)
    batch_file = path.relative_to(project.root)
    halts.set(shard, reason, str(batch_file))
    return _halted_error(shard, reason, str(batch_file))


def _way_past(config: Config, batch: Batch, row: int) -> str:
    """Which sample of the batch it is, and the command that excludes it."""
    at_ms, sample = int(batch.at_ms[row]), batch.samples.slice(row, 1).to_pylist()[0]
    shown = ", ".join(f"{name} {sample.get(name)!r:.60}" for name in config.events.key)
    times = f"{format_instant(at_ms)}..{format_instant(at_ms + 1)}"
    return f"; by sample {row} of the batch, {shown}; to skip it: springtide quarantine add {times}"


def halt_at_record(project: Project, halts: HaltTable, failure: RecordError) -> HaltedError:
    """Halt the shard durably at a record that cannot be read; its bytes are saved; returns the error to raise."""
    shard = failure.partition
    path = project.state / "halted" / f"shard-{shard}-at-{failure.offset}{_RECORD}"
    write_atomically(path, [failure.value])
    file = str(path.relative_to(project.root))
    halts.set(shard, str(failure), file)
    return _halted_error(shard, str(failure), file)


def _halted_error(shard: int, reason: str, batch_file: str) -> HaltedError:
    if batch_file.endswith(_RECORD):
        return HaltedError(f"shard {shard} is halted: {reason}, then springtide resume; the record is in {batch_file}")
    return HaltedError(
        f"shard {shard} is halted: {reason}; the batch is in {batch_file}. hint: correct the cause, or exclude the "
        "samples by springtide quarantine add FROM..TO, then springtide resume"
    )
