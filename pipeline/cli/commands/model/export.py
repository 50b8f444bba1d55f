"""Commands that write Parquet files: `export samples`, `rows`, `weights`, `served`, `items`, `dead-letters`."""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from pipeline.arrays.block import DEAD_LETTER_SCHEMA
from pipeline.arrays.types import Float32s
from pipeline.cli.terminal.lookup import current_versions, find_table, packed_rows, weight_pieces
from pipeline.cli.terminal.options import HERE, AsJson, DryRun, OutFile, ProjectFolder, TableName, open_project
from pipeline.cli.terminal.output import print_result, user_output_on_stderr
from pipeline.cli.terminal.output_file import output_file
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.importance.row_statistics import STATISTICS_DTYPE
from pipeline.logs.events.dead_letters import read_dead_letters, readable_letters
from pipeline.logs.events.sample_block import sample_schema
from pipeline.logs.interface.log import Log, read_to_end
from pipeline.logs.open import open_log
from pipeline.versions.deltas.served_view import ServedView, build_served_view
from pipeline.versions.ledger.sample_records import SampleRecords
from pipeline.versions.state import Commit, VersionId
from pipeline.versions.store.version_store import VersionStore

AtVersion = Annotated[
    str | None, typer.Option("--version", help="A version of `springtide versions`; default: the current one.")
]
Format = Annotated[
    str, typer.Option("--format", help="fp32, fp16, int8, int4, int2, codebook8, codebook4 or codebook2.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(
        help="Export samples, rows, weights, served weights, items or dead letters to Parquet.", no_args_is_help=True
    )
    group.command("samples")(samples)
    group.command("rows")(rows)
    group.command("weights")(weights)
    group.command("served")(served)
    group.command("items")(items)
    group.command("dead-letters")(dead_letters)
    app.add_typer(group, name="export")


def samples(
    out: OutFile,
    project: ProjectFolder = HERE,
    version: AtVersion = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Export the samples log; with --version, the samples that this version has learned or skipped.

    Example: springtide export samples --out samples.parquet
    """
    opened = open_project(project)
    log = open_log(opened)
    ends = _end_positions(opened, version)
    batches = (
        batch
        for shard in range(opened.config.logs.shards)
        for batch in _sample_batches(opened, log, shard, ends.get(shard))
    )
    _write(_table_of(batches, sample_schema(opened.config)), out, dry_run, as_json)


def rows(
    table: TableName,
    out: OutFile,
    project: ProjectFolder = HERE,
    version: AtVersion = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Export a table's rows in the trainer: key, weights, optimizer state, statistics.

    Example: springtide export rows item --out item.parquet
    """
    opened = open_project(project)
    name, store = find_table(opened, table).name, VersionStore(opened)
    batches = [_row_batch(opened, store.restore(id), name) for id in _version_ids(opened, store, version)]
    _write(_table_of(batches, batches[0].schema), out, dry_run, as_json)


def weights(
    table: TableName,
    out: OutFile,
    format: Format = "int4",
    project: ProjectFolder = HERE,
    version: AtVersion = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Export a table's weights for another serving system, in one of its row formats.

    Columns shard, key, and weights (fp32, fp16), or grid and codes: weight = offset + scale * code, grid = scale and
    offset as two float16, codes of 8, 4 or 2 bits. int4 and int2 search the minimum and maximum of the least error,
    rows of codebook8, codebook4 and codebook2 share 256 grids. schemas/rows.md has a reader.

    Example: springtide export weights item --format codebook4 --out item.parquet
    """
    from pipeline.publish.row_formats import RowPiece, row_schema, write_rows

    opened = open_project(project)
    found, store = find_table(opened, table), VersionStore(opened)
    schema, ids = row_schema(format, found.dim), _version_ids(opened, store, version)
    pieces: Iterator[RowPiece] = (piece for id in ids for piece in weight_pieces(store, id, found))
    _require_folder(out)
    first = next(pieces, None)
    if first is None:
        raise InputError(
            f"table {found.name} has no rows in {', '.join(map(str, ids))}. hint: choose another --version"
        )
    pieces = chain([first], pieces)
    if dry_run:
        count = sum(len(keys) for _, keys, _ in pieces)
    else:
        with output_file(out) as temporary:
            count = write_rows(temporary, pieces, format, found.dim)
    _print_written(out, count, schema, dry_run, as_json)


def served(
    table: TableName,
    out: OutFile,
    project: ProjectFolder = HERE,
    version: AtVersion = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Export a table's rows in serving: key, handle, bits, quantized bytes, and decoded weights.

    Example: springtide export served item --version g0/s0-of-1/12 --out item.parquet
    """
    from pipeline.serving.export import SCHEMA, served_table

    opened = open_project(project)
    found, store = find_table(opened, table), VersionStore(opened)
    views = [ServedView(found.dim) for _ in range(opened.config.logs.shards)]
    for id in _version_ids(opened, store, version):
        views[id.shard] = build_served_view(store.served(id)[found.name])
    _write(_table_of(served_table(views).to_batches(), SCHEMA), out, dry_run, as_json)


def items(out: OutFile, project: ProjectFolder = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Export the items of recall: name, vector by the newest published version, and this version.

    Example: springtide export items --out items.parquet
    """
    opened = open_project(project)
    with user_output_on_stderr():
        from pipeline.serving.items.open import open_items

        replica, view = open_items(opened, open_log(opened))
        batches = [_item_batch(names, vectors, replica.version) for names, vectors in view.vectors()]
    _write(pa.Table.from_batches(batches), out, dry_run, as_json)


def dead_letters(out: OutFile, project: ProjectFolder = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Export dead letters: reason, source position and original bytes of each event.

    Example: springtide export dead-letters --out dead.parquet
    """
    opened = open_project(project)
    log, topic = open_log(opened), opened.config.topics.dead_letters
    tables = (
        read_dead_letters(readable_letters(records)).table
        for shard in range(opened.config.logs.shards)
        for records in read_to_end(log, topic, shard)
    )
    _write(_table_of(tables, DEAD_LETTER_SCHEMA), out, dry_run, as_json)


def _table_of(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """The batches as one table.

    The columns are those of `schema` and those of batches from earlier configurations; null if a batch has no such
    column. Raises InputError if the type of a column has changed.
    """
    parts = [schema.empty_table(), *(pa.Table.from_batches([batch]) for batch in batches)]
    try:
        return pa.concat_tables(parts, promote_options="default")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as failure:
        hint = "hint: a column that changes its type needs a new name"
        raise InputError(f"the type of a column has changed: {failure}. {hint}") from None


def _write(table: pa.Table, out: Path, dry_run: bool, as_json: bool) -> None:
    """Write a Parquet file atomically, unless it is a dry run, and print the result of the command."""
    _require_folder(out)
    if not dry_run:
        with output_file(out) as temporary:
            pq.write_table(table, temporary)
    _print_written(out, table.num_rows, table.schema, dry_run, as_json)


def _require_folder(out: Path) -> None:
    if not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: {os.strerror(errno.ENOENT)}. hint: choose another --out")


def _print_written(out: Path, rows: int, schema: pa.Schema, dry_run: bool, as_json: bool) -> None:
    written = "would_write" if dry_run else "written"
    print_result({written: str(out), "rows": rows, "columns": schema.names}, as_json)


def _sample_batches(project: Project, log: Log, shard: int, end: tuple[int, int] | None) -> Iterator[pa.RecordBatch]:
    """The samples of one shard; foreign records in quarantine are skipped. Raises RecordError."""
    samples = SampleRecords(project, log, shard)
    for records in read_to_end(log, project.config.topics.samples, shard):
        for record, block in samples.decode_all(records):
            batch = block.batch
            if end is not None and record.offset >= end[0]:
                batch = batch.slice(0, end[1] if record.offset == end[0] else 0)
            yield batch


def _version_ids(project: Project, store: VersionStore, version: str | None) -> list[VersionId]:
    return [VersionId.parse(version)] if version else current_versions(project, store)


def _end_positions(project: Project, version: str | None) -> dict[int, tuple[int, int]]:
    """Sample position of a version, by shard; empty without a version."""
    if version is None:
        return {}
    summary = VersionStore(project).ledger.version(VersionId.parse(version))
    return {summary.id.shard: (summary.offset, summary.row)}


def _item_batch(names: Sequence[int | str], vectors: Float32s, version: str) -> pa.RecordBatch:
    vector = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return pa.RecordBatch.from_pydict({"item": names, "vector": vector, "version": [version] * len(names)})


def _row_batch(project: Project, commit: Commit, table: str) -> pa.RecordBatch:
    packed, keys = packed_rows(project, commit, table), commit.fields[table].keys
    columns: dict[str, pa.Array] = {"key": pa.array(keys)}
    for name in ("weights", "state"):
        values = np.ascontiguousarray(packed[name])
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    for name in STATISTICS_DTYPE.names or ():
        columns[name] = pa.array(np.ascontiguousarray(packed[name]))
    return pa.RecordBatch.from_pydict(columns)
