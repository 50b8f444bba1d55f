"""The configuration of processes: Flink jobs, the local cluster, telemetry."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.configuration.deployment.address import check_rest
from pipeline.configuration.deployment.serving import PortOrAny
from pipeline.configuration.section import Seconds, Section, check_distinct

Port = Annotated[int, Field(ge=1, le=65_535)]


class Flink(Section):
    """`[flink]`: the cluster that runs the jobs of `--runner flink`."""

    rest: Annotated[str, AfterValidator(check_rest)] | None = None
    """REST address, `http://host:port`; default: that of `springtide cluster up`."""
    parallelism: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Subtasks of every step; jobs started with another parallelism start from the logs instead of a checkpoint."""
    checkpoint_every_s: Seconds = 10.0
    """Interval of Flink's checkpoints."""
    bundle_ms: Annotated[int, Field(ge=1, le=10_000)] = 10
    """The longest time for which a step gathers records before it passes them on. Every subtask of every step looks
    for full bundles twice in this time: a larger one costs latency, a smaller one processor time."""
    folder: str | None = None
    """URI for checkpoints and savepoints, reachable from all machines; default: `flink` in the state folder."""
    jar: str | None = None
    """The jar with Beam's entry class, relative to the project folder; default: that of `springtide cluster up`."""
    worker: str = "springtide-worker"
    """Command that starts a Python worker on a TaskManager."""


class Cluster(Section):
    """`[cluster]`: a Kafka broker and a Flink cluster on this machine, all on the loopback address."""

    folder: str | None = None
    """Data, settings and logs of the processes; default: `cluster` in the state folder."""
    kafka_port: Port = 9092
    """Port of the broker."""
    kafka_controller_port: Port = 9093
    """Port of the KRaft controller."""
    kafka_heap_mb: Annotated[int, Field(ge=192, le=1 << 24)] = 384
    """Java heap of the broker."""
    message_max_bytes: Annotated[int, Field(ge=65_536, le=1 << 30)] = 8 << 20
    """Largest batch of records that the broker accepts."""
    flink_rest_port: Port = 8081
    """REST port of the JobManager."""
    flink_rpc_port: Port = 6123
    """RPC port of the JobManager; TaskManagers choose free ports at each start."""
    flink_metrics_port: Port | None = None
    """Prometheus port of the JobManager; TaskManager i uses this port + i. Off by default, because Flink listens on
    every address of the machine, not only on the loopback address."""
    store_port: Port = 9000
    """Port of the S3 server of `springtide cluster up --with-store`."""
    jobmanager_heap_mb: Annotated[int, Field(ge=256, le=1 << 24)] = 384
    """Java heap of the JobManager."""
    taskmanagers: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of TaskManagers."""
    taskmanager_slots: Annotated[int, Field(ge=1, le=1_000)] = 2
    """Slots of each TaskManager."""
    taskmanager_mb: Annotated[int, Field(ge=768, le=1 << 24)] = 1024
    """Total memory of one TaskManager's JVM; its Python workers need memory in addition."""
    state_backend: Literal["hashmap", "rocksdb"] = "hashmap"
    """Flink's state backend, for jobs other than springtide's, which have little state in Flink."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Properties that replace those of `pipeline/cluster/pom.xml`, such as `{"kafka.version" = "4.1.1"}`."""

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        names = ("kafka_port", "kafka_controller_port", "flink_rest_port", "flink_rpc_port", "store_port")
        ports = [(name, getattr(self, name)) for name in names]
        if (first := self.flink_metrics_port) is not None:
            ports += [("flink_metrics_port", first)]
            ports += [(f"the metrics port of taskmanager-{i}", first + i) for i in range(1, self.taskmanagers + 1)]
        check_distinct(ports, "port")
        return self


class Telemetry(Section):
    """`[telemetry]`: export of metrics."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: PortOrAny | None = None
    """Port of `/metrics`, or one of the next 15 if it is in use; off by default."""
    tensorboard: str | None = None
    """Folder of the trainer's TensorBoard summaries; off by default."""
    every_s: Seconds = 10.0
    """Minimum time between commits at which importance and convergence are measured and summaries written."""

    @property
    def enabled(self) -> bool:
        """Whether metrics or summaries are exported."""
        return self.port is not None or self.tensorboard is not None
