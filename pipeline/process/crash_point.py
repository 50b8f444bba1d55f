"""Named points at which a test may end the process as `kill -9` would: no cleanup, no flush, no farewell.

The configuration arms at most one point (`crash_at`, from the environment variable SPRINGTIDE_CRASH_AT, `name` or
`name:N` for the N-th time it is passed). `name:N:stop` stops the process there instead, as SIGSTOP would, and
each time after that: whoever continues it has a zombie between its check and its write. Unarmed, a point costs one
comparison.
"""

import os
import signal

POINTS = (
    "samples.before_append",
    "samples.after_append",  # samples are in the log, the join's state is not saved
    "samples.after_state",
    "trainer.before_commit",  # version files written, CURRENT not moved
    "trainer.after_commit",  # CURRENT moved, the delta not published
    "trainer.after_delta",  # the delta is in the topic, nobody was told of it
    "trainer.after_publish",
    "publish.after_files",  # files of an incremental or full written, not announced
    "publish.after_notice",  # announced, the ledger does not say so
    "rollback.after_plan",  # plan durable and generation raised, no reverse delta yet
    "rollback.after_delta",
    "replay.after_append",  # dead letters are back in their topic, the ledger does not say so
)

_armed: str | None = None
_remaining = 0
_signal = signal.SIGKILL


def arm_crash_point(point: str | None) -> None:
    """Arm `name`, `name:N` or `name:N:stop`; `None` disarms."""
    global _armed, _remaining, _signal
    name, count, end = [*(point or "").split(":"), "", ""][:3]
    if name and name not in POINTS:
        raise ValueError(f"crash point {name} is unknown. known: {', '.join(POINTS)}")
    if end not in ("", "stop"):
        raise ValueError(f"crash point {point} ends in {end!r}. hint: name:N:stop")
    _armed, _remaining, _signal = name or None, int(count or 1), signal.SIGSTOP if end else signal.SIGKILL


def reach_crash_point(name: str) -> None:
    """End or stop the process here if this point is armed and its count is used up."""
    global _remaining
    if name != _armed:
        return
    _remaining -= 1
    if _remaining <= 0:
        os.kill(os.getpid(), _signal)
