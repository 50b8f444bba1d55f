"""Finds Java and Maven, and builds the command of a Java process."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import ClusterError

MIN_JAVA_VERSION = 17
_HINT = "hint: sudo .ci/install-java, or install Java 17 or newer and Maven with your package manager"


def find_java() -> str:
    """The path of a sufficiently new Java. Raises ClusterError."""
    java = _find("java")
    version = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', version)
    if found is None or int(found[1]) < MIN_JAVA_VERSION:
        first = version.splitlines()[0] if version else "no version"
        raise ClusterError(f"{java} reports {first}, the cluster needs Java {MIN_JAVA_VERSION} or newer. {_HINT}")
    return java


def find_maven() -> str:
    """The path of Maven. Raises ClusterError."""
    return _find("mvn")


def java_command(jars: Path, temporary: Path, options: Sequence[str], main: Sequence[str]) -> list[str]:
    """The command that runs `main` (a class and its arguments) with all `jars` and temporary files in `temporary`."""
    common = ["-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData", f"-Djava.io.tmpdir={temporary}"]
    return [find_java(), *common, *options, "-cp", f"{jars}/*", *main]


def _find(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise ClusterError(f"{program} is not on PATH: the cluster needs Java {MIN_JAVA_VERSION} and Maven. {_HINT}")
    return path
