"""Parts of the model, published apart: files that hold the rows and dense weights of the part and no others.

A file of a part is a delta cut down to it. It carries the digests of the other tables, and that of the complete dense
weights, so that a replica of the part verifies the served digest of the complete version, and continues with the deltas
of the topic. A part that is defined anew under its name begins with files of its own, in another folder.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.configuration.config import Config
from pipeline.configuration.model.parts import part_place
from pipeline.configuration.model.tables import tables_of
from pipeline.errors import DeltaError
from pipeline.versions.deltas.delta import Delta, DenseChange, FieldDelta, short_digest


@dataclass(frozen=True)
class Part:
    """What a part of the model holds.

    Attributes:
        name: of the part.
        digest: of its definition.
        tables: names of the tables whose rows it reads.
        weights_of: its dense weights, of those of the whole model, as bytes.
    """

    name: str
    digest: str
    tables: frozenset[str]
    weights_of: Callable[[bytes], bytes]

    @property
    def place(self) -> str:
        """The folder of its files."""
        return part_place(self.name, self.digest)


def find_part(config: Config, root: Path, name: str) -> Part:
    """The part of `[[parts]]` with this name. Raises InputError for an unknown one, ConfigError and ModelError."""
    declared = config.part(name)
    # Imported here: only a part needs the network, and thereby TensorFlow.
    from pipeline.model.dense import DenseModel

    model = DenseModel(config, root).part(declared.labels)
    return Part(name, declared.digest, frozenset(tables_of(model.config.fields)), model.serving_bytes_of)


def cut_to_part(delta: Delta, part: Part) -> Delta:
    """The delta with the rows and dense weights of the part; its digests are those of the complete version.

    Raises DeltaError for a delta without complete dense weights.
    """
    fields = {
        name: change if name in part.tables else FieldDelta.empty(change.dim) for name, change in delta.fields.items()
    }
    if isinstance(delta.dense, DenseChange):
        raise DeltaError(f"{delta} has no complete dense weights. hint: cut a file of the whole model to a part")
    of_part = {"part": part.name, "part_digest": part.digest, "dense_digest": short_digest(delta.dense).hex()}
    return replace(delta, fields=fields, dense=part.weights_of(delta.dense), model={**delta.model, **of_part})
