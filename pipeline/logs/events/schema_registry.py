"""The `schemas` topic: every writer schema of single events, so that a reader resolves older and newer ones.

One partition of JSON values {id, subject, schema}; subject is the kind of event. Only ever appended to, never trimmed.
The id is what frames carry: springtide's own hash, or the number that some other registry gave out.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.configuration.logs import SCHEMAS_TOPIC
from pipeline.errors import LogError
from pipeline.formats.schemas import Schema, parse_schema
from pipeline.logs.log import Log


@dataclass(frozen=True)
class RegisteredSchema:
    """A writer schema and the kind of event it is of."""

    subject: str
    schema: Schema


class SchemaRegistry:
    """What the `schemas` topic says, read as far as needed. Thread-safe.

    Of two entries with one id the first holds. An entry that cannot be read is remembered in `unreadable` (offset →
    why) and stops nobody: events that need it become dead letters which say so.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._known: dict[int, RegisteredSchema] = {}
        self._next_offset = 0
        self.unreadable: dict[int, str] = {}

    def find(self, schema_id: int) -> RegisteredSchema | None:
        """The schema that frames name by this id, or None where nobody registered one."""
        with self._lock:
            if schema_id not in self._known:
                self._read_on()
            return self._known.get(schema_id)

    def register(self, subject: str, document: Mapping[str, Any], schema_id: int | None = None) -> Schema:
        """Make a writer's schema known to every reader; saying it twice does nothing.

        Raises ValueError for no Avro record, LogError where `schema_id` already names another schema.
        """
        schema = parse_schema(document)
        schema_id = schema.id if schema_id is None else schema_id
        known = self.find(schema_id)
        if known is not None and (known.subject, known.schema.id) != (subject, schema.id):
            raise LogError(f"schema id {schema_id} is a {known.subject} schema of other fields. hint: take another id")
        if known is None:
            value = {"id": schema_id, "subject": subject, "schema": document}
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
            found = RegisteredSchema(str(entry["subject"]), parse_schema(entry["schema"]))
            self._known.setdefault(int(entry["id"]), found)
        except (ValueError, KeyError, TypeError) as failure:
            self.unreadable[offset] = f"record {SCHEMAS_TOPIC}/0/{offset} is no schema: {failure!r}"
