"""The policy of publishing dense weights: how finely serving holds each, and what a realtime delta carries of them.

A weight of serving is an integer times the step of its block, the nearest one to the trained weight: what rounding took
away counts again the next time (error feedback), and a weight that moved less than half a step costs nothing. With
loss ≈ ½ Σ h e², e the error of a weight and h its mean squared gradient (Gauss–Newton), steps ∝ 1/√h take the fewest
bits for a loss (reverse water-filling; Cover and Thomas, "Elements of Information Theory", 10.3.3). The optimizer's
accumulators hold h up to a factor, which cancels: the setting is √(Σ h e² / Σ h w²), w the weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import Float32s, Float64s, Int32s, Int64s, UInt8s
from pipeline.model.network.served_weights import ServedWeights
from pipeline.model.network.weights import BLOCK, Contents, Entry, serving_arrays, unpack
from pipeline.model.training.curvature import Curvature
from pipeline.versions.deltas.delta import DenseChange

Rounding = float | Literal["exact"]

_MIN_EXPONENT, _MAX_EXPONENT = -126, 112
_LEAST_CURVATURE = 1 / 256
"""Least h of a block, as a share of the mean: weights without a gradient, as of a dead unit, have no bound else."""
_LARGEST = {8: 127, 16: 32_767}


@dataclass(frozen=True)
class TrainedWeights:
    """Dense weights as trained.

    Attributes:
        packed: all arrays, with the optimizer's state.
        curvature: where that state shows how much the loss depends on each weight.
    """

    packed: bytes
    curvature: Curvature


@dataclass(frozen=True)
class DenseUpdate:
    """Dense weights of one commit: what its delta carries, and what serving holds afterwards."""

    sent: bytes | DenseChange
    served: bytes


class PublishedDense:
    """The dense weights that serving holds. Not thread-safe."""

    def __init__(self, rounding: Rounding, served: bytes) -> None:
        """Continue from what serving holds; empty for nothing."""
        self._rounding, self.served = rounding, served
        self._weights: ServedWeights | None = None  # those of `served`, once they are read

    def held(self) -> DenseUpdate:
        """Serve what is served."""
        if not self.served or isinstance(self._rounding, str):
            return DenseUpdate(self.served, self.served)
        weights = self._read()
        assert weights is not None
        return DenseUpdate(weights.change_to(weights) or self.served, self.served)

    def update(self, dense: bytes | TrainedWeights) -> DenseUpdate:
        """Serve new weights: bytes as they are, trained weights as the setting wants them.

        A change is sent if serving holds the same arrays with integers of the same bits, else all weights.
        """
        if isinstance(dense, bytes):
            self.served, self._weights = dense, None
            return DenseUpdate(dense, dense)
        assert not isinstance(self._rounding, str), "exact weights are published as bytes"
        before = self._read()
        after = _rounded(dense, before, self._rounding)
        change = None if before is None else before.change_to(after)
        self.served, self._weights = after.packed(), after
        return DenseUpdate(self.served if change is None else change, self.served)

    def _read(self) -> ServedWeights | None:
        """What serving holds, read once; None for nothing."""
        if self._weights is None and self.served:
            self._weights = ServedWeights.of(self.served)
        return self._weights


def _rounded(dense: TrainedWeights, before: ServedWeights | None, rounding: float) -> ServedWeights:
    """The weights as serving is to hold them."""
    state = unpack(dense.packed)
    arrays = serving_arrays(state)
    in_blocks = _bounded(
        {name: _Weights.of(arrays[name], dense.curvature.of(name, state)) for name in dense.curvature.squares}
    )
    unit = rounding * _root_of_mean_effect(in_blocks)
    entries, parts = [], []
    for name, array in arrays.items():
        weights = in_blocks.get(name)
        if weights is None:
            entry, part = Entry(name, array.dtype.str, array.shape), array.tobytes()
        else:
            served = None if before is None else before.blocks(name)
            payloads, bits = weights.rounded(unit, served)
            entry, part = Entry(name, "<f4", array.shape, bits), payloads.tobytes()
        entries.append(entry)
        parts.append(part)
    return ServedWeights(Contents(tuple(entries), tuple(parts), tuple(entries)))


@dataclass(frozen=True)
class _Weights:
    """One float32 array in blocks.

    Attributes:
        blocks: [n, 64] float32, zeros after the last weight.
        curvature: [n] float64, mean of h over the weights of each block, up to a factor of all arrays.
        sizes: [n] int64, weights of each block.
    """

    blocks: Float32s
    curvature: Float64s
    sizes: Int64s

    @classmethod
    def of(cls, array: npt.NDArray[Any], squares: Float32s | None) -> "_Weights":
        """`squares`: h of each weight; without them the error of all weights counts alike, relative to the array."""
        blocks = _in_blocks(array)
        sizes = np.minimum(BLOCK, array.size - BLOCK * np.arange(len(blocks)))
        if squares is not None:
            return cls(blocks, _in_blocks(squares).sum(axis=1, dtype=np.float64) / sizes, sizes)
        square = float((blocks.astype(np.float64) ** 2).sum()) / max(array.size, 1)
        return cls(blocks, np.full(len(blocks), 1 / square if square > 0 else 0.0), sizes)

    def rounded(self, unit: float, served: UInt8s | None) -> tuple[UInt8s, int]:
        """The payloads of the blocks, and the bits of their integers; `served`: the payloads that serving holds.

        A block keeps its step until it is off by more than a factor of two; an array keeps integers of 16 bits.
        """
        exponents = self._exponents(unit)
        bits = 8
        if served is not None and len(served) == len(self.blocks):
            bits = 16 if served.shape[1] > 1 + BLOCK else 8
            kept = served[:, 0].view(np.int8).astype(np.int32)
            exponents = np.where((np.abs(kept - exponents) <= 1) & self._fits(kept), kept, exponents)
        scales = np.ldexp(np.float32(1), -exponents)
        integers = np.rint(self.blocks * scales[:, None])  # a power of two scales float32 exactly
        if np.rint(self._largest * scales).max(initial=0) > _LARGEST[8]:
            bits = 16
        payloads = np.empty((len(integers), 1 + BLOCK * bits // 8), np.uint8)
        payloads[:, 0] = exponents.astype(np.int8).view(np.uint8)
        payloads[:, 1:] = integers.astype(f"<i{bits // 8}").view(np.uint8)
        return payloads, bits

    def _exponents(self, unit: float) -> Int32s:
        """[n] int32: the step of each block is the largest power of two up to unit / √h, and its weights fit."""
        steps = unit / np.sqrt(self.curvature)
        exponents = np.clip(np.frexp(steps)[1] - 1, _MIN_EXPONENT, _MAX_EXPONENT).astype(np.int32)
        largest = self._largest
        least = np.where(largest > 0, np.frexp(largest / _LARGEST[16])[1], _MIN_EXPONENT)
        fitting: Int32s = np.clip(np.maximum(exponents, least), _MIN_EXPONENT, _MAX_EXPONENT).astype(np.int32)
        return fitting

    def _fits(self, exponents: Int32s) -> npt.NDArray[np.bool_]:
        fits: npt.NDArray[np.bool_] = self._largest <= np.ldexp(float(_LARGEST[16]), exponents)
        return fits

    @cached_property
    def _largest(self) -> Float64s:
        """[n] the largest absolute value of each block."""
        largest: Float64s = np.abs(self.blocks).max(axis=1, initial=0).astype(np.float64)
        return largest


def _bounded(in_blocks: Mapping[str, _Weights]) -> dict[str, _Weights]:
    """The same with a least h; all ones if no weight has a gradient yet."""
    count = sum(int(each.sizes.sum()) for each in in_blocks.values())
    mean = sum(float((each.curvature * each.sizes).sum()) for each in in_blocks.values()) / max(count, 1)
    least = _LEAST_CURVATURE * mean if mean > 0 else 1.0
    return {name: replace(each, curvature=np.maximum(each.curvature, least)) for name, each in in_blocks.items()}


def _root_of_mean_effect(in_blocks: Mapping[str, _Weights]) -> float:
    """√(12 Σ h w² / n) over all n weights: the step that alone makes an error as large as the weights, times √h."""
    squares = {name: (each.blocks.astype(np.float64) ** 2).sum(axis=1) for name, each in in_blocks.items()}
    effect = sum(float((each.curvature * squares[name]).sum()) for name, each in in_blocks.items())
    count = sum(int(each.sizes.sum()) for each in in_blocks.values())
    return float(np.sqrt(12 * effect / count)) if count else 0.0


def _in_blocks(array: npt.NDArray[Any]) -> Float32s:
    """[blocks, 64] float32 of an array, C order, zeros after its end."""
    blocks = np.zeros(-(-array.size // BLOCK) * BLOCK, np.float32)
    blocks[: array.size] = array.reshape(-1)
    return blocks.reshape(-1, BLOCK)
