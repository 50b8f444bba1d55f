"""What a version was trained under, piece by piece, to name what changed; and the part that serving must share."""

import hashlib
import json
from collections.abc import Mapping

from pipeline.configuration.config import Config
from pipeline.features.plan import FeaturePlan
from pipeline.model.dense import DenseModel

Identity = Mapping[str, str]


def identity_of(config: Config, plan: FeaturePlan, model: DenseModel) -> dict[str, str]:
    """By name, a text for every piece that training depends on; equal pieces have equal texts."""
    pieces = {"model": model.digest(), "labels": json.dumps(config.samples.labels)}
    pieces["settings"] = json.dumps(config.model.model_dump(mode="json"), sort_keys=True)
    pieces["half life"] = str(config.train.half_life_s)
    for field in config.fields:
        pieces[f"field {field.name}"] = field.model_dump_json()
    for name, text in plan.identities().items():
        pieces[f"input {name}"] = text
    return pieces


def serving_digest(config: Config, plan: FeaturePlan, model: DenseModel) -> str:
    """Hex SHA-256 of everything except weights that predictions depend on: inputs, dims, pooling, network, labels."""
    shapes = {field.name: [field.dim, field.pooling] for field in config.fields}
    return digest_of(
        {"model": model.digest(), "labels": json.dumps(config.samples.labels), "shapes": json.dumps(shapes)}
        | plan.identities()
    )


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
