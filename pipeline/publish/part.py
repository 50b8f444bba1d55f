"""Parts of the model, published apart: files that hold the rows and dense weights of the part and no others.

A file of a part is a delta cut down to it. It carries the digests of the other tables, and that of the complete dense
weights, so that a replica of the part verifies the served digest of the complete version, and continues with the deltas
of the topic.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.configuration.config import Config
from pipeline.configuration.model.tables import tables_of
from pipeline.errors import DeltaError
from pipeline.versions.deltas.delta import Delta, DenseChange, FieldDelta


@dataclass(frozen=True)
class Part:
    """What a part of the model holds.

    Attributes:
        name: of the part.
        tables: names of the tables whose rows it reads.
        weights_of: its dense weights, of those of the whole model, as bytes.
    """

    name: str
    tables: frozenset[str]
    weights_of: Callable[[bytes], bytes]


def find_part(config: Config, root: Path, name: str) -> Part:
    """The part of `[[parts]]` with this name. Raises InputError for an unknown one, ConfigError and ModelError."""
    labels = config.part(name).labels
    # Imported here: only a part needs the network, and thereby TensorFlow.
    from pipeline.model.dense import DenseModel

    model = DenseModel(config, root).part(labels)
    return Part(name, frozenset(tables_of(model.config.fields)), model.serving_bytes_of)


def cut_to_part(delta: Delta, part: Part) -> Delta:
    """The delta with the rows and dense weights of the part; its digests are those of the complete version.

    Raises DeltaError for a delta without complete dense weights.
    """
    fields = {
        name: change if name in part.tables else FieldDelta.empty(change.dim) for name, change in delta.fields.items()
    }
    if isinstance(delta.dense, DenseChange):
        raise DeltaError(f"{delta} has no complete dense weights. hint: cut a file of the whole model to a part")
    model = {**delta.model, "part": part.name, "dense_sha256": delta.dense_sha256.hex()}
    return replace(delta, fields=fields, dense=part.weights_of(delta.dense), model=model)
