"""Jobs on a cluster: which run, how they are, and how they are stopped. Asks Flink each time and remembers nothing."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ClusterError
from pipeline.flink.rest import FlinkRest
from pipeline.process.clock import Clock

_ENDED = {"CANCELED", "FAILED", "FINISHED"}
_AT_WORK = {"RUNNING", "FINISHED"}
_WITHOUT_SLOT = {"CREATED", "SCHEDULED"}
_LOOK_EVERY_S = 0.1
_STOP_WITHIN_S = 120.0
_END_WITHIN_S = 60.0
_RUN_WITHIN_S = 120.0
_PYTHON_ERROR = re.compile(r"^(?:[\w.]+\.)?(\w+Error: .*)$", re.MULTILINE)
_CAUSE = re.compile(r"^Caused by: (.*)$", re.MULTILINE)
_WRAPPING = re.compile(
    r"[\w.]*(?:Asynchronous|Timer|Execution|Completion)Exception\b|[\w.]+: [\w.]+(?:Exception|Error)\b"
)
"""What only says in which thread or call a cause was met: a bundle's end by time is a timer of Flink's."""
_UNSETTLED_S = 120.0


@dataclass(frozen=True)
class Checkpoint:
    """A completed checkpoint: where it lies, when it was triggered, how large it is."""

    path: str
    at_ms: int
    size_bytes: int


@dataclass(frozen=True)
class JobView:
    """A job as Flink shows it.

    Attributes:
        id, name, state: Flink's.
        restarts: since it was submitted.
        last_checkpoint: None before the first.
        last_failure: what made it restart last; None where nothing did.
        unsettled: whether it failed in the last minutes and more than twice in all: it may go on so for ever.
        stands_still: why it does no work, whatever its state; None where all of its tasks run, or it has ended.
    """

    id: str
    name: str
    state: str
    restarts: int
    last_checkpoint: Checkpoint | None
    last_failure: str | None
    unsettled: bool
    stands_still: str | None


def live_jobs(flink: FlinkRest, names: Iterable[str]) -> dict[str, str]:
    """Ids of the jobs with these names that have not ended, by name."""
    wanted = set(names)
    jobs = flink.get("/jobs/overview")["jobs"]
    return {job["name"]: job["jid"] for job in jobs if job["name"] in wanted and job["state"] not in _ENDED}


def look(flink: FlinkRest, job: str, now_ms: int) -> JobView:
    """The job as it is now. Raises ClusterError where the cluster does not know it."""
    shown = flink.get(f"/jobs/{job}")
    metrics = flink.get(f"/jobs/{job}/metrics?get=numRestarts")
    restarts = max((int(float(m["value"])) for m in metrics), default=0)
    history = flink.get(f"/jobs/{job}/exceptions?maxExceptions=1").get("exceptionHistory", {}).get("entries", [])
    failed_at_ms = history[0]["timestamp"] if history else 0
    trace = history[0]["stacktrace"] if history else ""
    return JobView(
        job,
        shown["name"],
        shown["state"],
        restarts,
        last_checkpoint(flink, job),
        failure_in(trace) if history else None,
        restarts > 2 and now_ms - failed_at_ms < _UNSETTLED_S * 1000,
        None if shown["state"] in _ENDED else why_still(shown["vertices"], flink.get("/overview")),
    )


def why_still(vertices: Iterable[Mapping[str, Any]], overview: Mapping[str, int]) -> str | None:
    """Why a job with these vertices does no work on a cluster that is so; None where all of its tasks run.

    >>> why_still([{"tasks": {"RUNNING": 2, "SCHEDULED": 0}}], {})
    >>> cluster = {"taskmanagers": 0, "slots-total": 0, "slots-available": 0}
    >>> why_still([{"tasks": {"SCHEDULED": 2}}, {"tasks": {"CREATED": 1}}], cluster)
    '3 of 3 tasks do not run (1 CREATED, 2 SCHEDULED): no TaskManager is there'
    >>> why_still([{"tasks": {"RUNNING": 1, "INITIALIZING": 1}}], cluster | {"taskmanagers": 1})
    '1 of 2 tasks do not run (1 INITIALIZING)'
    """
    tasks: Counter[str] = Counter()
    for vertex in vertices:
        tasks.update(vertex["tasks"])
    idle = {state: count for state, count in sorted(tasks.items()) if count and state not in _AT_WORK}
    if not idle:
        return None
    states = ", ".join(f"{count} {state}" for state, count in idle.items())
    told = f"{sum(idle.values())} of {tasks.total()} tasks do not run ({states})"
    if not idle.keys() & _WITHOUT_SLOT:
        return told
    slots = f"{overview['slots-available']} of {overview['slots-total']} slots are free"
    return f"{told}: {slots if overview['taskmanagers'] else 'no TaskManager is there'}"


def last_checkpoint(flink: FlinkRest, job: str) -> Checkpoint | None:
    """The job's last completed checkpoint; None before the first."""
    latest = flink.get(f"/jobs/{job}/checkpoints").get("latest") or {}
    found = latest.get("completed")
    if not found:
        return None
    return Checkpoint(found["external_path"], found["trigger_timestamp"], found["state_size"])


