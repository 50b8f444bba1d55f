"""Deploys the jobs on a Flink cluster: submits them, reports their status, and stops them with a savepoint.

Messages for people go to the caller's `report`.
"""

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.cluster.flink_rest import FlinkRest
from pipeline.configuration.project import Project
from pipeline.errors import ClusterError, ConfigError, InputError
from pipeline.flink import jobs
from pipeline.flink.options import Submission
from pipeline.flink.resume import (
    LastSubmission,
    compatibility_of,
    read_last_submission,
    resume_path,
    write_last_submission,
)

JOBS = ("samples", "train")

Report = Callable[[str], None]
_STATUS_TIMEOUT_S = 3.0


def submit_jobs(project: Project, names: Iterable[str], from_logs: bool, report: Report) -> list[dict[str, Any]]:
    """Submit the jobs that do not run yet and return once all tasks run.

    Each starts from its savepoint, else its last checkpoint, else the logs; with `from_logs` always from the logs.
    """
    flink, names = FlinkRest(rest_address(project)), tuple(names)
    active = _active_jobs(project, flink, names)
    submitted: list[dict[str, Any]] = []
    for name in names:
        if name in active:
            report(f"job {name} is already running")
            submitted.append({"job": name, "id": active[name], "submitted": False, "from": None})
            continue
        start = None if from_logs else _resume_path(project, flink, name, report)
        report(f"job {name} starts from {start or 'the logs'}")
        submitted.append({"job": name, "id": _submit(project, name, start), "submitted": True, "from": start})
    for row in submitted:
        jobs.wait_running(flink, row["id"], project.clock)
    return submitted


def stop_jobs(project: Project, names: Iterable[str], report: Report) -> list[dict[str, Any]]:
    """Stop the running jobs, each with a savepoint from which its next submission starts."""
    flink = FlinkRest(rest_address(project))
    return [
        {"job": name, "id": id, "savepoint": _stop_job(project, flink, name, id, report)}
        for name, id in _active_jobs(project, flink, names).items()
    ]


def running_jobs(project: Project, names: Iterable[str]) -> list[dict[str, Any]]:
    """The running jobs that `stop_jobs` would stop."""
    flink = FlinkRest(rest_address(project))
    return [{"job": name, "id": id} for name, id in _active_jobs(project, flink, names).items()]


def jobs_status(project: Project, report: Report) -> list[dict[str, Any]]:
    """The status of every job that was ever submitted; UNKNOWN, without an error, if the cluster is unavailable."""
    flink, rows = FlinkRest(rest_address(project), _STATUS_TIMEOUT_S), []
    for name in JOBS:
        last = read_last_submission(_folder(project), name)
        if last is None:
            continue
        row: dict[str, Any] = {"job": name, "savepoint": last.savepoint}
        try:
            status = jobs.job_status(flink, last.job, project.clock.now_ms())
        except ClusterError as failure:
            rows.append({**row, "id": last.job, "state": "UNKNOWN", "last_failure": str(failure)})
            continue
        rows.append({**row, **asdict(status)})
        if status.stalled:
            report(f"job {name} is stalled: {status.stalled}")
        if status.restart_loop:
            report(f"job {name} is in a restart loop: {status.restarts} restarts, last failure: {status.last_failure}")
    return rows


def rest_address(project: Project) -> str:
    """The REST address of the configured cluster."""
    return project.config.flink.rest or f"http://127.0.0.1:{project.config.cluster.flink_rest_port}"


def parse_job_names(names: Sequence[str]) -> Sequence[str]:
    """The jobs called `names`, where `all` stands for every job. Raises InputError."""
    known = (*JOBS, "all")
    for name in names:
        if name not in known:
            raise InputError(f"job {name} does not exist. known: {', '.join(known)}")
    return JOBS if "all" in names else names


def _submit(project: Project, name: str, start: str | None) -> str:
    """Submit a job and store the submission; returns Flink's job id."""
    from pipeline.flink.submit import submit
    from pipeline.samples.run import on_flink as samples
    from pipeline.trainer.run import on_flink as train

    build = {"samples": samples.build, "train": train.build}[name]
    id = submit(_submission(project, name), lambda pipeline: build(pipeline, project), start)
    write_last_submission(_folder(project), name, LastSubmission(id, _compatibility(project), start))
    return id


def _submission(project: Project, name: str) -> Submission:
    flink = project.config.flink
    return Submission(
        name=_flink_name(project, name),
        rest=FlinkRest(rest_address(project)).address,
        jar=_jar(project),
        worker=_worker(flink.worker),
        parallelism=flink.parallelism,
        checkpoint_every_s=flink.checkpoint_every_s,
        bundle_ms=flink.bundle_ms,
        folder=_storage(project, name),
        logs=_folder(project) / "workers" / name,
        project=project.root,
        job=name,
    )


def _jar(project: Project) -> Path:
    configured = project.config.flink.jar
    jar = project.root / configured if configured else project.cluster / "flink" / "base.jar"
    if not jar.exists():
        hint = (
            "correct it, or remove it to use that of the local cluster"
            if configured
            else "springtide cluster up writes it"
        )
        raise ConfigError(f"flink.jar: {jar} does not exist. hint: {hint}")
    return jar


def _worker(command: str) -> str:
    """The path of the command, next to this interpreter or on PATH; the command itself if it is in neither."""
    path = Path(sys.executable).parent / command
    return str(path) if path.exists() else shutil.which(command) or command


def _stop_job(project: Project, flink: FlinkRest, name: str, id: str, report: Report) -> str | None:
    """Stop a job with a savepoint, or without one if that fails; returns the path of the savepoint."""
    last = read_last_submission(_folder(project), name) or LastSubmission(id, "")
    try:
        savepoint = jobs.stop_with_savepoint(flink, id, f"{_storage(project, name)}/savepoints", project.clock)
    except ClusterError as failure:
        report(f"job {name} is stopped without a savepoint: {failure}")
        jobs.cancel(flink, id, project.clock)
        return None
    write_last_submission(_folder(project), name, replace(last, savepoint=savepoint))
    return savepoint


def _resume_path(project: Project, flink: FlinkRest, name: str, report: Report) -> str | None:
    required, last = _compatibility(project), read_last_submission(_folder(project), name)
    if last is not None and last.compatibility != required:
        report(f"job {name} last ran with {last.compatibility}; now {required}: its savepoints are incompatible")
    return resume_path(flink, last, required, f"{_storage(project, name)}/checkpoints")


def _compatibility(project: Project) -> str:
    return compatibility_of(project.config.flink.parallelism, project.config.logs.partitions)


def _active_jobs(project: Project, flink: FlinkRest, names: Iterable[str]) -> dict[str, str]:
    """Flink's ids of the named jobs that have not ended."""
    by_flink_name = {_flink_name(project, name): name for name in names}
    return {by_flink_name[name]: id for name, id in jobs.active_jobs(flink, by_flink_name).items()}


def _flink_name(project: Project, name: str) -> str:
    return f"springtide-{project.config.name}-{name}"


def _folder(project: Project) -> Path:
    return project.state / "flink"


def _storage(project: Project, name: str) -> str:
    """URI of the folder for the job's checkpoints and savepoints."""
    return f"{project.config.flink.folder or _folder(project).as_uri()}/{name}"
