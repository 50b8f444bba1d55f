"""Responds to the requests of a front: receives its messages, has a lane compute each response, and sends it back."""

import json
import socket
import threading
from functools import partial
from typing import Any

import structlog

from pipeline.configuration.deployment.serving import Serving
from pipeline.process.clock import Clock
from pipeline.serving.link.channel import Channel, Kind, Message, encode_response
from pipeline.serving.link.paths import HEALTH, READINESS
from pipeline.serving.link.response import Refusal, Response, json_response
from pipeline.serving.rest.api import RestApi
from pipeline.serving.rest.give_way import GiveWay
from pipeline.serving.rest.lane import Lane, Respond
from pipeline.telemetry import metrics

_WAITING_READS = 16
_LARGE_SHARE, _READ_SHARE = 0.5, 0.1
"""Shares of their thread's time, so that neither large requests nor scrapes without end slow down predictions."""
_STUCK_AFTER_DEADLINES = 3

logger = structlog.get_logger(__name__)


class Service:
    """One front at a time; `stop` and `close` are called by another thread."""

    def __init__(self, api: RestApi, serving: Serving, clock: Clock) -> None:
        self._api, self._serving, self._clock = api, serving, clock
        self._small = Lane("predict", serving.threads, serving.max_waiting, clock)
        self._large = Lane("predict large", 1, serving.max_large_requests, clock, _LARGE_SHARE)
        self._reads = Lane("read", 1, _WAITING_READS, clock, _READ_SHARE)
        self._lock = threading.Lock()
        self._quick: Channel | None = None
        self._stopping = False
        self.started = threading.Event()
        """Set once a front serves connections."""
        self.connections = 0
        """Open connections of the front, a second ago at most."""

    def serve(self, quick: socket.socket, bulk: socket.socket) -> None:
        """Respond to a front until it closes its channels."""
        channels = Channel(quick), Channel(bulk)
        with self._lock:
            self._quick = channels[0]
            if self._stopping:
                self._quick.send(Message(Kind.STOP))
        large = threading.Thread(target=self._receive, args=(channels[1],), name="receive large", daemon=True)
        large.start()
        self._receive(channels[0])
        channels[1].close()
        large.join()
        self.connections = 0

    def stop(self) -> None:
        """End the front, and every later one, after the requests in progress; does not wait for it."""
        with self._lock:
            self._stopping = True
            if self._quick:  # in a thread: a front that reads nothing would block it
                threading.Thread(target=self._quick.send, args=(Message(Kind.STOP),), daemon=True).start()

    def giving_way(self) -> GiveWay:
        """A pause for one piece of work that gives way to small requests."""
        return GiveWay(self._small, self._clock)

    def close(self) -> None:
        """End the threads after their current requests."""
        for lane in (self._small, self._large, self._reads):
            lane.close()

    def _receive(self, channel: Channel) -> None:
        try:
            for message in channel.messages():
                respond = partial(_respond, channel, message.number)
                try:
                    self._handle(message, respond)
                except Refusal as refusal:
                    respond(refusal.response)
        finally:
            channel.close()  # after a failure too: the front then ends, and another one is started

    def _handle(self, message: Message, respond: Respond) -> None:
        deadline_s, content = self._serving.deadline_s, message.content
        match message.kind:
            case Kind.PREDICT:
                self._api.check_ready()
                self._small.submit(partial(self._api.predict, content, _continue), respond, deadline_s)
            case Kind.PREDICT_LARGE:
                self._api.check_ready()
                self._large.submit(lambda: self._api.predict(content, self.giving_way()), respond, deadline_s)
            case Kind.RECALL:
                self._api.check_ready()
                self._small.submit(partial(self._api.recall, content), respond, deadline_s)
            case Kind.READ:
                self._read(content.decode(), respond)
            case Kind.COUNTS:
                self.connections = _add_counts(content)
            case Kind.PROBLEM:
                _log(content)
            case Kind.STARTED:
                self.started.set()

    def _read(self, path: str, respond: Respond) -> None:
        if path == READINESS:
            self._api.check_ready()
            respond(json_response(200, {"ready": True}))
        elif path == HEALTH:
            respond(self._health())
        else:
            self._reads.submit(lambda: self._api.read(path, self.giving_way()), respond, self._serving.deadline_s)

    def _health(self) -> Response:
        """503 once no thread can predict any more, because functions of the user do not return."""
        after_s = _STUCK_AFTER_DEADLINES * self._serving.deadline_s
        if self._small.stuck(after_s):
            raise Refusal(503, f"all {self._serving.threads} threads have been busy for more than {after_s:g} s")
        return json_response(200, {"healthy": True})


def _respond(channel: Channel, number: int, response: Response) -> None:
    channel.send(Message(Kind.RESPONSE, number, encode_response(response)))


def _continue() -> None:
    """Small requests do not pause."""


def _log(line: bytes) -> None:
    event: dict[str, Any] = json.loads(line)
    logger.error(event.pop("event"), **event)


def _add_counts(taken: bytes) -> int:
    """Add counts of the front to the metrics of this process; returns the number of open connections."""
    counts: dict[str, Any] = json.loads(taken)
    for status, count in counts["requests"].items():
        metrics.HTTP_REQUESTS.labels(status).inc(count)
    for status, count in counts["predictions"].items():
        metrics.PREDICT_REQUESTS.labels(status).inc(count)
    for reason, count in counts["closed"].items():
        metrics.HTTP_CLOSED.labels(reason).inc(count)
    for seconds in counts["seconds"]:
        metrics.PREDICT_SECONDS.observe(seconds)
    return int(counts["connections"])
