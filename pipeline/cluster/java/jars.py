"""Downloads the jars of each server with Maven, each into its own folder because their class paths conflict.

The folder name contains a digest of `pom.xml` and the requested versions, so each combination has its own folder.
A folder is filled under a temporary name and renamed: an existing folder is complete.
"""

import hashlib
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from pipeline.cluster.java.programs import find_maven
from pipeline.errors import ClusterError, ConfigError

Engine = Literal["kafka", "flink", "store"]
POM = Path(__file__).parents[1] / "pom.xml"


def jars_folder(engine: Engine, versions: Mapping[str, str], cache: Path) -> Path:
    """The folder for the jars of `engine`, existing or not."""
    contents = POM.read_bytes() + repr(sorted(versions.items())).encode()
    return cache / "jars" / f"{engine}-{hashlib.sha256(contents).hexdigest()[:16]}"


def resolve_jars(engine: Engine, versions: Mapping[str, str], cache: Path) -> Path:
    """The folder with the jars of `engine`; downloads them if they are missing.

    Raises:
        ConfigError: for a version that is no property of `pom.xml`.
        ClusterError: if Maven is missing or cannot download a jar.
    """
    check_versions(versions)
    folder = jars_folder(engine, versions, cache)
    if folder.is_dir():
        return folder
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        _copy_dependencies(engine, versions, temporary)
        temporary.rename(folder)
    except OSError:
        # Renaming onto a non-empty folder fails: another process was faster.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def check_versions(versions: Mapping[str, str]) -> None:
    """Raise ConfigError for a version that is no property of `pom.xml`."""
    properties = ElementTree.parse(POM).iterfind("{*}properties/*")
    known = [element.tag.rpartition("}")[2] for element in properties]
    for name in versions:
        if name not in known:
            raise ConfigError(f"cluster.versions.{name} is no property of {POM.name}. known: {', '.join(known)}")


def _copy_dependencies(engine: Engine, versions: Mapping[str, str], folder: Path) -> None:
    replaced = [f"-D{name}={version}" for name, version in sorted(versions.items())]
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    command = [find_maven(), "-q", "-B", "-f", str(POM), "-P", engine, *replaced, *goal]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # Maven colours its output, so the tag is not always at the start of a line.
        errors = [line.partition("[ERROR] ")[2] for line in done.stdout.splitlines() if "[ERROR] " in line]
        reason = errors[0].removesuffix(" -> [Help 1]") if errors else f"exit code {done.returncode}"
        raise ClusterError(f"Maven cannot download the jars of {engine}: {reason}. hint: see `versions` of [cluster]")
