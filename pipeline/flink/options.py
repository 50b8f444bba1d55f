"""What a job is submitted with. Options are stored in every checkpoint, so they hold no documents."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOGS_OPTION = "beam:option:springtide_worker_logs:v1"
"""Under what name a worker finds the folder of its log file."""
PROJECT_OPTION = "beam:option:springtide_project:v1"
"""Under what name it finds the project's folder."""
JOB_OPTION = "beam:option:springtide_job:v1"
"""Under what name it finds which of the project's jobs it works for."""

_BUNDLE_ELEMENTS = 100
_BUNDLE_MS = 10
_BUFFER_MS = 5
"""What one step gives the next leaves its network buffer after this time: Flink's own 100 ms are a click's."""
_STATE_CACHE_MB = 100
_RESTARTS = 1_000_000
_RESTART_AFTER_MS = 100
"""A start of workers takes seconds by itself, so one that fails for ever is no storm."""


@dataclass(frozen=True)
class Submission:
    """A job as the cluster is to run it.

    Attributes:
        name: the job's; one job of a name runs at a time.
        rest: the cluster's REST address, `http://host:port`.
        jar: the small jar that carries Beam's entry class.
        worker: command that starts a worker on a TaskManager.
        parallelism: Flink subtasks of every step.
        checkpoint_every_s: between checkpoints.
        folder: for checkpoints and savepoints, as a URI; on storage that all machines of the cluster see.
        logs: folder for the workers' log files.
        project: the project's folder.
        job: which of its jobs this is.
    """

    name: str
    rest: str
    jar: Path
    worker: str
    parallelism: int
    checkpoint_every_s: float
    folder: str
    logs: Path
    project: Path
    job: str


def arguments(job: Submission) -> list[str]:
    """Beam's options for the job.

    Without bundle limits elements stay in an open bundle for ever; without many restarts the tries of one outage use
    them up.
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
        # As many key groups as subtasks: they are Flink's units of rescaling, and no state here is ever rescaled, but
        # keys that spread evenly can be chosen (`spread`).
        f"--max_parallelism={job.parallelism}",
        f"--max_cache_memory_usage_mb={_STATE_CACHE_MB}",
        f"--max_bundle_size={_BUNDLE_ELEMENTS}",
        f"--max_bundle_time_mills={_BUNDLE_MS}",
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


def run_request(asked: Mapping[str, Any], savepoint: str | None) -> dict[str, Any]:
    """The request that starts the jar, with what Beam has no option for or passes over.

    >>> run_request({"parallelism": 1}, None)["flinkConfiguration"]
    {'execution.buffer-timeout.interval': '5 ms'}
    """
    start = {} if savepoint is None else {"savepointPath": savepoint}
    settings = {"execution.buffer-timeout.interval": f"{_BUFFER_MS} ms"}
    return {**asked, **start, "flinkConfiguration": settings}
