"""Submits a Beam pipeline to a Flink cluster as one small jar, without a job server, optionally from a savepoint.

In this mode Beam ignores savepoints, so the savepoint and Flink's settings are added to the request that runs the jar.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.flink_uber_jar_job_server import FlinkBeamJob, FlinkUberJarJobServer

from pipeline.flink.options import Submission, arguments, run_request

Build = Callable[[beam.Pipeline], None]
_TIMEOUT_S = 120.0


class WorkerOptions(PipelineOptions):  # type: ignore[misc]
    """Declares our options, so that Beam passes them to the workers."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument("--springtide_worker_logs", help="Folder for the workers' log files.")
        parser.add_argument("--springtide_project", help="The project folder.")
        parser.add_argument("--springtide_job", help="The job's name in the project.")


class _Job(FlinkBeamJob):  # type: ignore[misc]
    """Beam's job with an optional savepoint and a request timeout."""

    savepoint: str | None = None

    def request(self, method: Any, path: str, expected_status: int = 200, **request: Any) -> Any:
        request.setdefault("timeout", _TIMEOUT_S)
        return super().request(method, path, expected_status, **request)  # type: ignore[no-untyped-call]

    def post(self, path: str, **request: Any) -> Any:
        if path.endswith("/run"):
            request["json"] = run_request(request["json"], self.savepoint)
        return super().post(path, **request)  # type: ignore[no-untyped-call]

    @property
    def flink_id(self) -> str:
        return str(self._flink_job_id)


class _Server(FlinkUberJarJobServer):  # type: ignore[misc]
    """Stores the one job it creates."""

    def __init__(self, rest: str, options: PipelineOptions, savepoint: str | None) -> None:
        super().__init__(rest, options)  # type: ignore[no-untyped-call]
        self._savepoint = savepoint
        self.job: _Job | None = None

    def create_beam_job(self, job_id: str, job_name: str, pipeline: Any, options: Any) -> _Job:
        port = self._artifact_port
        jar = self.executable_jar()  # type: ignore[no-untyped-call]
        self.job = _Job(self._master_url, jar, job_id, job_name, pipeline, options, port)  # type: ignore[no-untyped-call]
        self.job.savepoint = self._savepoint
        return self.job


class _Runner(FlinkRunner):  # type: ignore[misc]
    def __init__(self, rest: str, savepoint: str | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rest, self._savepoint = rest, savepoint
        self.server: _Server | None = None

    def default_job_server(self, options: PipelineOptions) -> _Server:
        options.view_as(beam.options.pipeline_options.FlinkRunnerOptions).flink_master = "[auto]"
        self.server = _Server(self._rest, options, self._savepoint)
        return self.server


def submit(submission: Submission, build: Build, savepoint: str | None = None) -> str:
    """Start the job; returns Flink's job id. `build` adds the steps to a pipeline. Not thread-safe."""
    runner = _Runner(submission.rest, savepoint)
    with _temporary_folder():
        pipeline = beam.Pipeline(runner=runner, options=PipelineOptions(arguments(submission)))
        build(pipeline)
        pipeline.run()
    job = None if runner.server is None else runner.server.job
    assert job is not None, "run() submits"
    # Flink copies the jar when the job starts.
    job.delete_jar()  # type: ignore[no-untyped-call]
    return job.flink_id


@contextmanager
def _temporary_folder() -> Iterator[None]:
    """Put temporary files into a folder and delete it: Beam leaves three files behind for every job."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="springtide-submit-") as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before
