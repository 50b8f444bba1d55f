"""Stopping a shard on bad data: the reason goes into the ledger, the batch into a file for inspection."""

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.configuration.project import Project
from pipeline.errors import HaltedError
from pipeline.formats.atomic_file import write_atomically
from pipeline.trainer.batch.batches import Batch, SamplePosition
from pipeline.versions.ledger.halt import HaltTable


def refuse_halted(halts: HaltTable, shard: int) -> None:
    """Raise HaltedError if the shard was halted and not resumed."""
    if halt := halts.get(shard):
        raise _halted_error(shard, halt.reason, halt.batch_file)


def halt_shard(
    project: Project, halts: HaltTable, shard: int, position: SamplePosition, batch: Batch, problem: str
) -> HaltedError:
    """Halt the shard durably, with the batch at `position` saved to a file; returns the error to raise."""
    path = project.state / "halted" / f"shard-{shard}-at-{position.offset}-{position.row}.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([batch.samples]), sink)
    write_atomically(path, [sink.getvalue()])
    reason, batch_file = f"{problem}, at offset {position.offset} row {position.row}", path.relative_to(project.root)
    halts.set(shard, reason, str(batch_file))
    return _halted_error(shard, reason, str(batch_file))


def _halted_error(shard: int, reason: str, batch_file: str) -> HaltedError:
    return HaltedError(
        f"shard {shard} is halted: {reason}; the batch is in {batch_file}. "
        "hint: inspect it, then springtide quarantine add FROM..TO, then springtide resume"
    )
