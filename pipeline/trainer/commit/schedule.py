"""When a shard commits: after some batches, some log time, or some time by the clock."""

from pipeline.configuration.model.training import Train
from pipeline.process.clock import Clock


class CommitSchedule:
    """Decides after each batch whether a commit follows. Not thread-safe."""

    def __init__(self, train: Train, clock: Clock, log_ms: int) -> None:
        """Begin now, at log time `log_ms`; 0 before the first batch."""
        self._train, self._clock = train, clock
        self._committed_at_s, self._committed_log_ms = clock.monotonic_s(), log_ms

    def due(self, batches: int, log_ms: int, committing: bool, stall_s: float) -> bool:
        """Whether a commit follows the next batch.

        Args:
            batches: number of batches learned, including the next.
            log_ms: log time after the next batch.
            committing: a commit is in progress; the clock does not begin another.
            stall_s: how long training was stalled for the last commit.
        """
        train = self._train
        if train.commit_every_batches and batches % train.commit_every_batches == 0:
            return True
        learned_ms = log_ms - (self._committed_log_ms or log_ms)
        if train.commit_every_log_s and learned_ms >= train.commit_every_log_s * 1000:
            return True
        passed_s = self._clock.monotonic_s() - self._committed_at_s
        return not committing and passed_s >= pause_s(train, stall_s)

    def learned(self, log_ms: int) -> None:
        """The next batch was learned, up to log time `log_ms`: log time begins with the first one."""
        self._committed_log_ms = self._committed_log_ms or log_ms

    def committed(self, log_ms: int) -> None:
        """A commit began at log time `log_ms`."""
        self._committed_at_s, self._committed_log_ms = self._clock.monotonic_s(), log_ms


def pause_s(train: Train, stall_s: float) -> float:
    """Seconds by the clock from one commit to the next if training was stalled for `stall_s` by the first.

    >>> [pause_s(Train(commit_every_s=1, commit_share=0.2), stall_s) for stall_s in (0.05, 0.5)]
    [1.0, 2.5]
    """
    return max(train.commit_every_s, stall_s / train.commit_share)
