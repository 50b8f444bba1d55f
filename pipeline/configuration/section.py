"""The base class of all tables of the configuration file, and value types that several tables use."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, field_validator, model_validator

Fraction = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(ge=0.001, le=1e10)]
"""A duration; times are stored in milliseconds, and sums of durations must fit."""
SecondsOrZero = Annotated[float, Field(ge=0, le=1e10)]
Count = Annotated[int, Field(ge=1, lt=1 << 31)]
Number = Annotated[float, Field(ge=-1e300, le=1e300)]
Setting = Annotated[float, Field(gt=0, le=1e6)]
"""A setting of an optimizer; the limit keeps every step finite."""
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


_LARGEST = 1e16


def check_topic_name(text: str) -> str:
    """Return `text` if it is a topic name, which is also a folder name; else raise ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", text):
        raise ValueError(f"topic name {text!r} is not allowed. hint: letters, digits, and . _ - inside")
    return text


TopicName = Annotated[str, AfterValidator(check_topic_name)]


def declared_twice(what: str, names: Sequence[str]) -> list[str]:
    """A problem for every name that occurs more than once.

    >>> declared_twice("label", ["click", "like", "click"])
    ['label click is declared twice']
    """
    return [f"{what} {name} is declared twice" for name in sorted({n for n in names if names.count(n) > 1})]


def by_kind(
    what: str, known: Sequence[str], default: str, same_class: Mapping[str, str] | None = None
) -> Discriminator:
    """Chooses the class of a table of settings by its `kind`: the class that is tagged `<kind>`.

    Tags are in angle brackets, so that error messages can omit them from the path in the file.

    Args:
        what: what the table configures.
        known: all kinds, for the error.
        default: the kind of a table without one.
        same_class: by kind, the kind whose class it shares.
    """

    def tag_of(given: Any) -> str:
        kind = given.get("kind", default) if isinstance(given, dict) else getattr(given, "kind", None)
        return f"<{(same_class or {}).get(str(kind), kind)}>"

    return Discriminator(
        tag_of, custom_error_type=f"{what}_kind", custom_error_message=f"kind is one of {', '.join(known)}"
    )


def check_distinct(named: Iterable[tuple[str, object]], kind: str) -> None:
    """Raise ValueError if two names have the same value.

    >>> check_distinct([("kafka_port", 9093), ("flink_rest_port", 8081), ("kafka_controller_port", 9093)], "port")
    Traceback (most recent call last):
        ...
    ValueError: kafka_port and kafka_controller_port are both 9093. hint: use a different port for each
    """
    names_by_value: dict[object, list[str]] = {}
    for name, value in named:
        names_by_value.setdefault(value, []).append(name)
    problems = [
        f"{' and '.join(names)} are {'both' if len(names) == 2 else 'all'} {value}"
        for value, names in names_by_value.items()
        if len(names) > 1
    ]
    if problems:
        raise ValueError(f"{'; '.join(problems)}. hint: use a different {kind} for each")


def _with_tuples(value: Any) -> Any:
    """A value with tuples in place of lists, which are the same in the file."""
    if isinstance(value, dict):
        return {key: _with_tuples(each) for key, each in value.items()}
    return tuple(_with_tuples(each) for each in value) if isinstance(value, list | tuple) else value


class Section(BaseModel):
    """A table of the file: frozen, unknown keys and values of another type refused.

    TOML has no null: "off" means None if the key allows None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)
    named_tables: ClassVar[bool] = False
    """Whether a table under a key that is not declared is one with a name of the user's choice."""

    @field_validator("*", mode="after")
    @classmethod
    def _check_size(cls, value: Any) -> Any:
        """Refuse numbers that no setting needs, for a setting whose own bounds do not."""
        if isinstance(value, int | float) and abs(value) > _LARGEST:
            raise ValueError(f"the number is too large, wanted at most {_LARGEST:g}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _normalize(cls, given: Any) -> Any:
        """Replace "off" by None, lists by tuples, and an unknown key's value by the known keys.

        The error message is built from these, and shows no value of the file, which may be a password under a
        misspelled key.
        """
        if not isinstance(given, dict):
            return given
        known = tuple(cls.model_fields)
        optional = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        values = {
            name: None if name in optional and value == "off" else _with_tuples(value) for name, value in given.items()
        }
        named = {name for name, value in values.items() if cls.named_tables and isinstance(value, dict)}
        return {name: value if name in known or name in named else known for name, value in values.items()}


class Secret(Section):
    """A reference to a value outside the configuration file: a file (path relative to the project) or a variable."""

    file: str | None = None
    env: str | None = None

    @model_validator(mode="after")
    def _check_one_source(self) -> Self:
        if (self.file is None) == (self.env is None):
            raise ValueError("a secret is either { file = … } or { env = … }")
        return self
