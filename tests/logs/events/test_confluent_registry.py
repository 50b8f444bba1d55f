"""Events whose schemas are in a Confluent registry, against a small HTTP server that answers as one."""

import base64
import io
import json
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fastavro
import pytest

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.errors import ConfigError, DamagedError, LogError
from pipeline.formats.schemas import frame
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.confluent_registry import ConfluentRegistry, RegistryAddress
from pipeline.logs.events.schema_registry import SchemaRegistry
from pipeline.logs.open import open_log
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.process.clock import SystemClock
from pipeline.samples.run.in_process import run_samples
from tests.logs.events.test_events import NOW, decode, events, letters
from tests.support.manual_clock import ManualClock
from tests.support.shop.shop import WRITTEN

SHOWN = {
    "type": "record",
    "name": "Shown",
    "namespace": "com.example",
    "fields": [
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "id", "type": "int"},
        {"name": "item", "type": ["string", "null"]},
        {"name": "page", "type": ["null", "string"], "default": None},
    ],
}
CLICKED = {
    "type": "record",
    "name": "Clicked",
    "fields": [{"name": "at", "type": "long"}, {"name": "id", "type": "long"}],
}
EVENT = {"at": 5_000_999, "id": 3, "item": "x"}


def entry(schema, **more):
    return {"schema": json.dumps(schema), **more}


def record(schema, schema_id, event):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema, named_schemas={}), event)
    return frame(schema_id, out.getvalue())


class Server:
    """Answers `GET /schemas/ids/{id}` and `GET /subjects/{subject}/versions/{version}` as the registry does.

    Attributes:
        ids: entries by id.
        versions: entries by (subject, version).
        failures: raw answers (status, body) that the next requests get instead.
        login: user and password that are required, if any.
        requests: the paths of all requests.
    """

    def __init__(self):
        self.ids, self.versions, self.failures, self.requests = {}, {}, [], []
        self.login = None

    def answer(self, path, headers):
        self.requests.append(path)
        if self.failures:
            return self.failures.pop(0)
        if self.login and headers.get("Authorization") != f"Basic {base64.b64encode(self.login).decode()}":
            return 401, json.dumps({"error_code": 401, "message": "Unauthorized"}).encode()
        match path.strip("/").split("/"):
            case ["schemas", "ids", number]:
                found, code = self.ids.get(int(number)), 40403
            case ["subjects", subject, "versions", version]:
                found, code = self.versions.get((subject, int(version))), 40402
            case _:
                return 404, b"<html>not here</html>"
        if found is None:
            return 404, json.dumps({"error_code": code, "message": "not found"}).encode()
        return 200, json.dumps(found).encode()


@contextmanager
def serving(server):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = server.answer(self.path, self.headers)
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def url(server):
    with serving(server) as found:
        yield found


@pytest.fixture
def clock():
    return ManualClock(NOW)


@pytest.fixture
def registry(url, clock):
    return ConfluentRegistry(RegistryAddress(url + "/", timeout_s=30.0), clock)


@pytest.fixture
def codec(tmp_path, registry):
    return EventCodec(events(), "impressions", SqliteLog(tmp_path, ManualClock(NOW)), registry)


def test_an_event_is_read_by_the_schema_that_the_registry_has(server, codec):
    server.ids[1] = entry(SHOWN)
    found = decode(codec, [record(SHOWN, 1, EVENT), record(SHOWN, 1, EVENT | {"item": "y"})]).block
    assert found.at_ms.tolist() == [5_000, 5_000]
    assert found.columns.column("item").to_pylist() == ["x", "y"]
    decode(codec, [record(SHOWN, 1, EVENT)])
    assert server.requests == ["/schemas/ids/1"]


def test_every_path_below_the_url_is_used(server, url):
    server.answer = lambda path, headers: (200, json.dumps(entry(SHOWN, at=path)).encode())
    registry = ConfluentRegistry(RegistryAddress(url + "/apis/ccompat/v7"), ManualClock())
    assert registry.find(4).name == "Shown"


def test_a_schema_of_the_topic_comes_before_the_registry(server, codec, tmp_path):
    SchemaRegistry(SqliteLog(tmp_path, ManualClock(NOW))).register("impressions", SHOWN, schema_id=1)
    assert letters(decode(codec, [record(SHOWN, 1, EVENT)])) == []
    assert server.requests == []


