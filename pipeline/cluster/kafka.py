"""A Kafka broker with its own controller (KRaft): settings, data folder, start command and readiness check.

Configured for exactly-once on one node: internal topics have one replica and few partitions, no topic is auto-created.
"""

import shutil
import socket
import struct
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from pipeline.cluster.java.log4j import render_log4j2
from pipeline.cluster.java.programs import java_command
from pipeline.configuration.deployment.services import Cluster
from pipeline.errors import ClusterError

_INTERNAL_PARTITIONS = 4
_REQUEST_LIMIT_BYTES = 100 << 20
_REQUEST_TIMEOUT_S = 1.0
_METADATA, _METADATA_VERSION = 3, 1
_MAX_INT_MS = 2**31 - 1
"""25 days. A writer that is idle for longer has to be restarted."""


def render_properties(settings: Cluster, data: Path) -> str:
    """The content of server.properties for a broker with its logs in `data`."""
    controller = f"127.0.0.1:{settings.kafka_controller_port}"
    values = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{settings.kafka_port},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{settings.kafka_port}",
        "log.dirs": data,
        # A killed broker can register again only after its former session has expired.
        "broker.session.timeout.ms": 3_000,
        "broker.heartbeat.interval.ms": 500,
        "auto.create.topics.enable": "false",
        "message.max.bytes": settings.message_max_bytes,
        "socket.request.max.bytes": max(_REQUEST_LIMIT_BYTES, settings.message_max_bytes + (1 << 20)),
        "group.initial.rebalance.delay.ms": 0,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": _INTERNAL_PARTITIONS,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transactional.id.expiration.ms": _MAX_INT_MS,
        "transaction.state.log.num.partitions": _INTERNAL_PARTITIONS,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "num.network.threads": 2,
        "num.io.threads": 4,
        # Its default, 128 MB, is a third of the heap.
        "log.cleaner.dedupe.buffer.size": 16 << 20,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def broker_command(settings: Cluster, folder: Path, jars: Path) -> list[str]:
    """Write the broker's settings into `folder`, format its data folder once, and return the start command.

    Raises:
        ClusterError: if Java is missing or the data folder cannot be formatted.
    """
    home, data = folder / "kafka", folder / "kafka" / "data"
    home.mkdir(parents=True, exist_ok=True)
    (folder / "tmp").mkdir(exist_ok=True)
    (home / "log4j2.xml").write_text(render_log4j2(), encoding="utf-8")
    (home / "server.properties").write_text(render_properties(settings, data), encoding="utf-8")
    if not data.is_dir():
        _format(settings, folder, jars, data)
    options = [f"-Xmx{settings.kafka_heap_mb}m", *_log_options(folder, "kafka")]
    return java_command(jars, folder / "tmp", options, ["kafka.Kafka", str(home / "server.properties")])


def broker_ready(port: int) -> bool:
    """Whether a broker responds on `port` and is registered at its controller."""
    # A hand-written metadata request (version 1, no topics): a client would need a thread and seconds of retries.
    request = struct.pack(">hhih", _METADATA, _METADATA_VERSION, 1, -1) + struct.pack(">i", 0)
    try:
        with socket.create_connection(("127.0.0.1", port), _REQUEST_TIMEOUT_S) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            response = _read_exactly(connection, 12)
    except OSError:
        return False
    # Length, correlation id and the number of brokers, which is 0 while the broker starts.
    return len(response) == 12 and struct.unpack(">iii", response)[2] > 0


def cluster_id(random: uuid.UUID) -> str:
    """A cluster id as Kafka writes it. It begins with a letter: its tool takes a leading "-" for an option.

    >>> cluster_id(uuid.UUID(int=2**128 - 1))
    'f____________________w'
    """
    content = bytes([random.bytes[0] & 0x7F]) + random.bytes[1:]
    return urlsafe_b64encode(content).decode().rstrip("=")


def _format(settings: Cluster, folder: Path, jars: Path, data: Path) -> None:
    """Format `data` with Kafka's tool under a temporary name and rename it, so an existing folder is complete."""
    temporary = data.with_name("data.making")
    shutil.rmtree(temporary, ignore_errors=True)
    properties = data.with_name("making.properties")
    properties.write_text(render_properties(settings, temporary), encoding="utf-8")
    tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id(uuid.uuid4()), "-c", str(properties)]
    # The tool runs once: optimizing it would take longer than running it.
    options = ["-Xmx128m", "-XX:TieredStopAtLevel=1", *_log_options(folder, "kafka-format")]
    command = java_command(jars, folder / "tmp", options, tool)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    properties.unlink()
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise ClusterError(f"{data} cannot be formatted: {lines[-1]}. hint: see {folder / 'logs'}")
    temporary.rename(data)


def _log_options(folder: Path, name: str) -> list[str]:
    return [
        f"-Dlog4j2.configurationFile={folder / 'kafka' / 'log4j2.xml'}",
        f"-Dlog.file={folder / 'logs' / name}.log",
    ]


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    """`size` bytes, or fewer if the connection ends."""
    read = b""
    while len(read) < size and (part := connection.recv(size - len(read))):
        read += part
    return read
