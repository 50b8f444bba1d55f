"""Flink SQL's interval join over the same events, in one Java process: the peer of the join.

Heap state, event times at most a second out of order, CSV files as input (two per table, read concurrently), samples
into a sink that drops them: less work than our join, which also reads and writes a durable log. It needs Java and
Maven; the jars are copied once to a cache folder.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc

_HERE = Path(__file__).parent
_FILES = 2
_HEAP = "3g"
_OPENED = ("java.base/java.util", "java.base/java.lang", "java.base/java.nio", "java.base/java.time")
OPENS = tuple(word for module in _OPENED for word in ("--add-opens", f"{module}=ALL-UNNAMED"))
"""Options of Java that allow Flink reflective access to the standard library."""


def missing() -> str | None:
    """The reason why Flink cannot run here; None if it can."""
    absent = [name for name in ("java", "mvn") if shutil.which(name) is None]
    return f"no {' and no '.join(absent)} on this machine" if absent else None


def jars(cache: Path, name: str = "flink_join") -> Path:
    """The folder of the jars listed in NAME.pom.xml, filled by Maven on first use. Raises CalledProcessError."""
    folder, complete = cache.absolute() / name, cache / f"{name}.complete"
    if not complete.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = ["mvn", "-q", "-B", "-f", str(_HERE / f"{name}.pom.xml"), "dependency:copy-dependencies"]
        copied = [*command, "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
        subprocess.run(copied, check=True, capture_output=True, text=True)
        complete.touch()
    return folder


def write_events(folder: Path, impressions: pa.RecordBatch, clicks: pa.RecordBatch) -> None:
    """Write the events as CSV, blocks of rows alternating between two files, so that both readers advance together."""
    for name, batch in (("impressions", impressions), ("clicks", clicks)):
        (folder / name).mkdir(parents=True)
        times = batch.column("at").cast(pa.timestamp("ms"))
        table = pa.table({n: batch.column(n) for n in batch.schema.names if n != "at"} | {"at": times})
        step = 1024
        for number in range(_FILES):
            parts = [table.slice(at, step) for at in range(number * step, table.num_rows, _FILES * step)]
            options = pc.WriteOptions(include_header=False, quoting_style="none")
            pc.write_csv(pa.concat_tables(parts or [table.slice(0, 0)]), folder / name / f"{number}.csv", options)


def measure(libraries: Path, folder: Path, cores: int, window_min: int) -> dict[str, float]:
    """Seconds of reading only (`read_s`) and of the complete join (`join_s`), each including the start of the job."""
    program = ["java", f"-Xmx{_HEAP}", *OPENS, "-cp", f"{libraries}/*", str(_HERE / "FlinkJoin.java")]
    arguments = [str(folder.absolute()), str(cores), str(window_min)]
    ended = subprocess.run([*program, *arguments], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found
