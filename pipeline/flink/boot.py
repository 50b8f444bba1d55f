"""The program a TaskManager starts for each Python worker of a job (Beam's PROCESS environment).

Asks Beam's provision service what the worker is to know, sends all output to a file of its own (Flink throws a worker's
output away), takes its address back from Prometheus when it is told to end, and ends with its TaskManager: one that was
killed outright ends nobody. Its temporary files lie in a folder that ends with it.
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

from pipeline.configuration.config import crash_point_of_environment, hand_to_worker
from pipeline.flink.options import JOB_OPTION, LOGS_OPTION, PROJECT_OPTION
from pipeline.flink.worker_files import open_log, open_scratch
from pipeline.process import crash_point
from pipeline.process.clock import SystemClock
from pipeline.telemetry.worker_metrics import serve_worker, stop_serving_worker

_ANSWER_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.5


def main() -> None:
    """Entry point of the `springtide-worker` script."""
    task_manager = os.getppid()
    arguments = _arguments()
    found = _provision(arguments)
    options = json_format.MessageToDict(found.pipeline_options)
    _write_to(open_log(Path(options[LOGS_OPTION]), arguments.id))
    forget_scratch = partial(shutil.rmtree, _use_scratch(), ignore_errors=True)
    atexit.register(forget_scratch)
    hand_to_worker(_environment(arguments, found))
    crash_point.arm(crash_point_of_environment())
    threading.Thread(target=_end_with, args=(task_manager, forget_scratch), daemon=True).start()
    signal.signal(signal.SIGTERM, partial(_end, forget_scratch))
    # Before anything asks for the log: a worker whose brokers are away is one to look at.
    serve_worker(Path(options[PROJECT_OPTION]), options[JOB_OPTION])
    sdk_worker_main.main([])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    parser.add_argument("--semi_persist_dir", default="")
    known, _ = parser.parse_known_args()
    return known


def _provision(arguments: argparse.Namespace) -> provision.ProvisionInfo:
    # The Java side knows by this header which worker is calling.
    caller = [("worker_id", arguments.id)]
    with grpc.insecure_channel(arguments.provision_endpoint) as channel:
        stub = provision_grpc.ProvisionServiceStub(channel)
        request = provision.GetProvisionInfoRequest()
        answer: provision.GetProvisionInfoResponse = stub.GetProvisionInfo(
            request, metadata=caller, timeout=_ANSWER_WITHIN_S
        )
        return answer.info


def _environment(arguments: argparse.Namespace, found: provision.ProvisionInfo) -> dict[str, str]:
    """What `sdk_worker_main` expects to find."""
    values = {
        "WORKER_ID": arguments.id,
        "PIPELINE_OPTIONS": json_format.MessageToJson(found.pipeline_options),
        "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(found.logging_endpoint),
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(found.control_endpoint),
        "RUNNER_CAPABILITIES": " ".join(found.runner_capabilities),
    }
    if found.status_endpoint.url:
        values["STATUS_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(found.status_endpoint)
    if arguments.semi_persist_dir:
        values["SEMI_PERSISTENT_DIRECTORY"] = arguments.semi_persist_dir
    return values


def _write_to(path: Path) -> None:
    with path.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def _use_scratch() -> Path:
    """Let all temporary files of this process lie in its own folder."""
    scratch = open_scratch()
    tempfile.tempdir = str(scratch)
    hand_to_worker({"TMPDIR": str(scratch)})
    return scratch


def _end(forget_scratch: Callable[[], None], number: int, frame: Any) -> None:
    """As SIGTERM ends a process, at once; what it holds is nothing but a cache."""
    stop_serving_worker()
    forget_scratch()
    os._exit(0)


def _end_with(task_manager: int, forget_scratch: Callable[[], None]) -> None:
    clock = SystemClock()
    while os.getppid() == task_manager:
        clock.wait(_LOOK_EVERY_S)
    forget_scratch()
    os._exit(1)


if __name__ == "__main__":
    main()
