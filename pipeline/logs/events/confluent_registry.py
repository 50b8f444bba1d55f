"""A Confluent schema registry: writer schemas by the ids that it assigned, over HTTP.

Reads `GET /schemas/ids/{id}` and, for schemas that refer to others, `GET /subjects/{subject}/versions/{version}`. A
schema never changes, so it is cached for the life of the process. An id that the registry does not have, or whose
schema cannot be used, is requested once a second at most. It is no error; a registry that does not answer is one:
events must not become dead letters because a server is down.
"""

import asyncio
import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from pipeline.configuration.deployment.address import shown_url
from pipeline.configuration.environment import read_secret
from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, LogError
from pipeline.formats.schemas import Schema, parse_schema
from pipeline.process.clock import Clock

_NOT_FOUND_CODES = (40401, 40402, 40403)
"""The registry's own codes for an unknown subject, version or schema; another 404 is a wrong URL."""
_MAX_BYTES = 4 << 20
_MAX_REFERENCES = 64
_BACKOFF_S = 0.2
_UNUSABLE_FOR_S = 1.0
"""How long an id without a usable schema is not requested again: short, because a writer may register it next."""
_MAX_UNUSABLE = 10_000
_ACCEPT = "application/vnd.schemaregistry.v1+json, application/json"

# At level INFO httpx logs the URL of each request.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True)
class RegistryAddress:
    """Where a registry is.

    Attributes:
        url: without user and password.
        user: for basic authentication; empty for none.
        password: for basic authentication.
        timeout_s: total time of one look-up with its retries.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    timeout_s: float = 10.0


@cache
def _registry_at(address: RegistryAddress, clock: Clock) -> "ConfluentRegistry":
    return ConfluentRegistry(address, clock)


def confluent_registry(project: Project) -> "ConfluentRegistry | None":
    """The project's registry, one per process and address; None without. Raises ConfigError for its password."""
    configured = project.config.events.registry
    if configured is None:
        return None
    password = "" if configured.password is None else read_secret(configured.password, project.root)
    address = RegistryAddress(configured.url, configured.user or "", password, configured.timeout_s)
    return _registry_at(address, project.clock)  # type: ignore[arg-type]  # every clock has its identity as hash


class _Unavailable(Exception):
    """The registry did not answer, or answered that it cannot answer now: the request is repeated."""


