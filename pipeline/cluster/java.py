"""Java and Maven: where they are, what to say where they are not, and the options every Java process here has."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import ClusterError

OLDEST_JAVA = 17
_HINT = "hint: sudo .ci/install-java, or install Java 17 or newer and Maven as your system does"


def find_java() -> str:
    """The path of a Java that is new enough. Raises ClusterError."""
    java = _find("java")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', told)
    if found is None or int(found[1]) < OLDEST_JAVA:
        first = told.splitlines()[0] if told else "nothing"
        raise ClusterError(f"{java} says {first}, the cluster needs Java {OLDEST_JAVA} or newer. {_HINT}")
    return java


def find_maven() -> str:
    """The path of Maven. Raises ClusterError."""
    return _find("mvn")


def java_command(jars: Path, temporary: Path, options: Sequence[str], main: Sequence[str]) -> list[str]:
    """Run `main`, a class and its arguments, with all `jars` and nothing written outside `temporary`."""
    common = ["-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData", f"-Djava.io.tmpdir={temporary}"]
    return [find_java(), *common, *options, "-cp", f"{jars}/*", *main]


def _find(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise ClusterError(f"{program} is not on PATH: the cluster needs Java {OLDEST_JAVA} and Maven. {_HINT}")
    return path
