"""Metrics of a job's workers on a cluster: several processes of one kind, any of which may be killed.

A worker answers under the name of a name (`seat.py`), so that one which follows a killed one takes over its address
file, and starts again count as such. A worker that cannot answer says so and works on: nobody's data waits for metrics.
"""

import threading
from pathlib import Path

import structlog

from pipeline.configuration.project import Project
from pipeline.errors import SpringtideError
from pipeline.process.process_name import ProcessName, abandoned_names
from pipeline.telemetry import metrics

_talk = structlog.get_logger(__name__)
_turn = threading.Lock()
_name: ProcessName | None = None


def serve_worker(root: Path, job: str) -> None:
    """Answer Prometheus from now on as a worker of `job`, where the project's `[telemetry] port` says so. Thread-safe.

    Once is enough. Address files that dead workers of this job left on this machine are taken away.

    Args:
        root: the project's folder.
        job: which of its jobs, such as `train`.
    """
    global _name
    with _turn:
        if _name is not None:
            return
        try:
            project = Project.open(root)
            if project.config.telemetry.port is None:
                return
            _name = ProcessName(project.telemetry, job)
            _clean(project, job)
            metrics.serve(project, _name.name)
        except (SpringtideError, OSError) as failure:
            _talk.warning("this worker's metrics are not answered", job=job, problem=str(failure))


def stop_serving_worker() -> None:
    """Take the address back, in order: what is left then is of processes that were killed."""
    global _name
    metrics.stop_serving()
    if _name is not None:
        _name.release()
    _name = None


def _clean(project: Project, job: str) -> None:
    with abandoned_names(project.telemetry, job) as names:
        for name in names:
            (project.telemetry / f"{name}.json").unlink(missing_ok=True)
