"""A project with one column of every type, files of every format for it, and what its log then holds."""

import gzip
import json
from pathlib import Path

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.errors import LogError
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.dead_letters import read_dead_letters
from tests.support.manual_clock import ManualClock

COLUMNS = {"id": "int", "user": "string", "price": "float", "seen": "bool", "tags": "strings", "sizes": "ints"}
ROWS = [
    {"ts": 1_000, "id": 1, "user": "ann", "price": 1.5, "seen": True, "tags": ["a", "b"], "sizes": [1, 2]},
    {"ts": 2_000, "id": 2, "user": "bob", "price": None, "seen": False, "tags": [], "sizes": []},
    {"ts": 3_000, "id": 3, "user": "żółć", "price": -2.0, "seen": None, "tags": ["c"], "sizes": [3]},
]


def make_project(root: Path, unit: str = "s", max_ahead_s: float | str = 86_400.0, **logs) -> Project:
    document = {
        "events": {
            "key": ["id"],
            "max_ahead_s": max_ahead_s,
            "impressions": {"time": "ts", "time_unit": unit, "columns": COLUMNS},
            "clicks": {"columns": {"id": "int"}},
        },
        "logs": logs,
        "fields": [{"name": "user", "columns": ["user"]}],
    }
    return Project(root, parse_config(document), ManualClock(10**13))


class FullDisk:
    """A log that fails after a number of appends, like a full disk."""

    def __init__(self, log, appends):
        self._log, self._appends = log, appends

    def __getattr__(self, name):
        return getattr(self._log, name)

    def append(self, *arguments, **named):
        self._appends -= 1
        if self._appends < 0:
            raise LogError("no space left on device")
        return self._log.append(*arguments, **named)


def events_in(project, log, kind="impressions"):
    """All events of a topic as rows with `at`, partition after partition."""
    codec, topic = EventCodec(project.config.events, kind, log), getattr(project.config.topics, kind)
    rows = []
    for partition in range(log.partitions(topic)):
        records = log.read(topic, partition, 0)
        if records:
            decoded = codec.decode(records, topic, partition, None)
            assert decoded.dead.table.num_rows == 0
            times = decoded.block.at_ms.tolist()
            rows += [{"at": at, **row} for at, row in zip(times, decoded.block.columns.to_pylist(), strict=True)]
    return rows


def dead_in(log):
    return read_dead_letters(log.read("dead-letters", 0, 0)).table.to_pylist()


def expected(rows):
    return [{"at": row["ts"] * 1000, **{n: row[n] for n in COLUMNS}} for row in rows]


def csv_text(rows):
    def cell(value):
        return "" if value is None else "|".join(map(str, value)) if isinstance(value, list) else str(value)

    lines = [",".join(cell(row[name]) for name in ("ts", *COLUMNS)) for row in rows]
    return "\n".join([",".join(("ts", *COLUMNS)), *lines, ""])


def many(count):
    return [{**ROWS[0], "ts": n, "id": n} for n in range(count)]


def write(path: Path, rows) -> Path:
    if path.name.endswith(".csv"):
        path.write_text(csv_text(rows))
    elif path.name.endswith(".csv.gz"):
        path.write_bytes(gzip.compress(csv_text(rows).encode()))
    elif path.name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    elif path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        kinds = {"id": "long", "user": "string", "price": "double", "seen": "boolean"}
        lists = {"tags": "string", "sizes": "long"}
        fields = [{"name": "ts", "type": "long"}, *({"name": n, "type": ["null", t]} for n, t in kinds.items())]
        fields += [{"name": n, "type": {"type": "array", "items": t}} for n, t in lists.items()]
        with path.open("wb") as file:
            fastavro.writer(file, {"type": "record", "name": "event", "fields": fields}, rows)
    return path
