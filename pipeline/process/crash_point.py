"""Named crash points, at which a test can end the process as `kill -9` does: without cleanup and without flushing.

At most one point is armed, by the environment variable SPRINGTIDE_CRASH_AT: `name`, or `name:N` for the N-th time it
is reached. `name:N:stop` stops the process there as SIGSTOP does, the N-th time and every later time; SIGCONT
then yields a writer that is fenced between its check and its write. A point that is not armed costs one comparison.
"""

import signal

POINTS = (
    "samples.before_append",
    "samples.after_append",  # samples are in the log, the join's state is not saved
    "samples.after_state",
    "trainer.before_commit",  # the version's files are written, CURRENT is not moved
    "trainer.after_commit",  # CURRENT is moved, the delta is not published
    "trainer.after_delta",  # the delta is in the topic, its notice is not published
    "trainer.after_publish",
    "compaction.after_merge",  # a merged file of several versions is written, the ledger does not list it
    "publish.after_files",  # files of an incremental delta or full snapshot are written, not announced
    "publish.after_notice",  # announced, not recorded in the ledger
    "rollback.after_plan",  # the plan is durable and the generation raised, the reverse delta is not published
    "rollback.after_delta",
    "quarantine.after_keys",  # the set of keys is durable, the ledger does not name it
    "replay.after_append",  # events of dead letters are appended to their topic again, not recorded as replayed
)

_armed: str | None = None
_remaining = 0
_signal = signal.SIGKILL


def arm_crash_point(point: str | None) -> None:
    """Arm `name`, `name:N` or `name:N:stop`; None disarms. Raises ValueError."""
    global _armed, _remaining, _signal
    name, count, end = [*(point or "").split(":"), "", ""][:3]
    if name and name not in POINTS:
        raise ValueError(f"crash point {name} is unknown. known: {', '.join(POINTS)}")
    if end not in ("", "stop"):
        raise ValueError(f"crash point {point} ends in {end!r}. hint: name:N:stop")
    _armed, _remaining, _signal = name or None, int(count or 1), signal.SIGSTOP if end else signal.SIGKILL


def reach_crash_point(name: str) -> None:
    """End or stop the process if this point is armed and has been reached often enough."""
    global _remaining
    if name != _armed:
        return
    _remaining -= 1
    if _remaining <= 0:
        signal.raise_signal(_signal)  # to this thread; one that stops the process may let it run on for a while
