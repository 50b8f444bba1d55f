"""The checks that the engines of the log share, with their errors."""

from collections.abc import Mapping, Sequence

from pipeline.configuration.section import check_topic_name
from pipeline.errors import InputError, LogError, LogReplacedError, OffsetError
from pipeline.logs.interface.log import Fence, Headers, Log, NewRecord


def check_new_topic(topic: str, partitions: int) -> None:
    """Raise LogError for a name that cannot be a folder, and for less than one partition."""
    try:
        check_topic_name(topic)
    except ValueError as failure:
        raise LogError(str(failure)) from None
    if partitions < 1:
        raise LogError(f"topic {topic} needs at least 1 partition, got {partitions}")


def check_partition_count(topic: str, found: int, wanted: int) -> None:
    """Raise LogError if an existing topic has another number of partitions than wanted."""
    if found != wanted:
        raise LogError(
            f"topic {topic} has {found} partitions, {wanted} are wanted. "
            "hint: the number of a topic cannot change; restore the configuration or delete the topic"
        )


def check_partitions_read(log: Log, topic: str, read: int) -> None:
    """Raise LogError if `topic` has not exactly the partitions that are read: an added one would never be read."""
    found = log.partitions(topic)
    if found != read:
        raise LogError(
            f"topic {topic} has {found} partitions, {read} are read. hint: springtide stop, set logs.partitions to "
            f"{found} for all inputs, and run again: a partition that was added is read from its beginning"
        )


def check_partition(topic: str, partition: int, partitions: int) -> None:
    """Raise LogError for a partition number that the topic does not have."""
    if not 0 <= partition < partitions:
        raise LogError(f"topic {topic} has partitions 0..{partitions - 1}, there is no partition {partition}")


def check_start(name: str, start: int, begin: int, end: int) -> None:
    """Raise OffsetError if a read of partition `name` cannot start at `start`."""
    if start < begin:
        raise OffsetError(
            f"partition {name} begins at offset {begin}, offset {start} was removed. hint: it was trimmed or expired, "
            "start at the begin offset"
        )
    if start > end:
        raise OffsetError(
            f"partition {name} ends at offset {end}, offset {start} does not exist. hint: check that it is the same log"
        )


def check_trim(name: str, before: int, end: int) -> None:
    """Raise OffsetError for a trim beyond the end of partition `name`."""
    if before > end:
        raise OffsetError(f"partition {name} ends at offset {end}, cannot trim before {before}")


def check_fence(fence: Fence, topic: str, partition: int) -> None:
    """Raise LogError if the fence belongs to another partition."""
    if (fence.topic, fence.partition) != (topic, partition):
        raise LogError(f"fence of {fence.topic}/{fence.partition} cannot append to {topic}/{partition}")


def check_log_of_fence(topic: str, log_id: str, fence_log_id: str) -> None:
    """Raise LogReplacedError if the topic was deleted and created again after the fence was acquired."""
    if fence_log_id != log_id:
        raise LogReplacedError(
            f"topic {topic} was deleted and created again: its log is {log_id}, the fence is of {fence_log_id}. "
            "hint: choose a start offset in the new topic"
        )


def new_records(
    values: Sequence[bytes], headers: Headers | Sequence[Headers] | None, keys: Sequence[bytes] | None
) -> list[NewRecord]:
    """The records that are appended together. Raises InputError for another number of headers or keys than values.

    >>> new_records([b"x"], {"a": "1"}, None)
    [NewRecord(value=b'x', headers={'a': '1'}, key=None)]
    """
    count = len(values)
    if headers is None or isinstance(headers, Mapping):
        headers = [headers or {}] * count
    if len(headers) != count:
        raise InputError(f"headers: got {len(headers)} for {count} values, wanted one mapping, or one for each value")
    if keys is not None and len(keys) != count:
        raise InputError(f"keys: got {len(keys)} for {count} values, wanted one for each value")
    if keys is not None and not all(keys):
        raise InputError(f"keys: value {[bool(key) for key in keys].index(False)} has an empty one, wanted bytes")
    of_records: Sequence[bytes | None] = keys or [None] * count
    return [NewRecord(*each) for each in zip(values, headers, of_records, strict=True)]
