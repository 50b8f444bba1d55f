"""A standalone Flink cluster: its settings, the commands that start its processes, and their readiness checks.

Checkpoints are retained when a job is cancelled. Jobs restart without limit; monitoring decides when to stop one.
"""

from pathlib import Path
from typing import Any

from pipeline.cluster.flink_rest import FlinkRest
from pipeline.cluster.java.log4j import render_log4j2
from pipeline.cluster.java.programs import java_command
from pipeline.cluster.memory import split_memory
from pipeline.configuration.deployment.services import Cluster
from pipeline.errors import ClusterError

_REST_TIMEOUT_S = 2.0
_RESTARTS = 2**31 - 1
_HEARTBEAT_MS, _HEARTBEAT_TIMEOUT_MS = 1_000, 10_000
"""A TaskManager that is unreachable twice in a row is removed: after two heartbeats, before its successor starts."""
_RESTART_AFTER_MS = 100
_REGISTRATION_DELAY_MS = 1_000
_JOBMANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASKMANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
# C1 only: a start and a first submission take half the processor time, and nothing in the JobManager is hot.
_QUICK_COMPILE = ("-XX:TieredStopAtLevel=1",)
# Flink and Beam reflect on private members of the JDK, which Java allows only with these options.
_OPEN_PACKAGES = (
    *("lang", "lang.reflect", "io", "net", "nio", "text", "time", "util"),
    *("util.concurrent", "util.concurrent.atomic", "util.concurrent.locks"),
)
_ACCESS = (
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPEN_PACKAGES),
)


def render_flink_conf(settings: Cluster, home: Path, temporary: Path) -> str:
    """The settings shared by all processes of the cluster; checkpoints and savepoints are below `home`."""
    values: dict[str, Any] = {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.rpc.port": settings.flink_rpc_port,
        "jobmanager.bind-host": "127.0.0.1",
        "taskmanager.host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        "taskmanager.numberOfTaskSlots": settings.taskmanager_slots,
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": settings.flink_rest_port,
        "web.refresh-interval": 500,  # ms; the age of the job states in REST responses
        "web.submit.enable": "true",
        "web.upload.dir": temporary,
        "web.tmpdir": temporary,
        "io.tmp.dirs": temporary,
        # Each TaskManager has its own Python workers, so spreading subtasks makes them run in parallel.
        "cluster.evenly-spread-out-slots": "true",
        "parallelism.default": settings.taskmanagers * settings.taskmanager_slots,
        "state.backend.type": settings.state_backend,
        "state.backend.incremental": "true",
        "state.checkpoints.dir": (home / "checkpoints").as_uri(),
        "state.savepoints.dir": (home / "savepoints").as_uri(),
        "state.checkpoints.num-retained": 2,
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": _RESTARTS,
        "restart-strategy.fixed-delay.delay": f"{_RESTART_AFTER_MS} ms",
        "heartbeat.interval": _HEARTBEAT_MS,
        "heartbeat.timeout": _HEARTBEAT_TIMEOUT_MS,
        # Interval at which TaskManagers retry to register while the JobManager is unavailable.
        "cluster.registration.error-delay": _REGISTRATION_DELAY_MS,
        "cluster.registration.refused-registration-delay": _REGISTRATION_DELAY_MS,
    }
    if settings.flink_metrics_port is not None:
        values["metrics.reporter.prom.factory.class"] = "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"
    values |= split_memory(settings.taskmanager_mb, settings.state_backend).settings()
    return "".join(f"{name}: {value}\n" for name, value in values.items())


def _prepare(settings: Cluster, folder: Path) -> Path:
    """Write the cluster's settings into `folder`; returns Flink's configuration folder."""
    home = folder / "flink"
    conf = home / "conf"
    for path in (conf, home / "checkpoints", home / "savepoints", folder / "tmp"):
        path.mkdir(parents=True, exist_ok=True)
    (conf / "log4j2.xml").write_text(render_log4j2(), encoding="utf-8")
    # Flink 1 reads the first, Flink 2 the second file.
    for name in ("flink-conf.yaml", "config.yaml"):
        (conf / name).write_text(render_flink_conf(settings, home, folder / "tmp"), encoding="utf-8")
    return conf


def jobmanager_command(settings: Cluster, folder: Path, jars: Path) -> list[str]:
    """The command that starts the JobManager."""
    conf = _prepare(settings, folder)
    options = [f"-Xmx{settings.jobmanager_heap_mb}m", *_QUICK_COMPILE, *_ACCESS, *_log_options(folder, "jobmanager")]
    main = [_JOBMANAGER, "--configDir", str(conf), *_metrics_option(settings, 0)]
    return java_command(jars, folder / "tmp", options, main)


def taskmanager_command(settings: Cluster, folder: Path, jars: Path, number: int, port: int) -> list[str]:
    """The command that starts TaskManager `number`, which listens on `port`."""
    conf, name = _prepare(settings, folder), f"taskmanager-{number}"
    memory = split_memory(settings.taskmanager_mb, settings.state_backend)
    sizes = [
        f"-Xmx{memory.heap}m",
        f"-XX:MaxDirectMemorySize={memory.direct}m",
        f"-XX:MaxMetaspaceSize={memory.metaspace}m",
    ]
    # A stable id: the JobManager then replaces a restarted TaskManager immediately.
    own = {"taskmanager.resource-id": name, "taskmanager.rpc.port": str(port), "taskmanager.cpu.cores": "1"}
    arguments = [argument for key, value in own.items() for argument in ("-D", f"{key}={value}")]
    main = [_TASKMANAGER, "--configDir", str(conf), *arguments, *_metrics_option(settings, number)]
    return java_command(jars, folder / "tmp", [*sizes, *_ACCESS, *_log_options(folder, name)], main)


def jobmanager_ready(rest_port: int) -> bool:
    """Whether a JobManager responds on `rest_port`."""
    return read_flink(rest_port, "/overview") is not None


def taskmanager_registered(rest_port: int, number: int, port: int) -> bool:
    """Whether TaskManager `number`, listening on `port`, is registered at the JobManager with its slots."""
    registered = read_flink(rest_port, "/taskmanagers") or {"taskmanagers": []}
    return any(
        one["id"] == f"taskmanager-{number}" and f":{port}/" in one["path"] and one["slotsNumber"] > 0
        for one in registered["taskmanagers"]
    )


def read_flink(rest_port: int, path: str) -> Any:
    """The JSON response of Flink's REST interface on this machine; None if it is unavailable."""
    try:
        return FlinkRest(f"127.0.0.1:{rest_port}", _REST_TIMEOUT_S).get(path)
    except ClusterError:
        return None


def _metrics_option(settings: Cluster, number: int) -> list[str]:
    if settings.flink_metrics_port is None:
        return []
    return ["-D", f"metrics.reporter.prom.port={settings.flink_metrics_port + number}"]


def _log_options(folder: Path, name: str) -> list[str]:
    return [
        f"-Dlog4j2.configurationFile={folder / 'flink' / 'conf' / 'log4j2.xml'}",
        f"-Dlog.file={folder / 'logs' / name}.log",
    ]
