"""Where reading begins: at the first offset of each input partition that some shard has not read.

Shards differ in what they have read only after one of them lost its state; the others skip what they have read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from pipeline.configuration.config import Config
from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, OffsetError
from pipeline.logs.beam.partition_range import PartitionRange, check_log_id
from pipeline.logs.interface.checks import check_partitions_read
from pipeline.logs.interface.log import Log, records_backwards
from pipeline.samples.held.durations import Durations, max_event_time_of
from pipeline.samples.join.progress.input_progress import Input
from pipeline.samples.state.restore import load_summary
from pipeline.samples.state.state_files import StoredState, latest_state, read_head
from pipeline.versions.ledger.sample_records import SampleRecords

T = TypeVar("T")

ReadTo = Mapping[Input, tuple[int, int | None]]
"""Per input partition the next offset to read, and the watermark (ms) before it; None without one."""


def open_ranges(config: Config, log_ids: Mapping[str, str], shards: Sequence[ReadTo]) -> list[PartitionRange]:
    """Every input partition from the first offset that some shard has not read, without an end.

    Args:
        config: topics, partitions and durations.
        log_ids: by topic, the log that the offsets belong to.
        shards: what each shard has read.
    """
    ranges, partitions, durations = [], config.logs.partitions, Durations.of(config)
    for kind, topic in config.input_topics.items():
        for partition in range(partitions):
            offset, watermark_ms = min((read[kind, partition] for read in shards), key=lambda at: at[0])
            at_ms = max_event_time_of(watermark_ms, durations)
            ranges.append(PartitionRange(topic, kind, partition, offset, None, at_ms, log_ids[topic], partitions))
    return ranges


def followed_ranges(project: Project, log: Log) -> list[PartitionRange]:
    """`open_ranges` by what the stored states of the shards have read. Acquires no fence.

    Raises LogError if an input does not have the configured number of partitions.
    """
    config = project.config
    topics = config.input_topics.values()
    for topic in topics:
        check_partitions_read(log, topic, config.logs.partitions)
    shards = [_stored_progress(project, log, shard) for shard in range(config.logs.shards)]
    return open_ranges(config, {topic: log.log_id(topic) for topic in topics}, shards)


def from_latest_state(project: Project, shard: int, use: Callable[[StoredState | None], T]) -> T:
    """What `use` returns for the latest stored state of a shard; None if there is none. Raises DamagedError.

    An earlier opening of the shard may replace its files meanwhile; the latest state is then read again.
    """
    while True:
        stored = latest_state(project.join_state, shard)
        try:
            return use(stored)
        except DamagedError:
            if latest_state(project.join_state, shard) == stored:
                raise


def read_to_without_state(project: Project, log: Log, shard: int) -> dict[Input, tuple[int, int | None]]:
    """Where a shard without a stored state begins: where its last samples record says, or at the log's beginning.

    Raises LogReplacedError, and OffsetError if an input no longer reaches back that far.
    """
    topics = project.config.input_topics
    emitted = records_backwards(log, project.config.topics.samples, shard)
    _, block = next(SampleRecords(project, log, shard).decode_all(emitted), (None, None))
    read: dict[Input, tuple[int, int | None]] = {}
    for kind, topic in topics.items():
        # A feedback that was declared since then is read from the beginning.
        recorded = block if block is not None and topic in block.log_ids else None
        if recorded is not None:
            check_log_id(log, topic, recorded.log_ids[topic])
        for partition in range(log.partitions(topic)):
            name, begins = f"{topic}/{partition}", log.begin_offset(topic, partition)
            needed = begins if recorded is None else recorded.needed_offsets.get(name, 0)
            if needed < begins:
                raise OffsetError(
                    f"partition {name} begins at offset {begins}, shard {shard} of the join lost its state and "
                    f"needs it from {needed}. hint: restore {project.join_state} or the log"
                )
            read[kind, partition] = (needed, None if recorded is None else recorded.needed_watermarks.get(name))
    return read


def _stored_progress(project: Project, log: Log, shard: int) -> ReadTo:
    topics = project.config.input_topics
    partitions = {kind: log.partitions(topic) for kind, topic in topics.items()}

    def read_to(stored: StoredState | None) -> ReadTo:
        if stored is None:
            return read_to_without_state(project, log, shard)
        summary = load_summary(project.config, shard, partitions, read_head(stored.folder, stored.file))
        return {at: (p.next_offset, p.watermark_ms) for at, p in summary.progress.of.items()}

    return from_latest_state(project, shard, read_to)
