"""Which version a record of the deltas topic results in.

Any process may have written to the topic: a record that is no delta has no version, whatever its headers are. Rows are
not decoded here: they may need much memory.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import DamagedError
from pipeline.logs.interface.log import Log, Record, records_backwards
from pipeline.versions.deltas.delta import decode_heading

_NUMBER = re.compile("[0-9]{1,18}")


@dataclass(frozen=True, order=True)
class DeltaVersion:
    """The version that a delta results in."""

    generation: int
    sequence: int


def holds_delta(log: Log, topic: str, shard: int, version: DeltaVersion) -> bool:
    """Whether a partition of the deltas topic holds the delta of a version, searched from its end.

    Records that are no deltas of this shard are skipped: any process may have written them, and replicas skip them
    too. So is a delta of a later version, which this log cannot hold.
    """
    for record in records_backwards(log, topic, shard):
        found = readable_version(record, shard)
        if found is not None and found <= version:
            return found == version
    return False


def last_of_model(log: Log, topic: str, shard: int, model: Mapping[str, str]) -> DeltaVersion | None:
    """The version of the last delta of this shard and model in a partition; None without one."""
    for record in records_backwards(log, topic, shard):
        try:
            delta = decode_heading(record.value)
        except DamagedError:
            continue
        if (delta.shard, delta.model) == (shard, model):
            return DeltaVersion(delta.generation, delta.to_sequence)
    return None


def readable_version(record: Record, shard: int) -> DeltaVersion | None:
    """The version of a record's delta, from its bytes; None if it is no delta of this shard."""
    try:
        delta = decode_heading(record.value)
    except DamagedError:
        return None
    return DeltaVersion(delta.generation, delta.to_sequence) if delta.shard == shard else None


def version_in_headers(record: Record) -> DeltaVersion | None:
    """The version that a record's headers name; None without headers, or if they are no numbers."""
    texts = record.headers.get("generation", ""), record.headers.get("sequence", "")
    if not all(_NUMBER.fullmatch(text) for text in texts):
        return None
    return DeltaVersion(int(texts[0]), int(texts[1]))
