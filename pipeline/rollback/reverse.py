"""Content of a reverse delta: the target's values of every key that a replica may have received since the target.

The undone versions record the keys they touched. If a file of one is damaged or missing, possibly the very reason for
the rollback, the deltas topic is read instead: replicas have received nothing that was not appended there.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

import numpy as np

from pipeline.arrays.types import Int64s, UInt8s, UInt64s
from pipeline.configuration.project import Project
from pipeline.errors import DamagedError
from pipeline.logs.interface.log import Log, read_to_end
from pipeline.versions.deltas.delta import Delta, FieldDelta, decode_delta
from pipeline.versions.deltas.delta_version import DeltaVersion, readable_version
from pipeline.versions.deltas.quantizer import payload_offsets
from pipeline.versions.deltas.row_bounds import RowBounds
from pipeline.versions.state import Commit, ServedEntries, VersionId
from pipeline.versions.store.version_store import VersionStore

_GATHER_ROWS = 1 << 18
"""Entries gathered at a time: bounds the index memory to some tens of megabytes."""


@dataclass(frozen=True)
class TouchedKeys:
    """Keys that replicas may have received since a version.

    Attributes:
        keys: by table, [t] uint64, keys set or removed.
        next_handles: by table, the first handle not assigned yet.
    """

    keys: Mapping[str, UInt64s]
    next_handles: Mapping[str, int]


@dataclass(frozen=True)
class ReverseContent:
    """What a rollback to a target writes for one shard.

    Attributes:
        target: the commit to restore, without its rows.
        fields: by table, the changes of the reverse delta.
        next_handles: by table, the first handle that the new generation may assign.
    """

    target: Commit
    fields: Mapping[str, FieldDelta]
    next_handles: Mapping[str, int]


def reverse_content(
    project: Project, log: Log, store: VersionStore, target: VersionId, current: VersionId
) -> ReverseContent:
    """The changes that lead from any version after `target`, up to and including `current`, back to `target`.

    Raises DamagedError if a file of the target is damaged, or if neither the undone versions nor the deltas topic
    yield the keys touched since.
    """
    outline = store.outline(target)
    try:
        touched = TouchedKeys(store.touched(target, current), store.outline(current).next_handles)
    except DamagedError as damage:
        touched = _touched_in_topic(project, log, target, current, store.served(target), damage)
    served = store.served(target, touched.keys)
    none = np.empty(0, np.uint64)
    fields = {name: _reverse_field(entries, touched.keys.get(name, none)) for name, entries in served.items()}
    names = {**outline.next_handles, **touched.next_handles}
    handles = {name: max(outline.next_handles.get(name, 0), touched.next_handles.get(name, 0)) for name in names}
    return ReverseContent(outline, fields, handles)


def _reverse_field(served: ServedEntries, touched: UInt64s) -> FieldDelta:
    """Rows carry key and handle: a replica may have removed the key since, or hold it under another handle."""
    in_target = np.isin(touched, served.keys, assume_unique=True)
    index = np.searchsorted(served.keys, touched[in_target])
    return FieldDelta(
        dim=served.dim,
        handles=np.empty(0, np.uint32),
        new_keys=served.keys[index],
        new_handles=served.handles[index],
        bits=served.bits[index],
        payload=_gather_payload(served, index),
        removed=touched[~in_target],
        relative=np.empty(0, np.bool_),
    )


def _gather_payload(served: ServedEntries, index: Int64s) -> UInt8s:
    """The payloads of the entries at `index` [m] int64, concatenated in that order."""
    starts = payload_offsets(served.bits, served.dim)
    sizes = np.diff(starts)
    parts = [np.empty(0, np.uint8)]
    for begin in range(0, len(index), _GATHER_ROWS):
        chosen = index[begin : begin + _GATHER_ROWS]
        lengths = sizes[chosen]
        shift = np.repeat(starts[chosen] - (np.cumsum(lengths) - lengths), lengths)
        parts.append(served.payload[shift + np.arange(len(shift))])
    return np.concatenate(parts)


def _touched_in_topic(
    project: Project,
    log: Log,
    target: VersionId,
    current: VersionId,
    served: Mapping[str, ServedEntries],
    damage: DamagedError,
) -> TouchedKeys:
    """Keys touched by the topic's deltas from the target to CURRENT; raises `damage` if some of them are missing."""
    deltas = _deltas_after(project, log, target, current)
    if not deltas:
        raise damage
    touched, next_handles = {}, {}
    for name, entries in served.items():
        changes = [delta.fields[name] for delta in deltas if name in delta.fields]
        handles = np.concatenate([entries.handles, *(change.new_handles for change in changes)])
        keys = np.concatenate([entries.keys, *(change.new_keys for change in changes)])
        changed_handles = np.concatenate([np.empty(0, np.uint32), *(change.handles for change in changes)])
        changed_keys = keys[np.isin(handles, changed_handles)]
        named_keys = [part for change in changes for part in (change.new_keys, change.removed)]
        touched[name] = np.unique(np.concatenate([changed_keys, *named_keys]))
        next_handles[name] = int(handles.max()) + 1 if len(handles) else 0
    return TouchedKeys(touched, next_handles)


def _deltas_after(project: Project, log: Log, target: VersionId, current: VersionId) -> list[Delta]:
    """The deltas in the topic that lead from the target to CURRENT, in order; empty if one is missing.

    Foreign and damaged records are skipped; the chain of the others shows whether one of them was needed.
    """
    after, deltas = DeltaVersion(target.generation, target.sequence), []
    bounds = RowBounds(max_bytes=project.config.serving.max_delta_bytes)
    for record in chain.from_iterable(read_to_end(log, project.config.topics.deltas, target.shard)):
        version = readable_version(record, target.shard)
        if version is not None and version > after:
            with suppress(DamagedError):
                deltas.append(decode_delta(record.value, bounds))
    return deltas if _is_chain(deltas, target, current) else []


def _is_chain(deltas: Sequence[Delta], target: VersionId, current: VersionId) -> bool:
    """Whether the deltas lead from the target to CURRENT without a gap."""
    generation, reached = target.generation, target.sequence
    for delta in deltas:
        if delta.generation < generation:
            continue
        if delta.base_generation != generation or delta.from_sequence > reached:
            return False
        begins = delta.generation > generation
        generation, reached = delta.generation, delta.to_sequence if begins else max(reached, delta.to_sequence)
    return (generation, reached) >= (current.generation, current.sequence)
