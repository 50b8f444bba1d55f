"""What a version was trained under, piece by piece, to name what changed; and the part that serving must share."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.configuration.config import Config
from pipeline.configuration.model.fields import FieldConfig
from pipeline.configuration.model.labels import LabelConfig
from pipeline.configuration.model.optimizers import DenseAdagrad
from pipeline.configuration.model.tables import ROW_SETTINGS, TableConfig

if TYPE_CHECKING:  # the command line compares identities without TensorFlow
    from pipeline.features.plan import FeaturePlan
    from pipeline.model.dense import DenseModel

Identity = Mapping[str, str]

_SERVING_DIGITS = 32


def identity_of(config: Config, plan: "FeaturePlan", model: "DenseModel") -> dict[str, str]:
    """By name, a text for every piece that training depends on; equal pieces have equal texts."""
    pieces = {"model": model.digest(), "labels": _labels(config, model)}
    pieces["settings"] = json.dumps(config.model.model_dump(mode="json", exclude={"optimizer"}), sort_keys=True)
    if config.model.optimizer != DenseAdagrad():
        pieces["optimizer"] = config.model.optimizer.model_dump_json()
    pieces["half life"] = str(config.train.half_life_s)
    if config.train.shuffle_window is not None:
        pieces["shuffle window"] = str(config.train.shuffle_window)
    if config.train.pipeline_depth != 1:
        pieces["pipeline depth"] = str(config.train.pipeline_depth)
    for field in config.fields:
        pieces[f"field {field.name}"] = field.model_dump_json(exclude=_not_of(field))
    for table in config.tables:
        pieces[f"table {table.name}"] = table.model_dump_json(exclude=_defaults_of(table, _FORMATS))
    for name, text in plan.identities().items():
        pieces[f"input {name}"] = text
    return pieces


def serving_digest(config: Config, plan: "FeaturePlan", model: "DenseModel") -> str:
    """Hex, 32 digits: everything except weights that predictions depend on: inputs, dims, pooling, network, labels.

    A part of a SHA-256: every delta carries it.
    """
    # The table of a field is part of how its keys are computed.
    shapes = {field.name: [field.dim, field.pooling] for field in config.fields}
    pieces = {"model": model.digest(), "labels": _served_labels(config), "shapes": json.dumps(shapes)}
    return digest_of(pieces | plan.identities())[:_SERVING_DIGITS]


def unchanged_tables(before: Identity, now: Identity) -> set[str]:
    """Tables that keep their rows: their settings are as before, and some field has the same keys in them as before.

    How a field pools its rows, and how many, does not concern them.
    """
    read = {_reading(now, field)[0] for field in _fields(before) & _fields(now) if _alike(before, now, field)}
    return {table for table in read if _row_settings(before, table) == _row_settings(now, table)}


def table_settings(identity: Identity, table: str) -> dict[str, Any]:
    """The settings of a declared table, or of the field that has one of its own; some that are at their defaults are
    left out.
    """
    settings: dict[str, Any] = json.loads(identity.get(f"table {table}") or identity[f"field {table}"])
    return settings


def _alike(before: Identity, now: Identity, field: str) -> bool:
    return _reading(before, field) == _reading(now, field)


def _not_of(field: FieldConfig) -> set[str]:
    """Settings that do not belong to the piece of a field: those of a declared table, or that it names none.

    Neither do later settings at their defaults: a version from before there were any has the same identity.
    """
    return _defaults_of(field, (*_LISTS, *_FORMATS)) | ({"table"} if field.table is None else set(ROW_SETTINGS))


def _defaults_of(section: FieldConfig | TableConfig, names: Sequence[str]) -> set[str]:
    """Those of the settings that are at their defaults."""
    return {name for name in names if getattr(section, name) == type(section).model_fields[name].default}


_LISTS = ("max_length", "keep", "weights")
_FORMATS = ("quantise", "quantise_below")
"""How rows are read: the rows themselves are the same."""


def _fields(identity: Identity) -> set[str]:
    return {name.removeprefix("field ") for name in identity if name.startswith("field ")}


def _reading(identity: Identity, field: str) -> tuple[str, Any, list[Any]]:
    """The table that a field reads, its settings apart from those of the table, and how its keys are computed.

    What a field does with the rows of its keys is left out.
    """
    left_out = {*ROW_SETTINGS, "pooling", *_LISTS}
    settings = {n: v for n, v in json.loads(identity[f"field {field}"]).items() if n not in left_out}
    parts = json.loads(identity[f"input {field}"])
    return settings.pop("table", field), settings, [part for part in parts if not isinstance(part, dict)]


def _row_settings(identity: Identity, table: str) -> dict[str, Any]:
    """The settings of a declared table, or of the one that a field has of its own, that rows depend on."""
    wanted = {*ROW_SETTINGS} - {*_FORMATS}
    return {name: value for name, value in table_settings(identity, table).items() if name in wanted}


def _labels(config: Config, model: "DenseModel") -> str:
    """What training depends on: names alone if all settings are the defaults, as for `samples.labels`."""
    plain = [
        label.model_dump(mode="json", exclude_defaults=True, exclude=_not_trained(label)) for label in config.outputs
    ]
    if not any(plain):
        return json.dumps(config.output_names)
    return json.dumps([config.output_names, plain, model.loss_sources], sort_keys=True)


def _not_trained(label: LabelConfig) -> set[str]:
    """Settings of a label that training does not depend on."""
    return {"name", "event", "column", "range", "conditional", "top"} | (
        set() if label.learns_lists else {"list_column"}
    )


def _served_labels(config: Config) -> str:
    """What predictions depend on: names, and how outputs become predictions unless all are probabilities."""
    names, links = config.output_names, [label.link for label in config.outputs]
    given = [label.given for label in config.outputs]
    if config.towers is not None:
        vectors = config.towers.model_dump(include={"query", "item", "temperature", "normalise"})
        return json.dumps([names, links, given, vectors], sort_keys=True)
    if any(given):
        return json.dumps([names, links, given])
    return json.dumps(names if set(links) == {"sigmoid"} else [names, links])


def digest_of(identity: Identity) -> str:
    """Hex SHA-256 of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def differences(before: Identity, now: Identity) -> list[str]:
    """One line for every piece that changed.

    >>> differences({"field user": "a", "model": "1"}, {"field item": "b", "model": "2"})
    ['field item is new', 'field user was removed', 'model changed']
    """
    lines = []
    for name in sorted({*before, *now}):
        if name not in before:
            lines.append(f"{name} is new")
        elif name not in now:
            lines.append(f"{name} was removed")
        elif before[name] != now[name]:
            lines.append(f"{name} changed")
    return lines
