"""The way back for serving: the target's values of every key a replica may have heard of since the target.

Which keys those are, the undone versions say. Where a file of one is damaged or missing, which may be why somebody goes
back, the deltas topic says it instead: what was never said there, no replica has heard.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.configuration.project import Project
from pipeline.errors import DamagedError
from pipeline.logs.log import Log, ReadLimits
from pipeline.publish.delta_topic import DeltaPosition, delta_position
from pipeline.versions.deltas.delta import Delta, FieldDelta, decode_delta
from pipeline.versions.merge import gather_payload
from pipeline.versions.state import Commit, ServedEntries, UInt64s, VersionId
from pipeline.versions.store import VersionStore


@dataclass(frozen=True)
class Heard:
    """What replicas may have heard of since a version.

    Attributes:
        touched: by field, [t] uint64, keys put or removed.
        next_handles: by field, the first handle given to no key so far.
    """

    touched: Mapping[str, UInt64s]
    next_handles: Mapping[str, int]


@dataclass(frozen=True)
class Reverse:
    """The way back to a target.

    Attributes:
        target: the version gone back to, without its rows.
        fields: by field, what the reverse delta says.
        next_handles: by field, the first handle the new generation may give out.
    """

    target: Commit
    fields: Mapping[str, FieldDelta]
    next_handles: Mapping[str, int]


def reverse_of(project: Project, log: Log, store: VersionStore, target: VersionId, current: VersionId) -> Reverse:
    """The way back from any version after `target`, up to and with `current`.

    Raises DamagedError where a file of the target is damaged, or where neither the undone versions nor the deltas topic
    can say what they touched.
    """
    outline, served = store.outline(target), store.served(target)
    try:
        heard = Heard(store.touched(target, current), store.outline(current).next_handles)
    except DamagedError as damage:
        heard = _heard_in_topic(project, log, target, served, damage)
    none = np.empty(0, np.uint64)
    fields = {name: _reverse_field(entries, heard.touched.get(name, none)) for name, entries in served.items()}
    names = {**outline.next_handles, **heard.next_handles}
    handles = {name: max(outline.next_handles.get(name, 0), heard.next_handles.get(name, 0)) for name in names}
    return Reverse(outline, fields, handles)


def _reverse_field(served: ServedEntries, touched: UInt64s) -> FieldDelta:
    """Rows travel with key and handle: serving may have forgotten the key, or know it by another handle."""
    there = np.isin(touched, served.keys, assume_unique=True)
    index = np.searchsorted(served.keys, touched[there])
    return FieldDelta(
        dim=served.dim,
        handles=np.empty(0, np.uint32),
        new_keys=served.keys[index],
        new_handles=served.handles[index],
        bits=served.bits[index],
        payload=gather_payload(served.payload, served.bits, served.dim, index),
        removed=touched[~there],
    )


def _heard_in_topic(
    project: Project, log: Log, target: VersionId, served: Mapping[str, ServedEntries], damage: DamagedError
) -> Heard:
    """What the topic said since the target; raises `damage` where it no longer reaches back that far."""
    deltas = _said_since(project, log, target)
    if not deltas or deltas[0].from_sequence > target.sequence:
        raise damage
    touched, next_handles = {}, {}
    for name, entries in served.items():
        said = [delta.fields[name] for delta in deltas if name in delta.fields]
        handles = np.concatenate([entries.handles, *(change.new_handles for change in said)])
        keys = np.concatenate([entries.keys, *(change.new_keys for change in said)])
        known = np.concatenate([np.empty(0, np.uint32), *(change.handles for change in said)])
        named = [keys[np.isin(handles, known)], *(a for change in said for a in (change.new_keys, change.removed))]
        touched[name] = np.unique(np.concatenate(named))
        next_handles[name] = int(handles.max()) + 1 if len(handles) else 0
    return Heard(touched, next_handles)


def _said_since(project: Project, log: Log, target: VersionId) -> list[Delta]:
    """The deltas in the topic that lead past the target, in order."""
    topic, after = project.config.topics.deltas, DeltaPosition(target.generation, target.sequence)
    offset, end = log.begin_offset(topic, target.shard), log.end_offset(topic, target.shard)
    found: list[Delta] = []
    while offset < end and (records := log.read(topic, target.shard, offset, ReadLimits(records=1_000))):
        found += [decode_delta(record.value) for record in records if delta_position(record) > after]
        offset = records[-1].offset + 1
    return found
