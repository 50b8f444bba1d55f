"""Metrics of a job's workers on a cluster: several processes of one kind, any of which may be killed.

A worker answers under the name of a seat (`seat.py`), so that one which follows a killed one takes over its address
file, and starts again count as such. A worker that cannot answer says so and works on: nobody's data waits for metrics.
"""

import threading
from pathlib import Path

import structlog

from pipeline.configuration.project import Project
from pipeline.errors import SpringtideError
from pipeline.process.process_name import Seat, left_seats
from pipeline.telemetry import metrics

_talk = structlog.get_logger(__name__)
_turn = threading.Lock()
_seat: Seat | None = None


def serve_worker(root: Path, job: str) -> None:
    """Answer Prometheus from now on as a worker of `job`, where the project's `[telemetry] port` says so. Thread-safe.

    Once is enough. Address files that dead workers of this job left on this machine are taken away.

    Args:
        root: the project's folder.
        job: which of its jobs, such as `train`.
    """
    global _seat
    with _turn:
        if _seat is not None:
            return
        try:
            project = Project.open(root)
            if project.config.telemetry.port is None:
                return
            _seat = Seat(project.telemetry, job)
            _clean(project, job)
            metrics.serve(project, _seat.name)
        except (SpringtideError, OSError) as failure:
            _talk.warning("this worker's metrics are not answered", job=job, problem=str(failure))


def stop_serving_worker() -> None:
    """Take the address back, in order: what is left then is of processes that were killed."""
    global _seat
    metrics.stop_serving()
    if _seat is not None:
        _seat.leave()
    _seat = None


def _clean(project: Project, job: str) -> None:
    with left_seats(project.telemetry, job) as names:
        for name in names:
            (project.telemetry / f"{name}.json").unlink(missing_ok=True)
