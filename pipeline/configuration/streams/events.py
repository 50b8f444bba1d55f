"""The configuration of the input events and of the samples that the join makes from them."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticKnownError

from pipeline.arrays.block import EventKind
from pipeline.configuration.deployment.address import check_registry
from pipeline.configuration.section import (
    Count,
    Fraction,
    Seconds,
    SecondsOrZero,
    Secret,
    Section,
    TopicName,
    declared_twice,
)

ColumnType = Literal["string", "int", "uint", "float", "bool", "strings", "ints", "uints", "floats"]
TimeUnit = Literal["s", "ms", "us", "iso"]
Policy = Literal["wait", "close", "fake_negative"]

IMPRESSIONS, CLICKS, CANDIDATES = "impressions", "clicks", "candidates"
"""The kinds of event with a table of their own; every other one is a feedback with a name of the user's choice."""

EVENT_TIME = "at"
"""Name of the event time in events and samples."""
SAMPLE_COLUMNS = (
    "impression_at",
    "click_at",
    "weight",
    "rate",
    "kind",
    "negative_written",
    "impression_partition",
    "impression_offset",
    "impression_row",
    "click_partition",
    "click_offset",
    "click_row",
)
"""Columns that the join adds to every sample, besides the labels; no impression column and no label has such a name."""
FEEDBACK_COLUMNS = ("feedback", "observed_until")
"""Further ones if there are other feedbacks than clicks: the kind of the deciding event, and the event time (ms) up to
which the labels of the sample were observed."""
CANDIDATE_SCORE = "candidate_score"
"""A further column if candidates are logged: the fine score of a sample that was not shown."""
MAX_FEEDBACKS = 32
_AVRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_Share = Annotated[float, Field(ge=0, le=1)]


def _check_column_names(columns: dict[str, ColumnType]) -> dict[str, ColumnType]:
    wrong = [name for name in columns if name == EVENT_TIME or not _AVRO_NAME.fullmatch(name)]
    problems = [
        f"a column cannot be called {name!r}: "
        + ("this is the event time" if name == EVENT_TIME else "avro allows letters, digits and _")
        for name in wrong
    ]
    if problems:
        raise ValueError(f"{'; '.join(problems)}. hint: rename it")
    return columns


class EventColumns(Section):
    """`[events.impressions]` and `[events.clicks]`: the columns of one kind of event."""

    encoding: Literal["avro", "json"] = "avro"
    """Single events in the topic: `avro`: framed Avro only; `json`: also one JSON object per record. Packed records and
    heartbeats are framed in both."""
    time: str = "at"
    """Column of an ingested file, and property of a JSON event, that holds the event time."""
    time_unit: TimeUnit = "ms"
    """Unit of that time: s, ms or us since 1970, or ISO 8601 text."""
    columns: Annotated[dict[str, ColumnType], AfterValidator(_check_column_names)]
    """Type of every column except the time; a column that is missing in an event is null. `int` has 64 bits and a
    sign, `uint` 64 bits and none: ids that are hashes."""


class FeedbackEvents(EventColumns):
    """`[events.NAME]`: a further kind of feedback, such as `purchase`; there may be several. Its label has its name."""

    topic: TopicName | None = None
    """Its topic; default: its name."""
    window_s: Seconds = 600.0
    """Attribution window: an event counts if impression ≤ event < impression + window."""
    horizon_s: SecondsOrZero = 3600.0
    """Lateness horizon: how long after the window an event is still compensated."""
    policy: Policy = "wait"
    """When a negative of its label is emitted; as `samples.policy`."""


