"""Stopping a shard on bad data: the reason goes into the ledger, the batch into a file for inspection.

The name of the file ends in the first digits of its SHA-256, so that damage is noticed before it is inspected.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.configuration.config import Config
from pipeline.configuration.model.lists import empty_lists
from pipeline.configuration.project import Project
from pipeline.errors import HaltedError, RecordError
from pipeline.process.instant import format_instant
from pipeline.trainer.batch.batches import Batch, SamplePosition
from pipeline.versions.ledger.halt_table import HaltTable

_RECORD = ".record"
_DIGITS = 16


class Problem(NamedTuple):
    """Why a batch cannot be learned from, and the row that causes it, if it is a single one."""

    text: str
    row: int | None = None


def refuse_halted(project: Project, halts: HaltTable, shard: int) -> None:
    """Raise HaltedError if the shard was halted and not resumed."""
    if halt := halts.get(shard):
        raise _halted_error(project, shard, halt.reason, halt.batch_file)


def halt_shard(
    project: Project, halts: HaltTable, shard: int, position: SamplePosition, batch: Batch, problem: Problem
) -> HaltedError:
    """Halt the shard durably, with the batch at `position` saved to a file; returns the error to raise."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([batch.samples]), sink)
    name = f"shard-{shard}-at-{position.offset}-{position.row}"
    batch_file = _keep(project, name, ".parquet", sink.getvalue().to_pybytes())
    reason = f"{problem.text}, at offset {position.offset} row {position.row}"
    if problem.row is not None:
        reason += _way_past(project.config, batch, problem.row)
    halts.set(shard, reason, batch_file)
    return _halted_error(project, shard, reason, batch_file)


def _way_past(config: Config, batch: Batch, row: int) -> str:
    """Which sample of the batch it is, and the command that excludes it."""
    at_ms, sample = int(batch.at_ms[row]), batch.samples.slice(row, 1).to_pylist()[0]
    shown = ", ".join(f"{name} {sample.get(name)!r:.60}" for name in config.events.key)
    if empty := empty_lists(sample, config.fields, config.events.impressions.columns):
        shown += f", without elements in {', '.join(empty)}"
    times = f"{format_instant(at_ms)}..{format_instant(at_ms + 1)}"
    return f"; by sample {row} of the batch, {shown}; to skip it: springtide quarantine add {times}"


def halt_at_record(project: Project, halts: HaltTable, failure: RecordError) -> HaltedError:
    """Halt the shard durably at a record that cannot be read; its bytes are saved; returns the error to raise."""
    shard = failure.partition
    file = _keep(project, f"shard-{shard}-at-{failure.offset}", _RECORD, failure.value)
    halts.set(shard, str(failure), file)
    return _halted_error(project, shard, str(failure), file)


def kept_file(project: Project, batch_file: str) -> str:
    """The file of a halt for messages, with a remark if it is missing or damaged."""
    kept = project.halted / Path(batch_file).name
    _, separator, digest = Path(batch_file).stem.rpartition(".")
    if not separator:  # written by an earlier release
        return batch_file
    try:
        found = _digest(kept.read())
    except OSError as failure:
        return f"{batch_file} (cannot be read: {failure.strerror})"
    return batch_file if found == digest else f"{batch_file} (damaged: its checksum is {found}, wanted {digest})"


def _keep(project: Project, name: str, suffix: str, content: bytes) -> str:
    """Write a file of the folder `halted`; returns its address, a path relative to the project if it is in there."""
    kept = project.halted / f"{name}.{_digest(content)}{suffix}"
    kept.write([content])
    return str(kept).removeprefix(f"{project.root}/")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _halted_error(project: Project, shard: int, reason: str, batch_file: str) -> HaltedError:
    file = kept_file(project, batch_file)
    if batch_file.endswith(_RECORD):
        return HaltedError(f"shard {shard} is halted: {reason}, then springtide resume; the record is in {file}")
    return HaltedError(
        f"shard {shard} is halted: {reason}; the batch is in {file}. hint: correct the cause, or exclude the "
        "samples by springtide quarantine add FROM..TO, then springtide resume"
    )
