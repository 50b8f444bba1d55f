"""Lets the join go on where an input was trimmed beyond what had been read: what is gone is passed over.

Only an operator decides that. Clicks among what is gone are lost, and their impressions end as negatives. Refuses where
a shard has lost its state as well: then nobody knows what it had said of what is gone.
"""

from dataclasses import replace

from pipeline.configuration.project import Project
from pipeline.logs.beam.source import PartitionRange
from pipeline.logs.log import Log
from pipeline.samples.run.live_shard import starts
from pipeline.samples.run.rounds import Rounds
from pipeline.samples.state.state_files import remove_earlier_epochs


def plan_skip(project: Project, log: Log) -> list[PartitionRange]:
    """The ranges that some shard has not read and nobody can read any more. Changes nothing, takes no fence.

    Raises OffsetError where a shard has no state and needs what is gone.
    """
    begins = [(r, log.begin_offset(r.topic, r.partition)) for r in starts(project, log)]
    return [replace(read, stop=begin) for read, begin in begins if read.start < begin]


def skip(project: Project, log: Log, gone: list[PartitionRange]) -> None:
    """Make it the state of all shards that the ranges have been read. A join that runs meanwhile is fenced."""
    rounds = Rounds(project, log)
    rounds.finish(gone)
    for shard in rounds.shards:
        # They say as much, and would begin at what is gone.
        remove_earlier_epochs(project.join_state, shard.shard, shard.epoch)