class CandidateEvents(EventColumns):
    """`[events.candidates]`: items that a request ranked and did not show, with the score of the fine ranker then.

    Each becomes a sample without a value of any label; labels with `candidates = true` learn its score. Its columns are
    the score, the key, and any of the impressions' columns with their types.
    """

    topic: TopicName = CANDIDATES
    """Its topic."""
    score: Annotated[str, Field(min_length=1)]
    """Float column that holds the fine ranker's probability; a candidate without one from 0 to 1 is a dead letter."""
    window_s: Seconds | None = None
    """How long after the candidate its sample is emitted; default: the window of the feedback of the label that learns
    it, so that the candidates and impressions of a request that have one time leave together."""

    @property
    def shared_columns(self) -> dict[str, ColumnType]:
        """Those that impressions have too."""
        return {name: kind for name, kind in self.columns.items() if name != self.score}


def _refuse_unknown_key(given: Any) -> Any:
    """A value that is no table is that of an unknown key, for which `Section` gives the known ones."""
    if isinstance(given, tuple):
        raise PydanticKnownError("extra_forbidden")
    return given


class Registry(Section):
    """`[events.registry]`: a Confluent schema registry, for the writer schemas of single events."""

    url: Annotated[str, AfterValidator(check_registry)]
    """Its http or https URL, without user and password."""
    user: str | None = None
    """User for basic authentication."""
    password: Secret | None = None
    """Password of that user."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Total time of one look-up with its retries; then the job fails, and continues there once it is restarted."""

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password belong together. hint: set both or none")
        return self


class Events(Section):
    """`[events]`: the inputs, the columns that join them, and the limits on their times."""

    model_config = ConfigDict(extra="allow")
    named_tables = True
    __pydantic_extra__: dict[str, Annotated[FeedbackEvents, BeforeValidator(_refuse_unknown_key)]]

    key: Annotated[tuple[str, ...], Field(min_length=1)]
    """The join key: columns of all events."""
    partition_by: tuple[str, ...] = ()
    """Columns of all events that choose the shard; default: the join key."""
    impressions: EventColumns
    clicks: EventColumns | None = None
    """Left out, the labels are those of other feedbacks."""
    candidates: CandidateEvents | None = None
    """Left out, all samples are of impressions."""
    skew_s: Seconds = 60.0
    """How far after its append time an event time may lie; beyond it, the event is a dead letter. An event time after
    the append time advances its partition's max event time to the append time only."""
    max_ahead_s: Seconds | None = 86_400.0
    """Strays of an ingested file are dead letters: a few rows (one in twenty at most) that lie further ahead of all
    others than this, and further than the others are apart. One of them would make the rest of its partition late."""
    disorder_s: SecondsOrZero = 30.0
    """How far behind its partition's max event time an event may arrive without being late."""
    registry: Registry | None = None
    """Where schema ids are looked up that the `schemas` topic lacks; default: nowhere."""

    @property
    def shard_columns(self) -> tuple[str, ...]:
        return self.partition_by or self.key

    @property
    def shard_keys(self) -> tuple[str, ...]:
        """The columns that no event may lack: the join key and those that choose the shard."""
        return tuple(dict.fromkeys((*self.key, *self.partition_by)))

    @property
    def sample_columns(self) -> tuple[str, ...]:
        """The columns that the join adds to every sample, besides the labels."""
        of_feedbacks = FEEDBACK_COLUMNS if self.further else ()
        return (*SAMPLE_COLUMNS, *of_feedbacks, *(() if self.candidates is None else (CANDIDATE_SCORE,)))

    @property
    def further(self) -> dict[EventKind, FeedbackEvents]:
        """The feedbacks besides clicks, in the order of the file."""
        return dict(self.__pydantic_extra__)

    @property
    def by_kind(self) -> dict[EventKind, EventColumns]:
        """All kinds of event: impressions, feedbacks, candidates if they are logged."""
        candidates = {} if self.candidates is None else {CANDIDATES: self.candidates}
        return {IMPRESSIONS: self.impressions, **self.feedbacks, **candidates}

    @property
    def feedbacks(self) -> dict[EventKind, EventColumns]:
        """Clicks if there are any, then further feedbacks."""
        return ({} if self.clicks is None else {CLICKS: self.clicks}) | self.further

    @model_validator(mode="after")
    def _check_feedbacks(self) -> Self:
        kinds = [*self.feedbacks]
        wrong = [name for name in kinds if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name)]
        problems = [f"a feedback cannot be called {name!r}. hint: use a to z, 0 to 9 and _" for name in wrong]
        if not kinds:
            problems.append("clicks is missing, and there is no other feedback. hint: declare [events.clicks]")
        if len(kinds) > MAX_FEEDBACKS:
            problems.append(f"there are {len(kinds)} feedbacks, at most {MAX_FEEDBACKS} are supported")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        for kind, events in self.by_kind.items():
            columns = events.columns
            for name in self.shard_keys:
                if name not in columns:
                    raise ValueError(f"{kind}.columns lacks {name}, which key or partition_by names. hint: declare it")
                if columns[name] not in ("string", "int", "uint"):
                    raise ValueError(f"{kind}.columns.{name} is {columns[name]}, a key must be string, int or uint")
            for name in self.shard_keys:
                if self.impressions.columns[name] != columns[name]:
                    raise ValueError(f"{name} has different types in impressions and {kind}. hint: use the same type")
        return self


