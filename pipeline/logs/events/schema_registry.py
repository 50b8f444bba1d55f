"""The registry of the writer schemas of single events, stored in the `schemas` topic: readers resolve all of them.

The topic has one partition of JSON values {id, subject, schema}, where subject is the kind of event; it is never
trimmed. Frames contain the id: a hash of the schema, or a number that another registry assigned.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.configuration.streams.logs import SCHEMAS_TOPIC
from pipeline.errors import LogError
from pipeline.formats.schemas import Schema, parse_schema
from pipeline.logs.interface.log import Log


@dataclass(frozen=True)
class RegisteredSchema:
    """A writer schema and its kind of event."""

    subject: str
    schema: Schema


class SchemaRegistry:
    """The entries of the `schemas` topic, read when an unknown id is looked up. Thread-safe.

    Of two entries with the same id the first counts. An invalid entry is listed in `unreadable` (offset → reason):
    events that need it become dead letters with that reason.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._schemas: dict[int, RegisteredSchema] = {}
        self._next_offset = 0
        self.unreadable: dict[int, str] = {}

    def find(self, schema_id: int) -> RegisteredSchema | None:
        """The schema that is registered with this id, or None."""
        with self._lock:
            if schema_id not in self._schemas:
                self._read_new_entries()
            return self._schemas.get(schema_id)

    def register(self, subject: str, document: Mapping[str, Any], schema_id: int | None = None) -> Schema:
        """Register a writer schema; registering it again does nothing.

        Raises ValueError if it is not an Avro record, LogError if `schema_id` already names another schema.
        """
        schema = parse_schema(document)
        schema_id = schema.id if schema_id is None else schema_id
        found = self.find(schema_id)
        if found is not None and (found.subject, found.schema.id) != (subject, schema.id):
            raise LogError(f"schema id {schema_id} is a {found.subject} schema with other fields. hint: use another id")
        if found is None:
            value = {"id": schema_id, "subject": subject, "schema": document}
            self._log.create_topic(SCHEMAS_TOPIC, 1)
            self._log.append(SCHEMAS_TOPIC, 0, [json.dumps(value, sort_keys=True).encode()])
        return schema

    def _read_new_entries(self) -> None:
        if SCHEMAS_TOPIC not in self._log.topics():
            return
        while records := self._log.read(SCHEMAS_TOPIC, 0, self._next_offset):
            for record in records:
                self._add(record.offset, record.value)
            self._next_offset = records[-1].offset + 1

    def _add(self, offset: int, value: bytes) -> None:
        try:
            entry = json.loads(value)
            found = RegisteredSchema(str(entry["subject"]), parse_schema(entry["schema"]))
            self._schemas.setdefault(int(entry["id"]), found)
        except (ValueError, KeyError, TypeError, RecursionError) as failure:
            self.unreadable[offset] = f"record {SCHEMAS_TOPIC}/0/{offset} is not a schema: {failure!r}"