def test_an_id_that_the_registry_does_not_have_is_a_dead_letter_until_it_has(server, codec, clock):
    (letter,) = letters(decode(codec, [record(SHOWN, 7, EVENT)]))
    assert "schema id 7 is unknown" in letter["detail"]
    server.ids[7] = entry(SHOWN)
    clock.wait(1.0)
    assert letters(decode(codec, [record(SHOWN, 7, EVENT)])) == []


@pytest.mark.parametrize("found", [None, {"schema": "{}", "schemaType": "JSON"}])
def test_an_id_without_a_usable_schema_is_requested_once_a_second_at_most(server, codec, clock, found):
    server.ids[7] = found
    details = {letters(decode(codec, [record(SHOWN, 7, EVENT)]))[0]["detail"] for _ in range(5)}
    assert (len(details), server.requests) == (1, ["/schemas/ids/7"])
    clock.wait(0.999)
    decode(codec, [record(SHOWN, 7, EVENT)])
    assert len(server.requests) == 1
    clock.wait(0.001)
    decode(codec, [record(SHOWN, 7, EVENT), record(SHOWN, 8, EVENT)])
    assert server.requests[1:] == ["/schemas/ids/7", "/schemas/ids/8"]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"}, "is PROTOBUF, wanted AVRO"),
        ({"schema": "{}", "schemaType": "JSON"}, "is JSON, wanted AVRO"),
        ({"schema": '"string"'}, "not an avro record"),
        ({"schema": "not json"}, "cannot be used"),
        (
            {"schema": '{"type": "record", "name": "R", "fields": [{"name": "at", "type": "Gone"}]}'},
            "not an avro record",
        ),
        (entry(SHOWN, references=[{"name": "x.Y", "subject": "y", "version": 1}]), "y version 1, which it uses"),
        (entry(SHOWN, references=[{"subject": "y"}]), "cannot be used"),
    ],
)
def test_a_schema_that_cannot_be_used_is_named_in_the_dead_letter(server, codec, found, why):
    server.ids[9] = found
    (letter,) = letters(decode(codec, [record(SHOWN, 9, EVENT)]))
    assert "schema id 9 of registry http://127.0.0.1" in letter["detail"]
    assert why in letter["detail"]


def test_schemas_that_a_schema_refers_to_are_fetched(server, codec):
    item = {
        "type": "record",
        "name": "Item",
        "namespace": "com.example",
        "fields": [{"name": "ids", "type": "com.example.Ids"}],
    }
    ids = {"type": "enum", "name": "com.example.Ids", "symbols": ["A", "B"]}
    both = [{"name": "item", "type": "string"}, {"name": "one", "type": "com.example.Item"}]
    shown = SHOWN | {"fields": [*SHOWN["fields"][:2], *both, {"name": "two", "type": "com.example.Item"}]}
    server.ids[2] = entry(shown, references=[{"name": "com.example.Item", "subject": "com/example item", "version": 3}])
    server.versions["com%2Fexample%20item", 3] = entry(
        item, references=[{"name": "com.example.Ids", "subject": "ids", "version": 1}]
    )
    server.versions["ids", 1] = entry(ids)
    whole = shown | {
        "fields": [
            *shown["fields"][:3],
            {"name": "one", "type": item | {"fields": [{"name": "ids", "type": ids}]}},
            shown["fields"][4],
        ]
    }
    value = record(whole, 2, EVENT | {"one": {"ids": "A"}, "two": {"ids": "B"}})
    decoded = decode(codec, [value])
    assert (letters(decoded), decoded.block.columns.column("id").to_pylist()) == ([], [3])


def test_a_registry_that_cannot_answer_is_asked_again(server, codec):
    server.ids[1] = entry(SHOWN)
    server.failures += [(500, b"{}"), (503, b"<html>"), (429, b"")]
    assert letters(decode(codec, [record(SHOWN, 1, EVENT)])) == []
    assert len(server.requests) == 4


def test_a_registry_that_stays_away_is_an_error_and_no_dead_letter(server, registry, codec):
    server.failures += [(503, b"")] * 1_000
    with pytest.raises(
        LogError, match=r"registry http://127.0.0.1:\d+ did not answer GET /schemas/ids/1 within 30 s: "
    ):
        codec.decode([_single(record(SHOWN, 1, EVENT))], "in", 0, None)
    assert len(server.requests) > 10