class Samples(Section):
    """`[samples]`: the join. Window, horizon, policy and labels are those of clicks."""

    window_s: Seconds = 600.0
    """Attribution window: a click counts if impression ≤ click < impression + window."""
    horizon_s: SecondsOrZero = 3600.0
    """Lateness horizon: how long after the window a click is still compensated."""
    key_retention_s: SecondsOrZero = 600.0
    """How long after window and horizon an impression's key is retained: until then a click becomes `click_too_late`
    instead of `orphan_click`, and another impression with that key is a duplicate. Its former name,
    `remember_s`, is still read."""
    policy: Policy = "wait"
    """`wait`: a negative sample is emitted when the window closes, a positive one at the click. `close`: both when the
    window closes, in the order of the impressions, so that those of a list stand together. `fake_negative`: a negative
    is emitted at once, and a click emits a compensating sample."""
    negative_rate: Fraction = 1.0
    """Share of negative samples emitted, selected by a hash of the join key."""
    labels: Annotated[tuple[str, ...], Field(min_length=1)] = ("label",)
    """The first label is the click; each further label is a numeric column of the click event (0 without a click)."""
    label_ranges: dict[str, tuple[_Share, _Share]] = Field(default_factory=dict)
    """Smallest and largest value of a further label, by its name; default: 0 and 1, which the loss needs. A click with
    another value is a dead letter; null counts as 0."""
    weight: str | None = None
    """Float column of the impression that holds the weight of its sample; null counts as 1."""
    max_weight: Annotated[float, Field(gt=0, le=1e15)] = 1e6
    """Largest weight; an impression whose weight is larger, below 0 or not a number is a dead letter."""

    block_rows: Annotated[int, Field(ge=1, le=1 << 22)] = 8192
    """Maximum number of samples in one record of the samples topic."""
    round_records: Count = 2_000
    """Maximum number of records that one round of the in-process join reads from each partition."""

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "remember_s" not in given or "key_retention_s" in given:
            return given
        return {"key_retention_s" if name == "remember_s" else name: value for name, value in given.items()}

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        reserved = sorted({*SAMPLE_COLUMNS, EVENT_TIME} & set(self.labels))
        problems = [f"label {name} has the name of a column of samples. hint: rename it" for name in reserved]
        problems += declared_twice("label", self.labels)
        for name, (low, high) in self.label_ranges.items():
            if name not in self.labels[1:]:
                problems.append(f"label_ranges has {name}, which is not a further label. known: {self.labels[1:]}")
            elif low > high:
                problems.append(f"label_ranges.{name} is {low:g} to {high:g}. hint: the smallest value comes first")
        if problems:
            raise ValueError("; ".join(problems))
        return self