def wait_running(flink: FlinkRest, job: str, clock: Clock, within_s: float = _RUN_WITHIN_S) -> None:
    """Return once all of the job's tasks run.

    Raises ClusterError where they do not within `within_s`, or the job has ended or fails again and again; it names the
    last failure.
    """
    ends_s = clock.monotonic_s() + within_s
    while True:
        shown = flink.get(f"/jobs/{job}")
        tasks = {vertex["status"] for vertex in shown["vertices"]}
        if shown["state"] == "RUNNING" and tasks <= _AT_WORK:
            return
        over = shown["state"] in _ENDED or clock.monotonic_s() > ends_s
        # Asked only then: a job that has just been submitted does not answer everything yet.
        view = look(flink, job, clock.now_ms()) if over or shown["state"] == "RESTARTING" else None
        if view is not None and (over or view.unsettled):
            raise ClusterError(
                f"job {view.name} is {view.state} with tasks {', '.join(sorted(tasks))}: "
                f"{view.last_failure or view.stands_still}. hint: a job takes flink.parallelism slots, each of "
                f"cluster.taskmanagers has cluster.taskmanager_slots; see {flink.address}"
            )
        clock.wait(_LOOK_EVERY_S)


def stop_with_savepoint(flink: FlinkRest, job: str, folder: str, clock: Clock) -> str:
    """Take a savepoint into `folder` (a URI) and end the job; returns the savepoint's path. Nothing is drained.

    Raises ClusterError where the savepoint fails; the job then goes on.
    """
    order = flink.post(f"/jobs/{job}/stop", {"targetDirectory": folder, "drain": False})["request-id"]
    ends_s = clock.monotonic_s() + _STOP_WITHIN_S
    while clock.monotonic_s() < ends_s:
        answer = flink.get(f"/jobs/{job}/savepoints/{order}")
        if answer["status"]["id"] == "COMPLETED":
            operation = answer["operation"]
            if "location" in operation:
                _wait_ended(flink, job, clock)
                return str(operation["location"])
            raise ClusterError(
                f"savepoint of job {job} failed: {failure_in(operation['failure-cause']['stack-trace'])}"
            )
        clock.wait(_LOOK_EVERY_S)
    raise ClusterError(f"savepoint of job {job} took longer than {_STOP_WITHIN_S:.0f} s")


def cancel(flink: FlinkRest, job: str, clock: Clock) -> None:
    """End the job without a savepoint; its last checkpoint stays."""
    flink.patch(f"/jobs/{job}?mode=cancel")
    _wait_ended(flink, job, clock)


def _wait_ended(flink: FlinkRest, job: str, clock: Clock) -> None:
    ends_s = clock.monotonic_s() + _END_WITHIN_S
    while (state := flink.get(f"/jobs/{job}")["state"]) not in _ENDED:
        if clock.monotonic_s() > ends_s:
            raise ClusterError(f"job {job} is still {state} after {_END_WITHIN_S:.0f} s. hint: see {flink.address}")
        clock.wait(_LOOK_EVERY_S)


def failure_in(stack_trace: str) -> str:
    """What a person wants to read of a stack trace: a worker's error, else the first cause that says something.

    >>> lines = ["java.lang.Exception: x", "at a.b", "pipeline.errors.FencedError: shard 0 was taken", "at c"]
    >>> failure_in(chr(10).join(lines))
    'FencedError: shard 0 was taken'
    >>> lines = ["a.AsynchronousException: timer", "Caused by: TimerException{x}", "Caused by: a.IOException: gone"]
    >>> failure_in(chr(10).join([*lines, "at a.b", "Caused by: a.b: cancelled"]))
    'a.IOException: gone'
    """
    own = _PYTHON_ERROR.findall(stack_trace)
    if own:
        return str(own[-1])
    causes: list[str] = [stack_trace.strip().split("\n", 1)[0], *_CAUSE.findall(stack_trace)]
    return next((cause for cause in causes if not _WRAPPING.match(cause)), causes[-1])