class ConfluentRegistry:
    """Schemas of one registry, cached. Thread-safe."""

    def __init__(self, address: RegistryAddress, clock: Clock) -> None:
        self._address, self._clock = address, clock
        self._lock = threading.Lock()
        self._schemas: dict[int, Schema] = {}
        self._unusable: dict[int, tuple[float, str | None]] = {}
        """By id, until when it is not requested again, and why its schema cannot be used; None if there is none."""

    def find(self, schema_id: int) -> Schema | None:
        """The schema with this id; None if the registry has none.

        Raises DamagedError if it is not an Avro record, LogError if the registry does not answer within its timeout.
        """
        with self._lock:
            if schema_id in self._schemas:
                return self._schemas[schema_id]
            until_s, problem = self._unusable.get(schema_id, (0.0, None))
            if self._clock.monotonic_s() >= until_s:
                schema, problem = self._look_up(schema_id)
                if schema is not None:
                    self._schemas[schema_id] = schema
                    return schema
                self._note_unusable(schema_id, problem)
            if problem is not None:
                raise DamagedError(problem)
            return None

    def _look_up(self, schema_id: int) -> tuple[Schema | None, str | None]:
        """The schema, or why it cannot be used; neither if the registry has none. Raises LogError."""
        deadline_s = self._clock.monotonic_s() + self._address.timeout_s
        found = self._request(f"schemas/ids/{schema_id}", deadline_s)
        try:
            return (None if found is None else self._parse(schema_id, found, deadline_s)), None
        except DamagedError as failure:
            return None, str(failure)

    def _note_unusable(self, schema_id: int, problem: str | None) -> None:
        if len(self._unusable) >= _MAX_UNUSABLE:
            self._unusable.clear()
        self._unusable[schema_id] = (self._clock.monotonic_s() + _UNUSABLE_FOR_S, problem)

    def _parse(self, schema_id: int, found: Mapping[str, Any], deadline_s: float) -> Schema:
        name = f"schema id {schema_id} of registry {self._name}"
        kind = found.get("schemaType", "AVRO")
        if kind != "AVRO":
            raise DamagedError(f"{name} is {kind}, wanted AVRO")
        try:
            referred: dict[str, Any] = {}
            self._add_references(found, referred, deadline_s)
            return parse_schema(_with_definitions(json.loads(found["schema"]), referred))
        except (ValueError, KeyError, TypeError, RecursionError) as failure:
            raise DamagedError(f"{name} cannot be used: {failure}") from failure

    def _add_references(self, found: Mapping[str, Any], referred: dict[str, Any], deadline_s: float) -> None:
        """Add the schemas that one refers to, by full name, those that they refer to included."""
        for reference in found.get("references") or ():
            if reference["name"] in referred:
                continue
            if len(referred) >= _MAX_REFERENCES:
                raise ValueError(f"it refers to more than {_MAX_REFERENCES} schemas")
            subject = quote(str(reference["subject"]), safe="")
            inner = self._request(f"subjects/{subject}/versions/{int(reference['version'])}", deadline_s)
            if inner is None:
                raise ValueError(
                    f"{reference['subject']} version {reference['version']}, which it uses, does not exist"
                )
            referred[reference["name"]] = json.loads(inner["schema"])
            self._add_references(inner, referred, deadline_s)

    def _request(self, path: str, deadline_s: float) -> dict[str, Any] | None:
        """The JSON object at `path`; None if the registry does not have it. Retries until the deadline."""
        while True:
            try:
                return self._answer(path, max(deadline_s - self._clock.monotonic_s(), 0.001))
            except _Unavailable as failure:
                if self._clock.monotonic_s() + _BACKOFF_S >= deadline_s:
                    raise LogError(
                        f"registry {self._name} did not answer GET /{path} within {self._address.timeout_s:g} s: "
                        f"{failure}. hint: check events.registry.url, or raise events.registry.timeout_s"
                    ) from None
            self._clock.wait(_BACKOFF_S)

    def _answer(self, path: str, timeout_s: float) -> dict[str, Any] | None:
        loop = asyncio.new_event_loop()
        try:
            status, content = loop.run_until_complete(asyncio.wait_for(self._get(path), timeout_s))
        except TimeoutError:
            raise _Unavailable("no complete answer") from None
        except (httpx.HTTPError, OSError) as failure:
            raise _Unavailable(str(failure) or type(failure).__name__) from None
        except (httpx.InvalidURL, ValueError) as failure:
            raise LogError(f"registry {self._name} cannot be requested: {failure}") from None
        finally:
            loop.close()  # does not wait for a name lookup that hangs, as asyncio.run would
        return self._checked(path, status, content)

    async def _get(self, path: str) -> tuple[int, bytes]:
        address = self._address
        login = httpx.BasicAuth(address.user, address.password) if address.user else None
        url = f"{address.url.rstrip('/')}/{path}"
        async with (
            httpx.AsyncClient(timeout=None, headers={"Accept": _ACCEPT}, auth=login) as client,
            client.stream("GET", url) as response,
        ):
            content = bytearray()
            async for part in response.aiter_bytes():
                content += part
                if len(content) > _MAX_BYTES:
                    raise ValueError(f"the answer to GET /{path} has more than {_MAX_BYTES} bytes")
            return response.status_code, bytes(content)

    def _checked(self, path: str, status: int, content: bytes) -> dict[str, Any] | None:
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if status == HTTPStatus.OK and isinstance(document, dict) and isinstance(document.get("schema"), str):
            return document
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            raise _Unavailable(f"HTTP status {status}")
        code = document.get("error_code") if isinstance(document, dict) else None
        if status == HTTPStatus.NOT_FOUND and code in _NOT_FOUND_CODES:
            return None
        refused = status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        hint = "check events.registry.user and password" if refused else "is events.registry.url that of a registry?"
        raise LogError(f"registry {self._name} answered GET /{path} with HTTP status {status}, no schema. hint: {hint}")

    @property
    def _name(self) -> str:
        return shown_url(self._address.url)


def _with_definitions(document: Any, referred: Mapping[str, Any]) -> Any:
    """A schema in which the first use of each name in `referred` is replaced by its definition."""
    used: set[str] = set()

    def resolved(node: Any) -> Any:
        if isinstance(node, str) and node in referred and node not in used:
            used.add(node)
            return resolved(referred[node])
        if isinstance(node, list):
            return [resolved(each) for each in node]
        if isinstance(node, dict):
            return {
                key: resolved(value) if key in ("type", "items", "values", "fields") else value
                for key, value in node.items()
            }
        return node

    return resolved(document)
