"""The inputs of a model by columns of its `[n, columns]` tensor: fields, then dense inputs; and who shares a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from pipeline.arrays.types import Float32s
from pipeline.configuration.config import Config
from pipeline.configuration.model.tables import fields_by_table
from pipeline.model.network.layout import Layout


@dataclass(frozen=True)
class InputColumns:
    """The columns of every input.

    Attributes:
        names: [inputs] of fields, then of dense inputs.
        widths: [inputs] columns of each, one after the other.
        tables: by table, the indices of the fields that read it.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    tables: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, config: Config) -> "InputColumns":
        layout = Layout.of(config)
        tables = fields_by_table(config.fields)
        places = {name: place for place, name in enumerate(layout.names)}
        return cls(layout.names, layout.widths, {t: tuple(places[f] for f in read) for t, read in tables.items()})

    @property
    def shared(self) -> dict[str, tuple[int, ...]]:
        """By table that several fields read, the indices of these fields."""
        return {table: read for table, read in self.tables.items() if len(read) > 1}

    @property
    def slices(self) -> list[slice]:
        """[inputs] columns of each."""
        stops = np.cumsum(self.widths).tolist()
        return [slice(stop - width, stop) for stop, width in zip(stops, self.widths, strict=True)]

    def dot(self, a: Float32s, b: Float32s) -> Float32s:
        """[n, inputs] the scalar product of `a` and `b` [n, columns] within the columns of each input.

        >>> InputColumns(("x", "y"), (2, 1), {}).dot(np.float32([[1, 2, 3]]), np.float32([[10, 10, 10]]))
        array([[30., 30.]], dtype=float32)
        """
        products = np.empty((len(a), len(self.widths)), np.float32)
        start = place = 0
        for width, same in groupby(self.widths):  # one call for neighbours of the same width
            count = len(list(same))
            columns = slice(start, start + count * width)
            split = (len(a), count, width)
            left, right = a[:, columns].reshape(split), b[:, columns].reshape(split)
            np.einsum("nid,nid->ni", left, right, out=products[:, place : place + count])
            start, place = start + count * width, place + count
        return products
