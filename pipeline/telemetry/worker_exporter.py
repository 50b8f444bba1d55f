"""Exporters of a job's workers on a cluster: several processes of one kind, each of which may be killed at any time.

A worker exports under its process name (`process_name.py`), so a worker that replaces a killed one replaces its target
file, and Prometheus sees a restart. A worker that cannot export logs a warning and continues: processing does not
depend on metrics.
"""

import threading
from pathlib import Path

import structlog

from pipeline.configuration.project import Project
from pipeline.errors import SpringtideError
from pipeline.process.process_name import ProcessName, abandoned_names
from pipeline.telemetry.discovery import target_path
from pipeline.telemetry.exporter import start_exporter, stop_exporter

logger = structlog.get_logger(__name__)
_lock = threading.Lock()
_name: ProcessName | None = None


def start_worker_exporter(root: Path, job: str) -> None:
    """Export this worker's metrics if the project's `[telemetry] port` is set. Thread-safe; later calls do nothing.

    Target files of this job's killed workers on this machine are removed.

    Args:
        root: the project's folder.
        job: the worker's job, such as `train`.
    """
    global _name
    with _lock:
        if _name is not None:
            return
        try:
            project = Project.open(root)
            if project.config.telemetry.port is None:
                return
            _name = ProcessName(project.telemetry, job)
            _remove_abandoned_targets(project, job)
            start_exporter(project, _name.name)
        except (SpringtideError, OSError) as failure:
            logger.warning("metrics of this worker are not exported", job=job, problem=str(failure))


def stop_worker_exporter() -> None:
    """Stop exporting and release the process name: target files that remain belong to killed workers."""
    global _name
    stop_exporter()
    if _name is not None:
        _name.release()
    _name = None


def _remove_abandoned_targets(project: Project, job: str) -> None:
    with abandoned_names(project.telemetry, job) as names:
        for name in names:
            target_path(project, name).unlink(missing_ok=True)
