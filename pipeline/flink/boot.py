"""The program that a TaskManager starts for each Python worker of a job (Beam's PROCESS environment).

It reads the worker's configuration from Beam's provision service and redirects the output to a log file, because Flink
discards it. On SIGTERM it unregisters from Prometheus. It exits with its TaskManager, because a killed TaskManager does
not stop its workers. Temporary files are in a folder that is deleted at the end.
"""

import argparse
import atexit
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from apache_beam.portability.api import beam_provision_api_pb2 as provision
from apache_beam.portability.api import beam_provision_api_pb2_grpc as provision_grpc
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format

from pipeline.configuration.environment import crash_point_from_environment, set_environment
from pipeline.flink.options import JOB_OPTION, LOGS_OPTION, PROJECT_OPTION
from pipeline.flink.worker_files import open_log, open_scratch
from pipeline.process import crash_point
from pipeline.process.clock import SystemClock
from pipeline.telemetry.worker_exporter import start_worker_exporter, stop_worker_exporter

_PROVISION_TIMEOUT_S = 30.0
_POLL_EVERY_S = 0.5


def main() -> None:
    """Entry point of the `springtide-worker` script."""
    task_manager = os.getppid()
    arguments = _arguments()
    info = _provision(arguments)
    options = json_format.MessageToDict(info.pipeline_options)
    _redirect_output(open_log(Path(options[LOGS_OPTION]), arguments.id))
    remove_scratch = partial(shutil.rmtree, _use_scratch(), ignore_errors=True)
    atexit.register(remove_scratch)
    set_environment(_environment(arguments, info))
    crash_point.arm_crash_point(crash_point_from_environment())
    threading.Thread(target=_end_with, args=(task_manager, remove_scratch), daemon=True).start()
    signal.signal(signal.SIGTERM, partial(_end, remove_scratch))
    # Before the log is opened: metrics matter most while the brokers are unavailable.
    start_worker_exporter(Path(options[PROJECT_OPTION]), options[JOB_OPTION])
    sdk_worker_main.main([])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    parser.add_argument("--semi_persist_dir", default="")
    known, _ = parser.parse_known_args()
    return known


def _provision(arguments: argparse.Namespace) -> provision.ProvisionInfo:
    # Beam's Java side identifies the worker by this header.
    metadata = [("worker_id", arguments.id)]
    with grpc.insecure_channel(arguments.provision_endpoint) as channel:
        stub = provision_grpc.ProvisionServiceStub(channel)
        request = provision.GetProvisionInfoRequest()
        response: provision.GetProvisionInfoResponse = stub.GetProvisionInfo(
            request, metadata=metadata, timeout=_PROVISION_TIMEOUT_S
        )
        return response.info


def _environment(arguments: argparse.Namespace, info: provision.ProvisionInfo) -> dict[str, str]:
    """The environment variables that `sdk_worker_main` reads."""
    values = {
        "WORKER_ID": arguments.id,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(info.logging_endpoint),
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(info.control_endpoint),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    if info.status_endpoint.url:
        values["STATUS_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(info.status_endpoint)
    if arguments.semi_persist_dir:
        values["SEMI_PERSISTENT_DIRECTORY"] = arguments.semi_persist_dir
    return values


def _redirect_output(path: Path) -> None:
    with path.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def _use_scratch() -> Path:
    """Put all temporary files of this process into one folder, and return it."""
    scratch = open_scratch()
    tempfile.tempdir = str(scratch)
    set_environment({"TMPDIR": str(scratch)})
    return scratch


def _end(remove_scratch: Callable[[], None], number: int, frame: Any) -> None:
    """Exit immediately on SIGTERM; everything in memory is a cache."""
    stop_worker_exporter()
    remove_scratch()
    os._exit(0)


def _end_with(task_manager: int, remove_scratch: Callable[[], None]) -> None:
    """Exit once the TaskManager has ended."""
    clock = SystemClock()
    while os.getppid() == task_manager:
        clock.wait(_POLL_EVERY_S)
    remove_scratch()
    os._exit(1)


if __name__ == "__main__":
    main()
