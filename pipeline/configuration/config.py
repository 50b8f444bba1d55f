"""The configuration: `springtide.toml`, typed and frozen, with every default in this one place.

Unknown keys are refused and every problem is reported at once, each with its path in the file. This is the only module
that reads the file or the environment.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from pipeline.arrays.block import EventKind
from pipeline.configuration.address import check_brokers, check_rest
from pipeline.configuration.fields import DenseConfig, FieldConfig
from pipeline.configuration.section import Fraction, Name, Secret, Section, TopicName, check_distinct
from pipeline.errors import ConfigError

ColumnType = Literal["string", "int", "float", "bool", "strings", "ints", "floats"]
TimeUnit = Literal["s", "ms", "us", "iso"]


_OF_KAFKA = (
    "bootstrap",
    "prefix",
    "security",
    "compression",
    "replication_factor",
    "max_record_bytes",
    "retry_timeout_s",
)


class Logs(Section):
    """Where topics live, and how many partitions they are made with."""

    engine: Literal["sqlite", "archive", "kafka"] = "sqlite"
    path: str | None = None
    """Folder of the logs; by default `logs` inside the state folder. Not for `kafka`."""
    partitions: PositiveInt = 1
    """Partitions of the impressions and clicks topics."""
    shards: PositiveInt = 1
    """Join shards = samples partitions = trainer shards; fixed for a topic's life."""
    outage_s: Annotated[float, Field(ge=0)] = 259_200.0
    """The longest the join may stand still and still find its inputs; their retention must cover it."""
    rollback_s: Annotated[float, Field(ge=0)] = 604_800.0
    """How far back a rollback may go; the samples' retention must cover it."""
    detection_s: Annotated[float, Field(ge=0)] = 86_400.0
    """How long bad data may stay unnoticed; comes on top of it."""
    bootstrap: Annotated[str, AfterValidator(check_brokers)] | None = None
    """`kafka`: where the client begins, `host:port`, several with commas between."""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,100}$")] = ""
    """`kafka`: goes before every topic's name on the cluster."""
    security: dict[str, str | int | bool | Secret] = Field(default_factory=dict)
    """`kafka`: settings of kafka-python that begin with security_, ssl_ or sasl_, handed on as they are. Passwords are
    `{ file = … }` or `{ env = … }`: this file is copied, shown and kept under version control."""
    compression: Literal["none", "lz4", "zstd"] = "lz4"
    """`kafka`: of what is written here."""
    replication_factor: PositiveInt | None = None
    """`kafka`: of topics made here; None leaves it to the cluster."""
    max_record_bytes: Annotated[int, Field(ge=65_536, le=1 << 30)] = 32 << 20
    """`kafka`: the largest record of topics made here."""
    retry_timeout_s: PositiveFloat = 60.0
    """`kafka`: how long a call is tried again while brokers are away."""

    @model_validator(mode="after")
    def _belong_to_the_engine(self) -> Self:
        problems = []
        if self.engine == "kafka":
            if not self.bootstrap:
                problems.append("bootstrap is missing, engine kafka begins there. hint: bootstrap = 'host:9092'")
            if self.path is not None:
                problems.append("path is not for engine kafka, whose logs are on the brokers. hint: remove it")
        else:
            foreign = [name for name in _OF_KAFKA if name in self.model_fields_set]
            problems += [f"{name} is for engine kafka, this is {self.engine}. hint: remove it" for name in foreign]
        strange = [name for name in self.security if not name.startswith(("security_", "ssl_", "sasl_"))]
        problems += [f"security.{n} begins with none of security_, ssl_, sasl_. hint: rename it" for n in strange]
        shown = [n for n, value in self.security.items() if n.endswith("password") and not isinstance(value, Secret)]
        problems += [
            f'security.{n} stands in this file. hint: {n} = {{ file = "…" }} or {{ env = "…" }}' for n in shown
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


SCHEMAS_TOPIC = "schemas"
"""The registry's topic, whose name is not to be chosen."""


class Topics(Section):
    """Names of the topics."""

    impressions: TopicName = "impressions"
    clicks: TopicName = "clicks"
    samples: TopicName = "samples"
    dead_letters: TopicName = "dead-letters"
    deltas: TopicName = "deltas"
    notices: TopicName = "notices"
    """CloudEvents about versions and rollbacks."""

    @property
    def inputs(self) -> dict[EventKind, str]:
        """Those that the join reads, by kind of event."""
        return {"impressions": self.impressions, "clicks": self.clicks}

    @model_validator(mode="after")
    def _one_name_each(self) -> Self:
        check_distinct([*self.model_dump().items(), ("the registry of schemas", SCHEMAS_TOPIC)], "name")
        return self


class EventColumns(Section):
    """One event type: its columns and how a file spells its time."""

    time: str = "at"
    """The column of a file that holds the event time."""
    time_unit: TimeUnit = "ms"
    columns: dict[str, ColumnType]
    """Every column but the time, with its type; an event that lacks one has null there."""


class Events(Section):
    """The two inputs: what joins them, and how far their times are trusted."""

    key: Annotated[tuple[str, ...], Field(min_length=1)]
    """The join key: columns both events carry."""
    partition_by: tuple[str, ...] = ()
    """Columns that choose the shard; both events carry them. Empty means the join key."""
    impressions: EventColumns
    clicks: EventColumns
    skew_s: PositiveFloat = 60.0
    """How far ahead of its append time an event's time may be; it moves its partition's mark to that append at most."""
    disorder_s: Annotated[float, Field(ge=0)] = 30.0
    """How far behind its partition's latest event an event may arrive without being late."""

    @property
    def shard_columns(self) -> tuple[str, ...]:
        return self.partition_by or self.key

    @model_validator(mode="after")
    def _both_carry_the_key(self) -> Self:
        for kind in ("impressions", "clicks"):
            columns = getattr(self, kind).columns
            for name in dict.fromkeys((*self.key, *self.partition_by)):
                if name not in columns:
                    raise ValueError(f"{kind}.columns lacks {name}, which key or partition_by names. hint: declare it")
                if columns[name] not in ("string", "int"):
                    raise ValueError(f"{kind}.columns.{name} is {columns[name]}, a key must be string or int")
        for name in (*self.key, *self.partition_by):
            if self.impressions.columns[name] != self.clicks.columns[name]:
                raise ValueError(f"{name} has different types in impressions and clicks. hint: make them the same")
        return self


class Samples(Section):
    """The join."""

    window_s: PositiveFloat = 600.0
    """Attribution window: a click counts if impression ≤ click < impression + window."""
    horizon_s: Annotated[float, Field(ge=0)] = 3600.0
    """After the window, how long a click is still compensated."""
    remember_s: Annotated[float, Field(ge=0)] = 600.0
    """After window and horizon, how long an impression is still known."""
    policy: Literal["wait", "fake_negative"] = "wait"
    negative_rate: Fraction = 1.0
    """Share of negatives kept, chosen by a hash of the join key."""
    labels: Annotated[tuple[str, ...], Field(min_length=1)] = ("label",)
    """The first is the click itself; each further one is a numeric column of the click event (0 without a click)."""
    weight: str | None = None
    """A float column of the impression that weighs its sample."""
    block_rows: PositiveInt = 8192
    """Most samples in one record of the samples log."""
    round_records: PositiveInt = 2_000
    """Most records one in-process round reads from each partition."""


class Model(Section):
    """The dense network."""

    build: str = "model:build"
    """`module:function` beside the configuration file: named Keras inputs → Keras model of logits [batch, labels]."""
    batch_size: PositiveInt = 512
    learning_rate: PositiveFloat = 0.02
    """Of the dense weights' Adagrad."""
    seed: int = 1
    threads: PositiveInt = 2
    """TensorFlow's threads; part of what makes training repeatable."""


class Ladder(Section):
    """Which versions are kept: all for a while, then one in ten minutes, then one a day. By the log's time."""

    all_s: PositiveFloat = 3600.0
    ten_minutes_s: PositiveFloat = 86_400.0
    daily_s: PositiveFloat | None = None
    """None keeps daily versions for ever."""


class Train(Section):
    """When a trainer commits, and what it keeps."""

    commit_every_s: PositiveFloat = 1.0
    """Wall time between commits."""
    commit_share: Fraction = 0.2
    """Training stands still for commits for at most this share of the time; else they come less often."""
    commit_every_log_s: PositiveFloat | None = 600.0
    """Commit this often by the log's time as well: a backfill can then be rolled back as finely as a live run."""
    commit_every_batches: PositiveInt | None = None
    """Commit after so many batches as well."""
    full_every_commits: PositiveInt = 50
    """Every so many commits a version is written whole, the others as what changed."""
    half_life_s: PositiveFloat = 86_400.0
    """Of importance, by the log's time."""
    loss_limit: PositiveFloat = 50.0
    """A batch whose mean loss exceeds this stops the line, as NaN does."""
    dictionary_size: Annotated[int, Field(ge=0)] = 100_000
    """Most keys per field whose raw value is remembered for the operator."""
    retention: Ladder = Ladder()


class Publish(Section):
    """What serving hears of, and how often."""

    share: Fraction = 0.9
    """A realtime delta carries the rows that hold this share of the importance-weighted withheld movement."""
    incremental_every_s: PositiveFloat | None = 600.0
    """By the log's time; None publishes incrementals only on command."""
    full_every_s: PositiveFloat | None = 86_400.0
    webhook: str | None = None
    executable: str | None = None


class Serving(Section):
    """Where a replica listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8501
    poll_ms: PositiveInt = 20
    """How long a replica waits in the log for deltas, its shards one after the other, before it looks at all again."""


class Flink(Section):
    """The cluster that `--runner flink` runs the jobs on."""

    rest: Annotated[str, AfterValidator(check_rest)] | None = None
    """Its REST address, `http://host:port`; by default that of `springtide cluster`."""
    parallelism: PositiveInt = 1
    """Subtasks of every step; with another one the jobs start from the logs alone."""
    checkpoint_every_s: PositiveFloat = 10.0
    folder: str | None = None
    """URI for checkpoints and savepoints that all machines see; by default `flink` inside the state folder."""
    jar: str | None = None
    """The small jar with Beam's entry class, from the project's folder; by default the one of `springtide cluster`."""
    worker: str = "springtide-worker"
    """Command that starts a Python worker on a TaskManager."""


Port = Annotated[int, Field(ge=1, le=65_535)]


class Cluster(Section):
    """A Kafka broker and a Flink cluster on this machine, all on the loopback address."""

    folder: str | None = None
    """Their data, settings and logs; by default `cluster` inside the state folder."""
    kafka_port: Port = 9092
    kafka_controller_port: Port = 9093
    kafka_heap_mb: Annotated[int, Field(ge=192)] = 384
    message_max_bytes: Annotated[int, Field(ge=65_536, le=1 << 30)] = 8 << 20
    """The largest batch of records the broker takes."""
    flink_rest_port: Port = 8081
    flink_rpc_port: Port = 6123
    """Of the JobManager; TaskManagers choose free ones at each start."""
    flink_metrics_port: Port | None = None
    """Prometheus reads the JobManager here, TaskManager i at this + i. Flink offers them on every address of the
    machine, not on the loopback address alone: hence off unless asked for."""
    jobmanager_heap_mb: Annotated[int, Field(ge=256)] = 384
    taskmanagers: Annotated[int, Field(ge=1, le=64)] = 1
    taskmanager_slots: PositiveInt = 2
    taskmanager_mb: Annotated[int, Field(ge=768)] = 1024
    """All memory of one TaskManager's Java; Python workers come on top."""
    state_backend: Literal["hashmap", "rocksdb"] = "hashmap"
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions that replace those of `pipeline/cluster/pom.xml`, by property: `{"kafka.version" = "4.1.1"}`."""

    @model_validator(mode="after")
    def _one_port_each(self) -> Self:
        names = ("kafka_port", "kafka_controller_port", "flink_rest_port", "flink_rpc_port")
        ports = [(name, getattr(self, name)) for name in names]
        if (first := self.flink_metrics_port) is not None:
            ports += [("flink_metrics_port", first)]
            ports += [(f"that of taskmanager-{i}'s metrics", first + i) for i in range(1, self.taskmanagers + 1)]
        check_distinct(ports, "port")
        return self


class Telemetry(Section):
    """What a process tells of itself."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Where a process answers Prometheus, or one of the next 15 where that is taken; 0 takes any that is free."""
    tensorboard: str | None = None
    """Folder of the trainer's TensorBoard summaries."""
    every_s: PositiveFloat = 10.0
    """Importance and convergence are looked at, and summaries written, by commits at least this far apart."""

    @property
    def on(self) -> bool:
        """Whether somebody looks."""
        return self.port is not None or self.tensorboard is not None


class Config(Section):
    """The whole file."""

    name: Name = "model"
    state_dir: str = "state"
    logs: Logs = Logs()
    topics: Topics = Topics()
    events: Events
    samples: Samples = Samples()
    fields: Annotated[tuple[FieldConfig, ...], Field(min_length=1)]
    dense: tuple[DenseConfig, ...] = ()
    model: Model = Model()
    train: Train = Train()
    publish: Publish = Publish()
    serving: Serving = Serving()
    flink: Flink = Flink()
    cluster: Cluster = Cluster()
    telemetry: Telemetry = Telemetry()

    @model_validator(mode="after")
    def _inputs_exist(self) -> Self:
        known = {*self.events.impressions.columns, "at"}
        inputs = [(f"field {f.name}", f.name, f.columns) for f in self.fields]
        inputs += [(f"dense {d.name}", d.name, (d.column,)) for d in self.dense]
        names = [name for _, name, _ in inputs]
        problems = [f"input {n} is declared twice" for n in sorted({n for n in names if names.count(n) > 1})]
        problems += [
            f"{who} reads column {c}, which impressions lack" for who, _, cs in inputs for c in cs if c not in known
        ]
        clicks = self.events.clicks.columns
        numeric = {name for name, kind in clicks.items() if kind in ("int", "float", "bool")}
        problems += [f"label {n} is no numeric column of clicks" for n in self.samples.labels[1:] if n not in numeric]
        if self.samples.weight and self.events.impressions.columns.get(self.samples.weight) != "float":
            problems.append(f"weight {self.samples.weight} is no float column of impressions")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def parse_config(document: dict[str, Any], origin: str = "configuration") -> Config:
    """Check a parsed document. Raises ConfigError that lists every problem with its path."""
    try:
        return Config.model_validate(document)
    except ValidationError as failure:
        problems = [f"  {_path(e['loc'])}: {_reason(e)}" for e in failure.errors()]
        raise ConfigError(f"{origin} has {len(problems)} problem(s):\n" + "\n".join(problems)) from None


def load_config(path: Path) -> Config:
    """Read and check a `springtide.toml`. Raises ConfigError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        former = path.with_name("freshet.toml")
        if former.exists():
            raise ConfigError(f"{former} has the product's former name. run: mv {former} {path}") from None
        raise ConfigError(f"{path} does not exist. run: springtide init {path.parent}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise ConfigError(f"{path} is not TOML: {failure}") from None
    return parse_config(document, str(path))


def revealed(secret: Secret, root: Path) -> str:
    """What a secret says, without the end of its line. Raises ConfigError where it is not there, or is empty."""
    place = f"${secret.env}" if secret.env else str(root / str(secret.file))
    try:
        found = os.environ.get(secret.env, "") if secret.env else Path(place).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise ConfigError(f"secret {place} cannot be read: {failure}") from None
    if not (value := found.rstrip("\r\n")):
        raise ConfigError(f"secret {place} is empty or not set. hint: see logs.security")
    return value


def crash_point_of_environment() -> str | None:
    """What SPRINGTIDE_CRASH_AT arms, for tests of crashes."""
    return os.environ.get("SPRINGTIDE_CRASH_AT")


def hand_to_worker(values: Mapping[str, str]) -> None:
    """Set what Beam's worker reads from the environment; call before it starts."""
    os.environ.update(values)


def environment_with(**added: str) -> dict[str, str]:
    """What a process started from here sees: our own environment and what is added."""
    return {**os.environ, **added}


def cache_folder() -> Path:
    """Where what can be had again is kept for all projects: $XDG_CACHE_HOME/springtide, else ~/.cache/springtide."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "springtide"


def quiet_tensorflow() -> None:
    """Keep TensorFlow's start-up talk off stderr, unless the environment asks for it; call before importing it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location if not str(part).startswith("<")) or "file"


def _reason(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown(str(error["loc"][-1]), error["input"])
    if error["type"] == "missing":
        return "missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    shown = repr(error["input"])
    return message if error["type"] == "value_error" or len(shown) > 60 else f"{message}, got {shown}"


def _unknown(key: str, known: Sequence[str]) -> str:
    """What is wrong with a key that its table does not have.

    >>> _unknown("paralelism", ("rest", "parallelism"))
    'unknown key, the nearest is parallelism. known: rest, parallelism'
    """
    nearest = "".join(f", the nearest is {name}" for name in difflib.get_close_matches(key, known, 1))
    return f"unknown key{nearest}. known: {', '.join(known)}"
