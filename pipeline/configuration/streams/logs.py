"""The configuration of the logs: their engine, retention and topics."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.configuration.deployment.address import check_brokers
from pipeline.configuration.section import Seconds, SecondsOrZero, Secret, Section, TopicName, check_distinct

_Int32 = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]
_KAFKA_ONLY = (
    "bootstrap",
    "prefix",
    "security",
    "compression",
    "replication_factor",
    "max_record_bytes",
    "retry_timeout_s",
)


class Logs(Section):
    """`[logs]`: the engine that stores the topics, and how the topics are created."""

    engine: Literal["sqlite", "archive", "kafka"] = "sqlite"
    """`sqlite`: files of this machine. `kafka`: a cluster. `archive`: Avro files, read-only, for a backfill."""
    path: str | None = None
    """Folder of the logs; default: `logs` in the state folder. Not for `kafka`."""
    partitions: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Partitions of the topics of impressions and of every feedback."""
    shards: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Join shards = partitions of the samples topic = trainer shards; fixed for the life of the topics."""
    outage_s: SecondsOrZero = 259_200.0
    """Longest supported outage of the join: the input topics are retained at least this long."""
    rollback_s: SecondsOrZero = 604_800.0
    """How far back a rollback may go: the samples topic is retained at least this long, plus `detection_s`."""
    detection_s: SecondsOrZero = 86_400.0
    """Longest time until bad data is detected."""
    bootstrap: Annotated[str, AfterValidator(check_brokers)] | None = None
    """`kafka`: bootstrap servers, `host:port`, separated by commas."""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,100}$")] = ""
    """`kafka`: prefix of every topic's name on the cluster."""
    security: dict[str, str | bool | _Int32 | Secret] = Field(default_factory=dict)
    """`kafka`: settings of kafka-python that begin with security_, ssl_ or sasl_, passed on unchanged. Passwords must
    be `{ file = … }` or `{ env = … }`, because this file is copied, printed and kept under version control."""
    compression: Literal["none", "lz4", "zstd"] = "lz4"
    """`kafka`: compression of appended records."""
    replication_factor: Annotated[int, Field(ge=1, le=1_000)] | None = None
    """`kafka`: replication factor of created topics; default: that of the cluster."""
    max_record_bytes: Annotated[int, Field(ge=65_536, le=1 << 30)] = 32 << 20
    """`kafka`: largest record of created topics."""
    retry_timeout_s: Seconds = 60.0
    """`kafka`: how long a call is retried while brokers are unavailable."""

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        problems = []
        if self.engine == "kafka":
            if not self.bootstrap:
                problems.append("bootstrap is missing for engine kafka. hint: bootstrap = 'host:9092'")
            if self.path is not None:
                problems.append("path is not for engine kafka, its logs are on the brokers. hint: remove it")
        else:
            foreign = [name for name in _KAFKA_ONLY if name in self.model_fields_set]
            problems += [f"{name} is for engine kafka, this is {self.engine}. hint: remove it" for name in foreign]
        unknown = [name for name in self.security if not name.startswith(("security_", "ssl_", "sasl_"))]
        problems += [f"security.{n} does not begin with security_, ssl_ or sasl_. hint: rename it" for n in unknown]
        literal = [n for n, value in self.security.items() if n.endswith("password") and not isinstance(value, Secret)]
        problems += [
            f'security.{n} is a password in this file. hint: {n} = {{ file = "…" }} or {{ env = "…" }}' for n in literal
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


SCHEMAS_TOPIC = "schemas"
"""Topic of the schema registry; its name is not configurable."""


class Topics(Section):
    """`[topics]`: names of the topics."""

    impressions: TopicName = "impressions"
    """Input: shown items."""
    clicks: TopicName = "clicks"
    """Input: clicks."""
    samples: TopicName = "samples"
    """Labelled impressions, one partition per shard."""
    dead_letters: TopicName = "dead-letters"
    """Events set aside."""
    deltas: TopicName = "deltas"
    """Deltas for serving, one partition per shard."""
    ledger: TopicName = "ledger"
    """Versions, CURRENT, rollbacks, quarantines: one partition per shard, and one for what concerns all."""
    notices: TopicName = "notices"
    """CloudEvents about versions and rollbacks."""

    @model_validator(mode="after")
    def _check_distinct(self) -> Self:
        check_distinct([*self.model_dump().items(), ("the registry of schemas", SCHEMAS_TOPIC)], "name")
        return self
