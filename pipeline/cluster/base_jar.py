"""The jar that a job is submitted in without a job server: `--flink_submit_uber_jar --flink_job_server_jar=base.jar`.

Beam adds the pipeline to it. It holds only the classes that must see the pipeline inside the submitted jar; all others
are on the cluster's class path, so that a job is kilobytes and not the 200 MB of a job server.
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
    """Make the jar out of the resolved `jars`; `out` is whole or not there.

    Raises:
        ClusterError: where one of the classes is absent.
    """
    making = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        with zipfile.ZipFile(making, "w", zipfile.ZIP_DEFLATED) as jar:
            jar.writestr(zipfile.ZipInfo("META-INF/MANIFEST.MF"), _MANIFEST)
            for pattern, name in _PARTS:
                _copy_class(jars, pattern, name, jar)
        making.replace(out)
    finally:
        making.unlink(missing_ok=True)


def _copy_class(jars: Path, pattern: str, name: str, jar: zipfile.ZipFile) -> None:
    """Copy one class and those nested in it."""
    wanted = re.compile(re.escape(name) + r"(\$.*)?\.class")
    copied = 0
    for path in jars.glob(pattern):
        with zipfile.ZipFile(path) as source:
            for entry in source.infolist():
                if wanted.fullmatch(entry.filename):
                    jar.writestr(entry, source.read(entry))
                    copied += 1
    if not copied:
        raise ClusterError(f"{jars} holds no class {name} in {pattern}. hint: see `versions` of [cluster]")
