"""What every table of the configuration is, and the kinds of values that several of them have."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


def check_topic_name(text: str) -> str:
    """The text, which is a folder's name too. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", text):
        raise ValueError(f"topic name {text!r} is not allowed. hint: letters, digits, and . _ - inside")
    return text


TopicName = Annotated[str, AfterValidator(check_topic_name)]


def check_distinct(named: Iterable[tuple[str, object]], kind: str) -> None:
    """Raise ValueError where two of the named things are one.

    >>> check_distinct([("kafka_port", 9093), ("flink_rest_port", 8081), ("kafka_controller_port", 9093)], "port")
    Traceback (most recent call last):
        ...
    ValueError: kafka_port and kafka_controller_port are both 9093. hint: a port of its own for each
    """
    holders: dict[object, list[str]] = {}
    for name, value in named:
        holders.setdefault(value, []).append(name)
    shared = {value: names for value, names in holders.items() if len(names) > 1}
    told = [
        f"{' and '.join(names)} are {'both' if len(names) == 2 else 'all'} {value}" for value, names in shared.items()
    ]
    if told:
        raise ValueError(f"{'; '.join(told)}. hint: a {kind} of its own for each")


class Section(BaseModel):
    """A table of the file: frozen, nothing unknown in it. TOML has no null: "off" says None where that is allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _as_meant(cls, given: Any) -> Any:
        """Under an unknown key come the known ones: its error shows what it finds there, and no more of the table."""
        if not isinstance(given, dict):
            return given
        known = tuple(cls.model_fields)
        optional = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        meant = {name: None if name in optional and value == "off" else value for name, value in given.items()}
        return {name: value if name in known else known for name, value in meant.items()}


class Secret(Section):
    """A value that is kept elsewhere: in a file (its path from the project's folder), or in the environment."""

    file: str | None = None
    env: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.env is None):
            raise ValueError("a secret is { file = … } or { env = … }, one of both")
        return self
