"""The options a job is submitted with. Flink stores them in every checkpoint, so they contain no documents."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOGS_OPTION = "beam:option:springtide_worker_logs:v1"
"""Beam's name of the option with the folder of the worker logs, in the options that a worker receives."""
PROJECT_OPTION = "beam:option:springtide_project:v1"
"""Likewise of the project folder."""
JOB_OPTION = "beam:option:springtide_job:v1"
"""Likewise of the job's name in the project."""

_BUNDLE_ELEMENTS = 100
_BUFFER_MS = 5
"""Time after which a network buffer is flushed: Flink's default of 100 ms would delay every click."""
_STATE_CACHE_MB = 100
_RESTARTS = 1_000_000
_RESTART_AFTER_MS = 100
"""Starting workers takes seconds anyway, so a job that fails forever does not overload the cluster."""


@dataclass(frozen=True)
class Submission:
    """A job to submit.

    Attributes:
        name: the job's name, unique among running jobs.
        rest: the cluster's REST address, `http://host:port`.
        jar: the small jar with Beam's entry class.
        worker: the command that starts a worker on a TaskManager.
        parallelism: Flink subtasks of every step.
        checkpoint_every_s: interval of checkpoints.
        bundle_ms: the longest time that a bundle of records stays open.
        folder: URI of the checkpoints and savepoints, on storage shared by all machines of the cluster.
        logs: folder of the workers' log files.
        project: the project folder.
        job: the job's name in the project.
    """

    name: str
    rest: str
    jar: Path
    worker: str
    parallelism: int
    checkpoint_every_s: float
    bundle_ms: int
    folder: str
    logs: Path
    project: Path
    job: str


def arguments(job: Submission) -> list[str]:
    """Beam's options for the job.

    Without bundle limits elements remain in an open bundle forever; with few restarts a single outage exhausts them.
    """
    return [
        "--streaming",
        f"--job_name={job.name}",
        f"--flink_master={job.rest}",
        "--flink_submit_uber_jar",
        f"--flink_job_server_jar={job.jar}",
        "--environment_type=PROCESS",
        f"--environment_config={json.dumps({'command': job.worker})}",
        "--sdk_worker_parallelism=1",
        f"--parallelism={job.parallelism}",
        # One key group per subtask: state is never rescaled, and keys can be chosen so that they spread evenly over
        # the subtasks.
        f"--max_parallelism={job.parallelism}",
        f"--max_cache_memory_usage_mb={_STATE_CACHE_MB}",
        f"--max_bundle_size={_BUNDLE_ELEMENTS}",
        f"--max_bundle_time_mills={job.bundle_ms}",
        "--finish_bundle_before_checkpointing",
        f"--checkpointing_interval={round(job.checkpoint_every_s * 1000)}",
        f"--number_of_execution_retries={_RESTARTS}",
        f"--execution_retry_delay={_RESTART_AFTER_MS}",
        "--externalized_checkpoints_enabled",
        "--retain_externalized_checkpoints_on_cancellation",
        "--state_backend=filesystem",
        f"--state_backend_storage_path={job.folder}/checkpoints",
        f"--springtide_worker_logs={job.logs}",
        f"--springtide_project={job.project}",
        f"--springtide_job={job.job}",
    ]


def run_request(request: Mapping[str, Any], savepoint: str | None) -> dict[str, Any]:
    """The request that runs the jar, with a savepoint and settings for which Beam has no working option.

    >>> run_request({"parallelism": 1}, None)["flinkConfiguration"]
    {'execution.buffer-timeout.interval': '5 ms'}
    """
    start = {} if savepoint is None else {"savepointPath": savepoint}
    settings = {"execution.buffer-timeout.interval": f"{_BUFFER_MS} ms"}
    return {**request, **start, "flinkConfiguration": settings}
