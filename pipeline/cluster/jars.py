"""The jars of Kafka and of Flink, copied once by Maven into a folder of their own each: their class paths must not mix.

A folder's name holds a digest of `pom.xml` and of the versions asked for, so other versions are other folders. It is
filled under a temporary name and renamed: a folder that is there is whole.
"""

import hashlib
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from pipeline.cluster.java import find_maven
from pipeline.errors import ClusterError, ConfigError

Engine = Literal["kafka", "flink"]
POM = Path(__file__).with_name("pom.xml")


def jars_folder(engine: Engine, versions: Mapping[str, str], cache: Path) -> Path:
    """Where the jars of `engine` are, or will be."""
    told = POM.read_bytes() + repr(sorted(versions.items())).encode()
    return cache / "jars" / f"{engine}-{hashlib.sha256(told).hexdigest()[:16]}"


def resolve_jars(engine: Engine, versions: Mapping[str, str], cache: Path) -> Path:
    """The folder with the jars of `engine`, filled by Maven if it is not there yet.

    Raises:
        ConfigError: for a version of something that `pom.xml` does not name.
        ClusterError: where there is no Maven, or it cannot have one of the jars.
    """
    check_versions(versions)
    folder = jars_folder(engine, versions, cache)
    if folder.is_dir():
        return folder
    making = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    making.mkdir(parents=True)
    try:
        _copy_dependencies(engine, versions, making)
        making.rename(folder)
    except OSError:
        # Somebody else was faster: a rename onto a folder that holds something fails.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder


def check_versions(versions: Mapping[str, str]) -> None:
    """Raise ConfigError for a version of something that `pom.xml` does not name."""
    found = ElementTree.parse(POM).iterfind("{*}properties/*")
    known = [element.tag.rpartition("}")[2] for element in found]
    for name in versions:
        if name not in known:
            raise ConfigError(f"cluster.versions.{name} is no property of {POM.name}. known: {', '.join(known)}")


def _copy_dependencies(engine: Engine, versions: Mapping[str, str], folder: Path) -> None:
    replaced = [f"-D{name}={version}" for name, version in sorted(versions.items())]
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    command = [find_maven(), "-q", "-B", "-f", str(POM), "-P", engine, *replaced, *goal]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # Maven colours what nobody will see: the mark is not always where the line begins.
        errors = [line.partition("[ERROR] ")[2] for line in done.stdout.splitlines() if "[ERROR] " in line]
        told = errors[0].removesuffix(" -> [Help 1]") if errors else f"exit code {done.returncode}"
        raise ClusterError(f"Maven cannot have the jars of {engine}: {told}. hint: see `versions` of [cluster]")
