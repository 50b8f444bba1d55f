"""The jar for submitting a job without a job server: `--flink_submit_uber_jar --flink_job_server_jar=base.jar`.

Beam adds the pipeline to it. It contains only the classes that read the pipeline from the submitted jar; all others are
on the cluster's class path. A submitted job is therefore kilobytes instead of the 200 MB of a job server.
"""

import re
import uuid
import zipfile
from pathlib import Path

from pipeline.errors import ClusterError

_PARTS = (
    ("beam-runners-flink-[0-9]*.jar", "org/apache/beam/runners/flink/FlinkPipelineRunner"),
    ("beam-runners-flink-[0-9]*.jar", "org/apache/beam/runners/flink/FlinkPortableRunnerResult"),
    ("beam-runners-java-job-service-*.jar", "org/apache/beam/runners/jobsubmission/PortablePipelineJarUtils"),
)
_MANIFEST = "Manifest-Version: 1.0\n\n"


def write_base_jar(jars: Path, out: Path) -> None:
    """Write the jar from the resolved `jars`, atomically.

    Raises:
        ClusterError: if one of the classes is missing.
    """
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as jar:
            jar.writestr(zipfile.ZipInfo("META-INF/MANIFEST.MF"), _MANIFEST)
            for pattern, name in _PARTS:
                _copy_class(jars, pattern, name, jar)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _copy_class(jars: Path, pattern: str, name: str, jar: zipfile.ZipFile) -> None:
    """Copy a class and its nested classes."""
    wanted = re.compile(re.escape(name) + r"(\$.*)?\.class")
    copied = 0
    for path in jars.glob(pattern):
        with zipfile.ZipFile(path) as source:
            for entry in source.infolist():
                if wanted.fullmatch(entry.filename):
                    jar.writestr(entry, source.read(entry))
                    copied += 1
    if not copied:
        raise ClusterError(f"{jars} contains no class {name} in {pattern}. hint: see `versions` of [cluster]")
