"""Writes archives of a log as `pipeline/logs/archive/archive_log.py` documents their layout."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fastavro

from pipeline.errors import LogReplacedError
from pipeline.formats.checksum import checksum, headers_text
from pipeline.formats.schemas import load_schema
from pipeline.logs.interface.log import Log, ReadLimits, Record

PER_FILE = ReadLimits(records=10_000)


def write_archive(log: Log, topic: str, folder: Path, limits: ReadLimits = PER_FILE) -> int:
    """Append to the archive what it lacks of a topic; returns the records copied. Each read with `limits` is a file."""
    target, contents = folder / topic, folder / topic / "topic.json"
    log_id, earlier = log.log_id(topic), None
    if contents.exists():
        earlier = json.loads(contents.read_bytes())
        if earlier["log_id"] != log_id:
            raise LogReplacedError(f"archive {target} is of log {earlier['log_id']}, topic {topic} is {log_id}")
    partitions, copied = [], 0
    for number in range(log.partitions(topic)):
        begin, end = log.begin_offset(topic, number), log.end_offset(topic, number)
        part = earlier["partitions"][number] if earlier else {"begin": begin, "end": begin, "files": []}
        while part["end"] < end and (records := log.read(topic, number, part["end"], limits)):
            _write_file(target / str(number) / f"{records[0].offset:020}.avro", records)
            first = {"first": records[0].offset, "records": len(records), "appended_at_ms": records[0].appended_at_ms}
            part["files"].append(first)
            part["end"] = records[-1].offset + 1
            copied += len(records)
        partitions.append(part | {"end": max(part["end"], end)})
    target.mkdir(parents=True, exist_ok=True)
    temporary = target / ".topic.json"
    temporary.write_text(json.dumps({"log_id": log_id, "partitions": partitions}))
    temporary.replace(contents)
    return copied


def _write_file(path: Path, records: Sequence[Record]) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for offset, at_ms, value, headers, key in records:
            row = {"offset": offset, "appended_at_ms": at_ms, "headers": dict(headers), "value": value, "key": key}
            yield row | {"checksum": checksum(offset, at_ms, headers_text(headers), value, key)}

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        fastavro.writer(file, load_schema("archive_record").parsed, rows())
