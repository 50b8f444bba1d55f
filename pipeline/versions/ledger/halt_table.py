"""The halts of the ledger: a trainer records one under its fence, an operator clears it."""

from pipeline.process.clock import Clock
from pipeline.versions.ledger.common_state import CommonState
from pipeline.versions.ledger.halt import Halt
from pipeline.versions.ledger.records import Halted, Resumed
from pipeline.versions.ledger.shard_view import ShardView
from pipeline.versions.ledger.topic import LedgerTopic


class HaltTable:
    """Thread-safe."""

    def __init__(self, topic: LedgerTopic, clock: Clock) -> None:
        self._topic, self._clock = topic, clock

    def set(self, shard: int, reason: str, batch_file: str) -> None:
        """Halt a shard that this process writes; a halt in force is replaced. Raises FencedError."""
        with self._topic.reading(shard) as (state, common):
            before = max(state.halt.number if state.halt else 0, common.resumed.get(shard, 0))
            halt = Halt(shard, reason, batch_file, self._clock.now_ms(), before + 1)
            self._topic.append(shard, Halted(halt=halt))

    def get(self, shard: int) -> Halt | None:
        """The halt in force; None if the shard is not halted."""
        with self._topic.reading(shard) as states:
            return ShardView(shard, *states).halt

    def clear(self, shard: int) -> bool:
        """Clear the halt; false if the shard was not halted."""
        halt = self.get(shard)

        def decide(state: CommonState) -> Resumed | None:
            if halt is None or state.resumed.get(shard, 0) >= halt.number:
                return None
            return Resumed(shard=shard, number=halt.number)

        self._topic.append_common(decide)
        return halt is not None
