"""Submits a Beam pipeline to a Flink cluster as one small jar, without a job server, from a savepoint or without.

Beam's own way ignores a savepoint here, so it is put into the request that starts the jar, as are Flink's settings.
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
_ANSWER_WITHIN_S = 120.0


class WorkerOptions(PipelineOptions):  # type: ignore[misc]
    """Makes our options ones that travel to the workers."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument("--springtide_worker_logs", help="Folder for the workers' log files.")
        parser.add_argument("--springtide_project", help="The project's folder.")
        parser.add_argument("--springtide_job", help="Which of its jobs this is.")


class _Job(FlinkBeamJob):  # type: ignore[misc]
    """Beam's job, which starts from `savepoint` where there is one, and does not wait for ever for a silent cluster."""

    savepoint: str | None = None

    def request(self, method: Any, path: str, expected_status: int = 200, **request: Any) -> Any:
        request.setdefault("timeout", _ANSWER_WITHIN_S)
        return super().request(method, path, expected_status, **request)  # type: ignore[no-untyped-call]

    def post(self, path: str, **request: Any) -> Any:
        if path.endswith("/run"):
            request["json"] = run_request(request["json"], self.savepoint)
        return super().post(path, **request)  # type: ignore[no-untyped-call]

    @property
    def flink_id(self) -> str:
        return str(self._flink_job_id)


class _Server(FlinkUberJarJobServer):  # type: ignore[misc]
    """Keeps the one job made here."""

    def __init__(self, rest: str, options: PipelineOptions, savepoint: str | None) -> None:
        super().__init__(rest, options)  # type: ignore[no-untyped-call]
        self._savepoint = savepoint
        self.made: _Job | None = None

    def create_beam_job(self, job_id: str, job_name: str, pipeline: Any, options: Any) -> _Job:
        port = self._artifact_port
        jar = self.executable_jar()  # type: ignore[no-untyped-call]
        self.made = _Job(self._master_url, jar, job_id, job_name, pipeline, options, port)  # type: ignore[no-untyped-call]
        self.made.savepoint = self._savepoint
        return self.made


class _Runner(FlinkRunner):  # type: ignore[misc]
    def __init__(self, rest: str, savepoint: str | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rest, self._savepoint = rest, savepoint
        self.server: _Server | None = None

    def default_job_server(self, options: PipelineOptions) -> _Server:
        options.view_as(beam.options.pipeline_options.FlinkRunnerOptions).flink_master = "[auto]"
        self.server = _Server(self._rest, options, self._savepoint)
        return self.server


def submit(job: Submission, build: Build, savepoint: str | None = None) -> str:
    """Start the job; returns Flink's id of it. `build` puts the steps on a pipeline. Not thread-safe."""
    runner = _Runner(job.rest, savepoint)
    with _passing_folder():
        pipeline = beam.Pipeline(runner=runner, options=PipelineOptions(arguments(job)))
        build(pipeline)
        pipeline.run()
    made = None if runner.server is None else runner.server.made
    assert made is not None, "run() submits"
    # A job that was started has a copy of its own.
    made.delete_jar()  # type: ignore[no-untyped-call]
    return made.flink_id


@contextmanager
def _passing_folder() -> Iterator[None]:
    """Temporary files lie in a folder that is gone afterwards: Beam leaves three behind for every job."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="springtide-submit-") as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before
