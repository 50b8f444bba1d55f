"""Where an optimizer's state shows how much the loss depends on each weight: sums or means of squared gradients."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import Float32s


@dataclass(frozen=True)
class Curvature:
    """The arrays with squared gradients of the trained float32 variables.

    Attributes:
        squares: by name of the variable, that of the array; None if the optimizer has none.
        initial: what the sums begin with.
    """

    squares: Mapping[str, str | None]
    initial: float = 0.0

    def of(self, variable: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Float32s | None:
        """The squared gradients of a variable, in its shape, up to a factor that all variables share."""
        name = self.squares[variable]
        if name is None:
            return None
        squares: Float32s = np.maximum(arrays[name] - np.float32(self.initial), 0)
        return squares
