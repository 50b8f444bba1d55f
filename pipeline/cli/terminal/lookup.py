"""Finds the versions, fields, tables and rows that commands show, export or publish."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.arrays.types import Float32s, UInt64s
from pipeline.configuration.model.fields import FieldConfig
from pipeline.configuration.model.tables import TableConfig, tables_of
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.versions.state import Commit, VersionId
from pipeline.versions.store.version_store import VersionStore


def current_versions(project: Project, store: VersionStore) -> list[VersionId]:
    """The current version of every shard that has one. Raises InputError if there is none."""
    currents = [store.current(shard) for shard in range(project.config.logs.shards)]
    if not any(currents):
        raise InputError(f"{project.versions} holds no version yet. run: springtide run train --until-end")
    return [id for id in currents if id]


def current_commits(project: Project, table: str) -> Iterator[tuple[int, Commit]]:
    """By shard, the current versions that contain the table."""
    store = VersionStore(project)
    for id in current_versions(project, store):
        commit = store.restore(id)
        if table in commit.fields:
            yield id.shard, commit


def find_field(project: Project, name: str) -> FieldConfig:
    """The field called `name`, or the first one that reads the table `name`. Raises InputError if there is none."""
    fields = {field.name: field for field in project.config.fields}
    for field in project.config.fields:
        fields.setdefault(field.table_name, field)
    if name not in fields:
        raise InputError(f"field {name} does not exist. known: {', '.join(fields)}")
    return fields[name]


def find_table(project: Project, name: str) -> TableConfig:
    """The table called `name`, or the one that the field `name` reads. Raises InputError if there is none."""
    tables = tables_of(project.config.fields)
    read = {field.name: tables[field.table_name] for field in project.config.fields} | tables
    if name not in read:
        raise InputError(f"table {name} does not exist. known: {', '.join(tables)}")
    return read[name]


def packed_rows(project: Project, commit: Commit, name: str) -> Any:
    """[n] structured: the rows of a table in a restored version, in key order."""
    from pipeline.trainer.tables.table import stored_rows

    return stored_rows(commit.fields[name].rows, find_table(project, name))


def weight_pieces(store: VersionStore, id: VersionId, table: TableConfig) -> Iterator[tuple[int, UInt64s, Float32s]]:
    """The shard, keys and weights, as training reads them, of a table's rows in a version, in pieces of about 32 MiB.

    Raises InputError if the version does not have the table as the configuration declares it.
    """
    from pipeline.trainer.tables.table import stored_row_bytes, stored_rows
    from pipeline.versions.deltas.rounding import RowRounding, as_read

    fields = store.restore(id, with_rows=False).fields
    found = {name: (change.dim, change.rows.shape[1]) for name, change in fields.items()}.get(table.name)
    wanted = table.dim, stored_row_bytes(table)
    if found != wanted:
        held = f"dim {found[0]} in {found[1]} bytes a row" if found else "none"
        raise InputError(
            f"version {id} has of table {table.name} {held}, the configuration dim {wanted[0]} in {wanted[1]} bytes a "
            "row. run: springtide run train --until-end --migrate"
        )
    reader = store.row_reader({table.name: wanted[1]})
    reader.renew(id)
    for keys, packed in reader.pieces(table.name):
        if len(keys):
            rows = as_read(stored_rows(packed, table), RowRounding.of(table))
            yield id.shard, keys, np.ascontiguousarray(rows)
