"""Deploys the jobs on a Flink cluster: submits them, reports their state, and stops them with a savepoint.

Messages for people go to the caller's `report`.
"""

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.configuration.project import Project
from pipeline.errors import ClusterError, ConfigError, InputError
from pipeline.flink import jobs, resume
from pipeline.flink.options import Submission
from pipeline.flink.rest import FlinkRest

JOBS = ("samples", "train")

Report = Callable[[str], None]
_LOOK_PATIENCE_S = 3.0


def submit_jobs(project: Project, wanted: Iterable[str], from_logs: bool, report: Report) -> list[dict[str, Any]]:
    """Start the jobs that do not run yet, each from its savepoint, its last checkpoint or the logs; until they run."""
    flink, wanted = FlinkRest(rest_of(project)), tuple(wanted)
    running = _running(project, flink, wanted)
    started: list[dict[str, Any]] = []
    for job in wanted:
        if job in running:
            report(f"job {job} runs already")
            started.append({"job": job, "id": running[job], "submitted": False, "from": None})
            continue
        began = None if from_logs else _resume_path(project, flink, job, report)
        report(f"job {job} starts from {began or 'the logs'}")
        id = _submit(project, job, began)
        started.append({"job": job, "id": id, "submitted": True, "from": began})
    for row in started:
        jobs.wait_running(flink, row["id"], project.clock)
    return started


def stop_jobs(project: Project, wanted: Iterable[str], report: Report) -> list[dict[str, Any]]:
    """Stop the jobs that run, each with a savepoint that its next submission starts from."""
    flink = FlinkRest(rest_of(project))
    return [
        {"job": job, "id": id, "savepoint": _stop_one(project, flink, job, id, report)}
        for job, id in _running(project, flink, wanted).items()
    ]


def jobs_status(project: Project, report: Report) -> list[dict[str, Any]]:
    """The jobs that were ever submitted, as the cluster shows them; a cluster that is away is said, not raised."""
    flink, rows = FlinkRest(rest_of(project), _LOOK_PATIENCE_S), []
    for job in JOBS:
        submitted = resume.read_submitted(_folder(project), job)
        if submitted is None:
            continue
        row: dict[str, Any] = {"job": job, "savepoint": submitted.savepoint}
        try:
            view = jobs.look(flink, submitted.job, project.clock.now_ms())
            rows.append({**row, **asdict(view)})
            if view.stands_still:
                report(f"job {job} stands still: {view.stands_still}")
            if view.unsettled:
                report(
                    f"job {job} restarts again and again, {view.restarts} times so far, last over: {view.last_failure}"
                )
        except ClusterError as failure:
            rows.append({**row, "id": submitted.job, "state": "UNKNOWN", "last_failure": str(failure)})
    return rows


def rest_of(project: Project) -> str:
    """The REST address of the cluster the configuration names."""
    return project.config.flink.rest or f"http://127.0.0.1:{project.config.cluster.flink_rest_port}"


def job_names(names: Sequence[str]) -> Sequence[str]:
    """The jobs that `names` names; `all` names every one. Raises InputError."""
    known = (*JOBS, "all")
    for name in names:
        if name not in known:
            raise InputError(f"job {name} does not exist. known: {', '.join(known)}")
    return JOBS if "all" in names else names


def _submit(project: Project, job: str, began: str | None) -> str:
    from pipeline.flink.submit import submit

    id = submit(_submission(project, job), _builder(project, job), began)
    resume.write_submitted(_folder(project), job, resume.Submitted(id, _form(project), began))
    return id


def _builder(project: Project, job: str) -> Callable[[Any], None]:
    from pipeline.samples.run import live_job as samples
    from pipeline.trainer.run import live_job as train

    build = {"samples": samples.build, "train": train.build}[job]
    return lambda pipeline: build(pipeline, project)


def _submission(project: Project, job: str) -> Submission:
    flink = project.config.flink
    return Submission(
        name=_name(project, job),
        rest=FlinkRest(rest_of(project)).address,
        jar=_jar(project),
        worker=_worker(flink.worker),
        parallelism=flink.parallelism,
        checkpoint_every_s=flink.checkpoint_every_s,
        folder=_storage(project, job),
        logs=_folder(project) / "workers" / job,
        project=project.root,
        job=job,
    )


def _jar(project: Project) -> Path:
    given = project.config.flink.jar
    jar = project.root / given if given else project.cluster / "flink" / "base.jar"
    if not jar.exists():
        hint = (
            "correct it, or remove it to take that of the local cluster" if given else "springtide cluster up makes it"
        )
        raise ConfigError(f"flink.jar: {jar} does not exist. hint: {hint}")
    return jar


def _worker(command: str) -> str:
    """The command with its folder, where it lies beside this interpreter or on the path; else as it is."""
    beside = Path(sys.executable).parent / command
    return str(beside) if beside.exists() else shutil.which(command) or command


def _stop_one(project: Project, flink: FlinkRest, job: str, id: str, report: Report) -> str | None:
    submitted = resume.read_submitted(_folder(project), job) or resume.Submitted(id, "")
    try:
        savepoint = jobs.stop_with_savepoint(flink, id, f"{_storage(project, job)}/savepoints", project.clock)
    except ClusterError as failure:
        report(f"job {job} is stopped without a savepoint: {failure}")
        jobs.cancel(flink, id, project.clock)
        return None
    resume.write_submitted(_folder(project), job, resume.stopped_at(submitted, savepoint))
    return savepoint


def _resume_path(project: Project, flink: FlinkRest, job: str, report: Report) -> str | None:
    form = _form(project)
    submitted = resume.read_submitted(_folder(project), job)
    if submitted is not None and submitted.form != form:
        report(f"job {job} ran as {submitted.form}, and is to run as {form}: its savepoints do not fit")
    return resume.resume_path(flink, submitted, form, f"{_storage(project, job)}/checkpoints")


def _form(project: Project) -> str:
    return resume.form_of(project.config.flink.parallelism, project.config.logs.partitions)


def _running(project: Project, flink: FlinkRest, wanted: Iterable[str]) -> dict[str, str]:
    by_name = {_name(project, job): job for job in wanted}
    return {by_name[name]: id for name, id in jobs.live_jobs(flink, by_name).items()}


def _name(project: Project, job: str) -> str:
    return f"springtide-{project.config.name}-{job}"


def _folder(project: Project) -> Path:
    return project.state / "flink"


def _storage(project: Project, job: str) -> str:
    """URI of the folder for the job's checkpoints and savepoints."""
    return f"{project.config.flink.folder or _folder(project).as_uri()}/{job}"
