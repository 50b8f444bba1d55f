"""Target files for Prometheus's file-based service discovery: one per process, in `telemetry/` of the state folder."""

import json
from pathlib import Path

from pipeline.configuration.deployment.address import host_and_port
from pipeline.configuration.project import Project
from pipeline.files.atomic_file import write_atomically


class TargetFile:
    """The file that announces one process; written on construction."""

    def __init__(self, project: Project, process: str, port: int) -> None:
        """Announce `process` on `port`. Raises VersionError if the file cannot be written."""
        self._path = target_path(project, process)
        labels = {"job": "springtide", "model": project.config.name, "instance": f"{project.config.name}/{process}"}
        target = {"targets": [host_and_port(project.config.telemetry.host, port)], "labels": labels}
        self._content = json.dumps([target]).encode()
        write_atomically(self._path, [self._content])

    def remove(self) -> None:
        """Remove the file, unless a successor with the same process name has replaced it."""
        if self._path.exists() and self._path.read_bytes() == self._content:
            self._path.unlink()


def target_path(project: Project, process: str) -> Path:
    """The target file of `process`."""
    return project.telemetry / f"{process}.json"
