"""Lets the join continue after an input was trimmed beyond what had been read, by skipping what was trimmed.

Only an operator decides that. Clicks in the trimmed range are lost, and their impressions end as negatives. Refused if
a shard has lost its state as well: then it is unknown what it had emitted for the trimmed range.
"""

from dataclasses import replace

from pipeline.configuration.project import Project
from pipeline.logs.beam.partition_range import PartitionRange
from pipeline.logs.interface.log import Log
from pipeline.samples.run.rounds import Rounds
from pipeline.samples.run.start_offsets import followed_ranges
from pipeline.samples.state.state_files import remove_earlier_epochs


def plan_skip(project: Project, log: Log) -> list[PartitionRange]:
    """The trimmed ranges that some shard has not read. Changes nothing, acquires no fence.

    Raises OffsetError if a shard has no state and needs a trimmed offset.
    """
    begins = [(r, log.begin_offset(r.topic, r.partition)) for r in followed_ranges(project, log)]
    return [replace(read, stop=begin) for read, begin in begins if read.start < begin]


def skip(project: Project, log: Log, trimmed: list[PartitionRange]) -> None:
    """Store in the state of all shards that the ranges have been read. Fences a join that is running."""
    rounds = Rounds(project, log)
    rounds.finish(trimmed)
    for shard in rounds.shards:
        # Older states would begin at trimmed offsets.
        remove_earlier_epochs(project.join_state, shard.shard, shard.epoch)
