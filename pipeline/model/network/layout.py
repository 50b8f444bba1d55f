"""The columns of each input in the `[batch, columns]` tensor: fields in configured order, then dense numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from pipeline.configuration.config import Config
from pipeline.configuration.model.lists import mask_name
from pipeline.features.pooling import Pooling


@dataclass(frozen=True)
class Layout:
    """Columns of the input tensor.

    | field 0: dim wide | field 1: dim wide | … | dense 0 | dense 1 | … |

    A field with pooling `none` takes its rows one after the other, then its mask: 1 for an element, else 0.

    | element 0: dim wide | … | element max_length − 1: dim wide | max_length of the mask |
    """

    names: tuple[str, ...]
    """Inputs in order, fields before dense."""
    widths: tuple[int, ...]
    fields: int
    """Number of inputs that are fields."""
    sequences: Mapping[str, int]
    """By name, `max_length` of the inputs that are sequences."""

    @classmethod
    def of(cls, config: Config) -> "Layout":
        names = [field.name for field in config.fields] + [number.name for number in config.dense]
        widths = [Pooling.of(field).width(field.dim) for field in config.fields] + [
            number.width for number in config.dense
        ]
        sequences = {field.name: field.max_length for field in config.fields if field.max_length is not None}
        return cls(tuple(names), tuple(widths), len(config.fields), sequences)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the model's inputs: a sequence has a mask beside it."""
        return tuple(n for name in self.names for n in ((name, mask_name(name)) if name in self.sequences else (name,)))

    @property
    def columns(self) -> int:
        """Width of the tensor."""
        return sum(self.widths)

    @property
    def starts(self) -> dict[str, int]:
        """First column of each input."""
        return dict(zip(self.names, accumulate(self.widths, initial=0), strict=False))

    @property
    def dense_start(self) -> int:
        """First column of the dense numbers."""
        return sum(self.widths[: self.fields])
