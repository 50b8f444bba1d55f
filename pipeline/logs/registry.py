"""The `schemas` topic: every writer schema of single events, so that a reader resolves older and newer ones.

One partition of JSON values {id, subject, schema}; subject is the kind of event. Only ever appended to, never trimmed.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.ground.errors import DamagedError
from pipeline.ground.schemas import Schema, parse_schema
from pipeline.logs.log import Log

SCHEMAS_TOPIC = "schemas"


@dataclass(frozen=True)
class Registered:
    """A writer schema and the kind of event it is of."""

    subject: str
    schema: Schema


class Registry:
    """What the `schemas` topic says, read as far as needed. Thread-safe."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._known: dict[int, Registered] = {}
        self._next_offset = 0

    def find(self, schema_id: int) -> Registered | None:
        """The schema with this id, or None where nobody registered one. Raises DamagedError."""
        with self._lock:
            if schema_id not in self._known:
                self._read_on()
            return self._known.get(schema_id)

    def register(self, subject: str, document: Mapping[str, Any]) -> Schema:
        """Make a schema known to every reader; saying it twice does nothing. Raises ValueError for no Avro schema."""
        schema = parse_schema(document)
        if self.find(schema.id) is None:
            value = {"id": schema.id, "subject": subject, "schema": document}
            self._log.create_topic(SCHEMAS_TOPIC, 1)
            self._log.append(SCHEMAS_TOPIC, 0, [json.dumps(value, sort_keys=True).encode()])
        return schema

    def _read_on(self) -> None:
        if SCHEMAS_TOPIC not in self._log.topics():
            return
        while records := self._log.read(SCHEMAS_TOPIC, 0, self._next_offset):
            for record in records:
                self._keep(record.offset, record.value)
            self._next_offset = records[-1].offset + 1

    def _keep(self, offset: int, value: bytes) -> None:
        try:
            entry = json.loads(value)
            schema = parse_schema(entry["schema"])
            claimed = int(entry["id"])
            subject = str(entry["subject"])
        except (ValueError, KeyError, TypeError) as failure:
            raise DamagedError(
                f"record {SCHEMAS_TOPIC}/0/{offset} is no schema: {failure}. hint: see who writes this topic"
            ) from failure
        if claimed != schema.id:
            raise DamagedError(
                f"record {SCHEMAS_TOPIC}/0/{offset} claims schema id {claimed}, its schema has {schema.id}"
            )
        self._known.setdefault(schema.id, Registered(subject, schema))