def _single(value):
    from pipeline.logs.interface.log import Record

    return Record(0, NOW, value)


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (404, b"<html>nothing here</html>", "is events.registry.url that of a registry"),
        (404, b'{"error_code": 404, "message": "HTTP 404 Not Found"}', "is events.registry.url that of a registry"),
        (200, b"hello", "is events.registry.url that of a registry"),
        (200, b"[]", "is events.registry.url that of a registry"),
        (200, b'{"schema": 7}', "is events.registry.url that of a registry"),
        (302, b"", "is events.registry.url that of a registry"),
        (401, b"", "check events.registry.user and password"),
        (403, b"", "check events.registry.user and password"),
    ],
)
def test_an_answer_that_is_none_is_an_error_with_a_hint(server, registry, status, body, hint):
    server.failures.append((status, body))
    with pytest.raises(LogError, match=rf"GET /schemas/ids/1 with HTTP status {status}.*{hint}"):
        registry.find(1)
    assert len(server.requests) == 1


def test_an_answer_without_an_end_is_bounded_in_bytes(server, registry):
    server.failures.append((200, b" " * (5 << 20)))
    with pytest.raises(LogError, match="has more than 4194304 bytes"):
        registry.find(1)


def test_a_registry_that_never_answers_is_given_up_at_the_deadline():
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:  # listens, but nothing serves
        url = f"http://127.0.0.1:{silent.server_address[1]}"
        registry = ConfluentRegistry(RegistryAddress(url, timeout_s=0.05), SystemClock())
        with pytest.raises(LogError, match=r"within 0.05 s: no complete answer"):
            registry.find(1)
    closed = ConfluentRegistry(RegistryAddress(url, timeout_s=0.05), SystemClock())
    with pytest.raises(LogError, match=r"did not answer GET /schemas/ids/1 within 0.05 s"):
        closed.find(1)


def configured(url, **registry):
    return parse_config(WRITTEN | {"events": WRITTEN["events"] | {"skew_s": 1e9, "registry": {"url": url, **registry}}})


def test_a_project_reads_its_events_through_its_registry_with_a_login(server, url, tmp_path):
    (tmp_path / "password").write_text("s3cret\n")
    project = Project(tmp_path, configured(url, user="me", password={"file": "password"}), ManualClock(NOW))
    server.login = b"me:s3cret"
    server.ids = {1: entry(SHOWN), 2: entry(CLICKED)}
    with closing(open_log(project)) as log:
        log.append("impressions", 0, [record(SHOWN, 1, EVENT | {"id": n}) for n in range(10)])
        log.append("clicks", 0, [record(CLICKED, 2, {"at": 5_500, "id": 4})])
        for kind in ("impressions", "clicks"):
            log.append(kind, 0, [EventCodec.of(project, kind, log).encode_heartbeat(10**9)])
        assert run_samples(project, log, until_end=True).samples == {"positive": 1, "negative": 9}
    assert sorted(server.requests) == ["/schemas/ids/1", "/schemas/ids/2"]


def test_the_settings_are_checked(tmp_path, url):
    for given, why in (
        ({"url": "registry:8081"}, "not an http or https URL"),
        ({"url": "http://me:pw@host"}, "holds a user or password"),
        ({"url": "http://host", "user": "me"}, "belong together"),
        ({"url": "http://host", "password": "pw", "user": "me"}, "password"),
        ({"url": "http://host", "timeout_s": 0}, "greater than 0"),
    ):
        with pytest.raises(ConfigError, match=why) as caught:
            configured(**given)
        assert "pw@" not in str(caught.value)
    project = Project(tmp_path, configured(url, user="me", password={"file": "gone"}), ManualClock(NOW))
    with closing(open_log(project)) as log, pytest.raises(ConfigError, match="gone cannot be read"):
        EventCodec.of(project, "clicks", log)


def test_a_damaged_schema_is_no_error_of_the_registry(server, registry):
    server.ids[1] = {"schema": "[]"}
    with pytest.raises(DamagedError, match="schema id 1 of registry"):
        registry.find(1)
