"""Finds the versions, fields, tables and rows that commands show, export or publish."""

from collections.abc import Iterator
from typing import Any

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
