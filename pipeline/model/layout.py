"""The columns of each input in the `[batch, columns]` tensor: fields in configured order, then dense numbers."""

from dataclasses import dataclass
from itertools import accumulate

from pipeline.configuration.config import Config


@dataclass(frozen=True)
class Layout:
    """Columns of the input tensor.

    | field 0: dim wide | field 1: dim wide | … | dense 0 | dense 1 | … |
    """

    names: tuple[str, ...]
    """Inputs in order, fields before dense."""
    widths: tuple[int, ...]
    fields: int
    """Number of inputs that are fields."""

    @classmethod
    def of(cls, config: Config) -> "Layout":
        names = [field.name for field in config.fields] + [number.name for number in config.dense]
        widths = [field.dim for field in config.fields] + [number.width for number in config.dense]
        return cls(tuple(names), tuple(widths), len(config.fields))

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
