"""Jobs on a cluster: their status, and how they are stopped. Stateless: every call queries Flink."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.cluster.flink_rest import FlinkRest
from pipeline.errors import ClusterError
from pipeline.process.clock import Clock

_ENDED = {"CANCELED", "FAILED", "FINISHED"}
_ACTIVE_TASK = {"RUNNING", "FINISHED"}
_WITHOUT_SLOT = {"CREATED", "SCHEDULED"}
_POLL_EVERY_S = 0.1
_SAVEPOINT_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 60.0
_RUN_TIMEOUT_S = 120.0
_PYTHON_ERROR = re.compile(r"^(?:[\w.]+\.)?(\w+Error: .*)$", re.MULTILINE)
_CAUSE = re.compile(r"^Caused by: (.*)$", re.MULTILINE)
_WRAPPER = re.compile(
    r"[\w.]*(?:Asynchronous|Timer|Execution|Completion)Exception\b|[\w.]+: [\w.]+(?:Exception|Error)\b"
)
"""Exceptions that only report in which thread or call a cause occurred, such as Flink's timer that ends a bundle."""
_RESTART_LOOP_S = 120.0


@dataclass(frozen=True)
class Checkpoint:
    """A completed checkpoint: its path, when it was triggered, its size."""

    path: str
    at_ms: int
    size_bytes: int


@dataclass(frozen=True)
class JobStatus:
    """A job's status in Flink.

    Attributes:
        id, name, state: Flink's.
        restarts: since the submission.
        last_checkpoint: None before the first.
        last_failure: the cause of the last restart; None if there was none.
        restart_loop: whether it failed in the last two minutes and more than twice in all.
        stalled: why not all tasks run, whatever the job's state; None if all run or the job has ended.
    """

    id: str
    name: str
    state: str
    restarts: int
    last_checkpoint: Checkpoint | None
    last_failure: str | None
    restart_loop: bool
    stalled: str | None


def active_jobs(flink: FlinkRest, names: Iterable[str]) -> dict[str, str]:
    """Ids of the jobs with these names that have not ended, by name."""
    wanted = set(names)
    jobs = flink.get("/jobs/overview")["jobs"]
    return {job["name"]: job["jid"] for job in jobs if job["name"] in wanted and job["state"] not in _ENDED}


def job_status(flink: FlinkRest, job: str, now_ms: int) -> JobStatus:
    """The job's current status. Raises ClusterError if the cluster has no such job."""
    detail = flink.get(f"/jobs/{job}")
    metrics = flink.get(f"/jobs/{job}/metrics?get=numRestarts")
    restarts = max((int(float(m["value"])) for m in metrics), default=0)
    history = flink.get(f"/jobs/{job}/exceptions?maxExceptions=1").get("exceptionHistory", {}).get("entries", [])
    failed_at_ms = history[0]["timestamp"] if history else 0
    return JobStatus(
        id=job,
        name=detail["name"],
        state=detail["state"],
        restarts=restarts,
        last_checkpoint=last_checkpoint(flink, job),
        last_failure=root_cause(history[0]["stacktrace"]) if history else None,
        restart_loop=restarts > 2 and now_ms - failed_at_ms < _RESTART_LOOP_S * 1000,
        stalled=None if detail["state"] in _ENDED else stall_reason(detail["vertices"], flink.get("/overview")),
    )


def stall_reason(vertices: Iterable[Mapping[str, Any]], overview: Mapping[str, int]) -> str | None:
    """Why a job with these vertices does not run completely on a cluster with this overview; None if all tasks run.

    >>> stall_reason([{"tasks": {"RUNNING": 2, "SCHEDULED": 0}}], {})
    >>> cluster = {"taskmanagers": 0, "slots-total": 0, "slots-available": 0}
    >>> stall_reason([{"tasks": {"SCHEDULED": 2}}, {"tasks": {"CREATED": 1}}], cluster)
    '3 of 3 tasks do not run (1 CREATED, 2 SCHEDULED): no TaskManager is registered'
    >>> stall_reason([{"tasks": {"RUNNING": 1, "INITIALIZING": 1}}], cluster | {"taskmanagers": 1})
    '1 of 2 tasks do not run (1 INITIALIZING)'
    """
    tasks: Counter[str] = Counter()
    for vertex in vertices:
        tasks.update(vertex["tasks"])
    idle = {state: count for state, count in sorted(tasks.items()) if count and state not in _ACTIVE_TASK}
    if not idle:
        return None
    states = ", ".join(f"{count} {state}" for state, count in idle.items())
    reason = f"{sum(idle.values())} of {tasks.total()} tasks do not run ({states})"
    if not idle.keys() & _WITHOUT_SLOT:
        return reason
    slots = f"{overview['slots-available']} of {overview['slots-total']} slots are free"
    return f"{reason}: {slots if overview['taskmanagers'] else 'no TaskManager is registered'}"


