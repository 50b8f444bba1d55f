"""An S3 server over a folder of this machine (s3proxy), for trying and testing `[files] url = "s3://…"`."""

import http.client
from pathlib import Path

from pipeline.cluster.java.programs import java_command
from pipeline.configuration.deployment.services import Cluster

BUCKET = "springtide"
ACCESS_KEY, SECRET_KEY = "springtide", "springtide-on-loopback"
"""Of every local store; it listens on the loopback address only."""
_MAIN = "org.gaul.s3proxy.Main"
_TIMEOUT_S = 2.0
_HEAP_MB = 384


def store_command(settings: Cluster, folder: Path, jars: Path) -> list[str]:
    """Write the server's settings into `folder`, create its bucket, and return the start command."""
    home = folder / "store"
    for path in (home / "data" / BUCKET, folder / "tmp"):
        path.mkdir(parents=True, exist_ok=True)
    properties, log = home / "s3proxy.properties", home / "logback.xml"
    properties.write_text(render_store_properties(settings, home / "data"), encoding="utf-8")
    log.write_text(_render_logback(folder / "logs" / "store.log"), encoding="utf-8")
    options = [f"-Xmx{_HEAP_MB}m", f"-Dlogback.configurationFile={log}"]
    return java_command(jars, folder / "tmp", options, [_MAIN, "--properties", str(properties)])


def render_store_properties(settings: Cluster, data: Path) -> str:
    """The settings of a server that keeps objects below `data`."""
    values = {
        "s3proxy.endpoint": f"http://127.0.0.1:{settings.store_port}",
        "s3proxy.authorization": "aws-v2-or-v4",
        "s3proxy.identity": ACCESS_KEY,
        "s3proxy.credential": SECRET_KEY,
        "jclouds.provider": "filesystem-nio2",
        "jclouds.filesystem.basedir": data,
        "jclouds.identity": "unused",
        "jclouds.credential": "unused",
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def store_settings(settings: Cluster) -> str:
    """What a project needs to use the store: its settings and the environment."""
    return (
        f'[files] url = "s3://{BUCKET}/PREFIX", options = {{ endpoint = "http://127.0.0.1:{settings.store_port}" }}; '
        f"AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY} AWS_REGION=local"
    )


def store_ready(port: int) -> bool:
    """Whether a server answers requests on `port`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


def _render_logback(log: Path) -> str:
    return f"""<configuration>
  <appender name="file" class="ch.qos.logback.core.FileAppender">
    <file>{log}</file>
    <encoder><pattern>%d{{yyyy-MM-dd'T'HH:mm:ss.SSSXXX,UTC}} %-5level %logger{{1}} [%thread] %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="file"/></root>
</configuration>
"""
