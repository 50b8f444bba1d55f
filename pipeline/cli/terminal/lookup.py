"""Finds the versions, fields and rows that commands show, export or publish."""

from typing import Any

from pipeline.configuration.fields import FieldConfig
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


def find_field(project: Project, name: str) -> FieldConfig:
    """The field called `name`. Raises InputError if the configuration has none."""
    fields = {field.name: field for field in project.config.fields}
    if name not in fields:
        raise InputError(f"field {name} does not exist. known: {', '.join(fields)}")
    return fields[name]


def packed_rows(project: Project, commit: Commit, name: str) -> Any:
    """[n] structured: the rows of a field in a restored version, in key order."""
    from pipeline.trainer.tables.table import row_dtype, state_floats

    field, change = find_field(project, name), commit.fields[name]
    dtype = row_dtype(field.dim, state_floats(field.optimizer, field.dim))
    return change.rows.view(dtype).reshape(len(change.keys))