def last_checkpoint(flink: FlinkRest, job: str) -> Checkpoint | None:
    """The job's last completed checkpoint; None before the first."""
    latest = flink.get(f"/jobs/{job}/checkpoints").get("latest") or {}
    completed = latest.get("completed")
    if not completed:
        return None
    return Checkpoint(completed["external_path"], completed["trigger_timestamp"], completed["state_size"])


def wait_running(flink: FlinkRest, job: str, clock: Clock, timeout_s: float = _RUN_TIMEOUT_S) -> None:
    """Return once all of the job's tasks run.

    Raises ClusterError with the last failure if the timeout passes, or if the job has ended or is in a restart loop.
    """
    deadline_s = clock.monotonic_s() + timeout_s
    while True:
        detail = flink.get(f"/jobs/{job}")
        tasks = {vertex["status"] for vertex in detail["vertices"]}
        if detail["state"] == "RUNNING" and tasks <= _ACTIVE_TASK:
            return
        over = detail["state"] in _ENDED or clock.monotonic_s() > deadline_s
        # Only then, because some requests fail for a job that has just been submitted.
        status = job_status(flink, job, clock.now_ms()) if over or detail["state"] == "RESTARTING" else None
        if status is not None and (over or status.restart_loop):
            raise ClusterError(
                f"job {status.name} is {status.state} with tasks {', '.join(sorted(tasks))}: "
                f"{status.last_failure or status.stalled}. hint: a job needs flink.parallelism slots, each of "
                f"cluster.taskmanagers has cluster.taskmanager_slots; see {flink.address}"
            )
        clock.wait(_POLL_EVERY_S)


def stop_with_savepoint(flink: FlinkRest, job: str, folder: str, clock: Clock) -> str:
    """Stop the job with a savepoint in `folder` (a URI), without draining; returns the savepoint's path.

    Raises ClusterError if the savepoint fails; the job then continues.
    """
    request = flink.post(f"/jobs/{job}/stop", {"targetDirectory": folder, "drain": False})["request-id"]

    def operation() -> Any:
        response = flink.get(f"/jobs/{job}/savepoints/{request}")
        return response["operation"] if response["status"]["id"] == "COMPLETED" else None

    result = _poll(operation, clock, _SAVEPOINT_TIMEOUT_S, lambda: f"savepoint of job {job} is not complete")
    if "location" not in result:
        raise ClusterError(f"savepoint of job {job} failed: {root_cause(result['failure-cause']['stack-trace'])}")
    _wait_ended(flink, job, clock)
    return str(result["location"])


def cancel(flink: FlinkRest, job: str, clock: Clock) -> None:
    """End the job without a savepoint; its last checkpoint is retained."""
    flink.patch(f"/jobs/{job}?mode=cancel")
    _wait_ended(flink, job, clock)


def _wait_ended(flink: FlinkRest, job: str, clock: Clock) -> None:
    def state() -> str:
        return str(flink.get(f"/jobs/{job}")["state"])

    _poll(lambda: state() in _ENDED, clock, _END_TIMEOUT_S, lambda: f"job {job} is still {state()}")


def _poll(result: Callable[[], Any], clock: Clock, timeout_s: float, problem: Callable[[], str]) -> Any:
    """The first true `result`. Raises ClusterError with `problem` after `timeout_s`."""
    deadline_s = clock.monotonic_s() + timeout_s
    while not (found := result()):
        if clock.monotonic_s() > deadline_s:
            raise ClusterError(f"{problem()} after {timeout_s:.0f} s. hint: see Flink's web page")
        clock.wait(_POLL_EVERY_S)
    return found


def root_cause(stack_trace: str) -> str:
    """The relevant line of a stack trace: a worker's error, else the first cause that is no wrapper.

    >>> lines = ["java.lang.Exception: x", "at a.b", "pipeline.errors.FencedError: shard 0 was taken", "at c"]
    >>> root_cause(chr(10).join(lines))
    'FencedError: shard 0 was taken'
    >>> lines = ["a.AsynchronousException: timer", "Caused by: TimerException{x}", "Caused by: a.IOException: gone"]
    >>> root_cause(chr(10).join([*lines, "at a.b", "Caused by: a.b: cancelled"]))
    'a.IOException: gone'
    """
    python_errors = _PYTHON_ERROR.findall(stack_trace)
    if python_errors:
        return str(python_errors[-1])
    causes: list[str] = [stack_trace.strip().split("\n", 1)[0], *_CAUSE.findall(stack_trace)]
    return next((cause for cause in causes if not _WRAPPER.match(cause)), causes[-1])
