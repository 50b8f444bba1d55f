"""The configuration file `springtide.toml`, typed and frozen.

The defaults are in the classes of this folder. Unknown keys are refused, and all problems are reported together, each
with its path in the file.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from pipeline.arrays.block import EventKind
from pipeline.configuration.deployment.files import FilesConfig
from pipeline.configuration.deployment.recall import Recall, recall_problems
from pipeline.configuration.deployment.services import Cluster, Flink, Telemetry
from pipeline.configuration.deployment.serving import Serving
from pipeline.configuration.model.conditional import given_problems, names_served
from pipeline.configuration.model.fields import DenseConfig, FieldConfig, dense_problems
from pipeline.configuration.model.gate import GateConfig, gate_problems
from pipeline.configuration.model.labels import LabelConfig, label_problems, with_targets
from pipeline.configuration.model.late_estimates import estimate_problems
from pipeline.configuration.model.list_losses import list_loss_problems
from pipeline.configuration.model.lists import list_problems
from pipeline.configuration.model.parts import PartConfig, part_problems
from pipeline.configuration.model.tables import TableConfig, with_row_settings
from pipeline.configuration.model.teachers import teacher_problems
from pipeline.configuration.model.towers import TowersConfig, tower_problems, towers_of, vector_names
from pipeline.configuration.model.training import Model, Publish, Train, shuffle_problems
from pipeline.configuration.section import Name, Section, check_distinct, declared_twice
from pipeline.configuration.streams.candidates import candidate_problems, candidate_window_s
from pipeline.configuration.streams.events import CANDIDATES, CLICKS, Events, Samples
from pipeline.configuration.streams.feedbacks import (
    Feedback,
    correction_problems,
    feedbacks_of,
    input_topics,
    policies_by_label,
    unread_click_settings,
)
from pipeline.configuration.streams.logs import SCHEMAS_TOPIC, Logs, Topics
from pipeline.errors import ConfigError, InputError


class Config(Section):
    """The complete file."""

    name: Name = "model"
    """Name of the model: in the URL of predictions, in deltas and in notices."""
    state_dir: str = "state"
    """Folder of all durable state, relative to the project folder."""
    stop_within_s: Annotated[float, Field(ge=1, le=86_400)] = 30.0
    """How long a process may take to stop after SIGTERM or Ctrl-C; then it ends at once, which loses nothing that was
    committed. A user's function that never returns is ended this way."""
    logs: Logs = Logs()
    topics: Topics = Topics()
    events: Events
    samples: Samples = Samples()
    tables: tuple[TableConfig, ...] = ()
    labels: tuple[LabelConfig, ...] = ()
    parts: tuple[PartConfig, ...] = ()
    fields: Annotated[tuple[FieldConfig, ...], Field(min_length=1)]
    dense: tuple[DenseConfig, ...] = ()
    model: Model = Model()
    train: Train = Train()
    publish: Publish = Publish()
    gate: GateConfig | None = None
    serving: Serving = Serving()
    recall: Recall | None = None
    files: FilesConfig = FilesConfig()
    flink: Flink = Flink()
    cluster: Cluster = Cluster()
    telemetry: Telemetry = Telemetry()

    @field_validator("fields", mode="after")
    @classmethod
    def _take_row_settings(cls, fields: tuple[FieldConfig, ...], checked: ValidationInfo) -> tuple[FieldConfig, ...]:
        """The fields with the settings of the tables they name; as they are if a table has a problem of its own."""
        return with_row_settings(fields, checked.data["tables"]) if "tables" in checked.data else fields

    @field_validator("labels", mode="after")
    @classmethod
    def _take_target_settings(cls, labels: tuple[LabelConfig, ...]) -> tuple[LabelConfig, ...]:
        return with_targets(labels)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with the fields in `update`, and what follows from the fields computed again."""
        copied = super().model_copy(update=update, deep=deep)
        for name in vars(copied).keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied

    @cached_property
    def feedbacks(self) -> tuple[Feedback, ...]:
        """The kinds of event that decide labels; at least one."""
        return feedbacks_of(self.events, self.samples, self.topics, self.labels)

    @property
    def clicks_only(self) -> bool:
        """Whether clicks are the only feedback: every sample then has all labels."""
        return not self.events.further

    @cached_property
    def dense_columns(self) -> int:
        """Columns of all dense inputs."""
        return sum(number.width for number in self.dense)

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """The labels of samples."""
        return tuple(label.name for feedback in self.feedbacks for label in feedback.labels)

    @cached_property
    def outputs(self) -> tuple[LabelConfig, ...]:
        """The outputs of the network in order: the labels in that of `label_names`, then those with a target.

        A label that is not in `[[labels]]` is logistic.
        """
        declared = {label.name: label for label in self.labels}
        of_samples = (declared.get(name) or LabelConfig(name=name) for name in self.label_names)
        return (*of_samples, *(label for label in self.labels if label.target is not None))

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        """The names of `outputs`."""
        return tuple(label.name for label in self.outputs)

    @property
    def towers(self) -> TowersConfig | None:
        """The two towers of the output that has some."""
        return towers_of(self.outputs)

    def part(self, name: str) -> PartConfig:
        """The part of `[[parts]]` with this name. Raises InputError."""
        for part in self.parts:
            if part.name == name:
                return part
        known = ", ".join(part.name for part in self.parts)
        raise InputError(f"part {name} does not exist. {f'known: {known}' if known else 'hint: declare [[parts]]'}")

    @cached_property
    def served_names(self) -> tuple[str, ...]:
        """The columns of predictions: the labels, of `serving.part` if set, then their conditionals that are served.

        The columns of `served_vectors` follow.
        """
        return names_served(self.outputs, [name for name in self._served_outputs if name in self.output_names])

    @property
    def served_vectors(self) -> tuple[str, ...]:
        """The vectors that predictions hold, all of one dim."""
        return tuple(name for name in vector_names(self.outputs) if name in self._served_outputs)

    @property
    def _served_outputs(self) -> tuple[str, ...]:
        part = self.serving.part
        return (*self.output_names, *vector_names(self.outputs)) if part is None else self.part(part).labels

    @cached_property
    def input_topics(self) -> dict[EventKind, str]:
        """The topics that the join reads, by kind of event: impressions, feedbacks, candidates if they are logged."""
        candidates = {} if self.events.candidates is None else {CANDIDATES: self.events.candidates.topic}
        return input_topics(self.topics, self.feedbacks) | candidates

    @property
    def candidate_window_s(self) -> float:
        """How long after a candidate that was not shown its sample is emitted. Only if candidates are logged."""
        assert self.events.candidates is not None
        return candidate_window_s(self.events.candidates, self.labels, self.feedbacks)

    @model_validator(mode="after")
    def _check_feedbacks(self) -> Self:
        problems = unread_click_settings(self.events, self.samples, self.topics)
        problems += label_problems(self.labels, self.samples, self.feedbacks)
        problems += correction_problems(self.feedbacks, self.labels)
        problems += estimate_problems(self.labels, policies_by_label(self.feedbacks))
        problems += given_problems(self.labels) + teacher_problems(self.labels)
        problems += list_loss_problems(self.labels, self.feedbacks, self.events, self.logs.shards)
        problems += candidate_problems(self.labels, self.feedbacks, self.events)
        problems += declared_twice("label", self.output_names)
        problems += tower_problems(
            self.labels, names_served(self.outputs, self.output_names), self.events.impressions.columns
        )
        problems += part_problems(self.parts, (*self.output_names, *vector_names(self.outputs)), self.serving.part)
        scorers = [label.name for label in self.outputs if label.towers is None]
        problems += recall_problems(
            self.recall, self.towers, self.serving.part, scorers, [*self.events.impressions.columns]
        )
        reserved = sorted({*self.events.sample_columns} & {*self.label_names})
        problems += [f"label {name} has the name of a column of samples. hint: rename it" for name in reserved]
        if problems:
            raise ValueError("; ".join(problems))
        topics = [(name, value) for name, value in self.topics.model_dump().items() if name != CLICKS]
        inputs = [(f"events.{kind}.topic", topic) for kind, topic in [*self.input_topics.items()][1:]]
        if self.recall is not None and self.recall.topic is not None:
            inputs.append(("recall.topic", self.recall.topic))
        check_distinct([*topics, *inputs, ("the registry of schemas", SCHEMAS_TOPIC)], "name")
        return self

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        known = {*self.events.impressions.columns, "at"}
        inputs = [(f"field {f.name}", f.name, f.columns) for f in self.fields]
        inputs += [(f"dense {d.name}", d.name, (d.column,)) for d in self.dense]
        names = [name for _, name, _ in inputs]
        problems = declared_twice("input", names)
        problems += [
            f"{reader} reads column {c}, which impressions lack"
            for reader, _, cs in inputs
            for c in cs
            if c not in known
        ]
        problems += [
            f"label {label.name} is not a numeric column of {feedback.kind}"
            for feedback in self.feedbacks
            for label in feedback.labels
            if label.column and feedback.events.columns.get(label.column) not in ("int", "uint", "float", "bool")
        ]
        if self.samples.weight and self.events.impressions.columns.get(self.samples.weight) != "float":
            problems.append(f"weight {self.samples.weight} is not a float column of impressions")
        types = self.events.impressions.columns
        problems += [p for d in self.dense if d.column in known for p in dense_problems(d, types)]
        problems += self._reserved_columns()
        problems += list_problems(self.fields, names, self.events.impressions.columns)
        listed = [label.name for label in self.outputs if label.list_column]
        problems += gate_problems(
            self.gate, self.outputs, self.events.impressions.columns, policies_by_label(self.feedbacks)
        )
        problems += shuffle_problems(self.train.shuffle_window, self.model.batch_size, listed)
        problems += [
            f"dense {d.name} has range {d.range[0]:g} to {d.range[1]:g}. hint: the smallest value comes first"
            for d in self.dense
            if d.range and d.range[0] > d.range[1]
        ]
        problems += [
            f"dense {d.name} has clip {d.clip[0]:g} to {d.clip[1]:g}. hint: the smaller value comes first"
            for d in self.dense
            if d.clip and d.clip[0] >= d.clip[1]
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _reserved_columns(self) -> list[str]:
        """A problem for every impression column that has the name of a column that the join adds to samples."""
        shared = {"weight"} if self.samples.weight == "weight" else set()
        reserved = {*self.events.sample_columns, *self.label_names} - shared
        return [
            f"impression column {name} has the name of a column of samples. hint: rename it"
            for name in self.events.impressions.columns
            if name in reserved
        ]


def parse_config(document: dict[str, Any], origin: str = "configuration") -> Config:
    """Check a parsed document. Raises ConfigError, which lists every problem with its path."""
    try:
        return Config.model_validate(document)
    except ValidationError as failure:
        problems = [
            f"  {_path(e['loc'])}: {_problem(e)}{_name_of(document, e['loc'])}" for e in _root_errors(failure.errors())
        ]
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


def _root_errors(errors: list[Any]) -> list[Any]:
    """Without "too short" for a list whose items were left out because they have errors of their own."""
    places = [error["loc"] for error in errors]

    def follows(error: Any) -> bool:
        place = error["loc"]
        inside = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        return bool(error["type"] == "too_short" and inside)

    return [error for error in errors if not follows(error)]


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location if not str(part).startswith("<")) or "file"


def _name_of(document: Any, location: tuple[int | str, ...]) -> str:
    """The name of the list entry in which a problem lies, which its number alone does not tell.

    >>> _name_of({"fields": [{"name": "user", "dim": 0}]}, ("fields", 0, "dim"))
    ' (fields.0 is user)'
    """
    found = ""
    for depth, part in enumerate(location):
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):  # a missing key, or the tag of a kind
            continue
        if isinstance(part, int) and isinstance(document, dict) and isinstance(document.get("name"), str):
            found = f" ({_path(location[: depth + 1])} is {document['name']})"
    return found


def _problem(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown_key(str(error["loc"][-1]), error["input"])
    if error["type"] == "missing":
        return "missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message.replace("valid tuple", "valid list").replace("Tuple should", "List should")
    given = repr(list(error["input"]) if isinstance(error["input"], tuple) else error["input"])
    return message if error["type"] == "value_error" or len(given) > 60 else f"{message}, got {given}"


def _unknown_key(key: str, known: Sequence[str]) -> str:
    """The error message for an unknown key of a table with the keys `known`.

    >>> _unknown_key("paralelism", ("rest", "parallelism"))
    'unknown key, the nearest is parallelism. known: rest, parallelism'
    """
    nearest = "".join(f", the nearest is {name}" for name in difflib.get_close_matches(key, known, 1))
    return f"unknown key{nearest}. known: {', '.join(known)}"
