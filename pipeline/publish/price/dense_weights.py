"""The policy of publishing dense weights: what a realtime delta carries of them, under the price of a byte.

Serving holds a float32 variable in blocks of 64 weights, each integers times a power of two, and a block is published
as a row is (`priced_rows`): its step is the power of two nearest to √(unit / h), and it is sent if that takes more off
the loss than the price of its bytes. What rounding and withholding took away is trained − served and counts again at
the next commit (error feedback). Steps ∝ 1/√h take the fewest bits for a loss (reverse water-filling; Cover and Thomas,
"Elements of Information Theory", 10.3.3).

h is the summed squared gradient of a weight (Gauss–Newton). The accumulators of the optimizer hold it up to a factor
that all weights share, a block its mean. The factor follows from `Price.dense_scale`: the loss of an error as large as
the weights, ½ Σ h w², over the trainer's loss. It is measured (`trainer/commit/served_loss.py`).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import Float32s, Float64s, Int8s, Int64s, UInt8s
from pipeline.model.network.served_weights import ServedWeights
from pipeline.model.network.weights import BLOCK, Contents, Entry, serving_arrays, unpack
from pipeline.model.training.curvature import Curvature
from pipeline.publish.price.byte_price import Price
from pipeline.publish.price.priced_rows import ServedRows, quantize, score_rows
from pipeline.versions.deltas.delta import DenseChange
from pipeline.versions.deltas.quantizer import payload_bytes, payload_offsets

_LEAST_CURVATURE = 1 / 256
"""Least h of a block, as a share of the mean: weights without a gradient, as of a dead unit, have no bound else."""
_WITHHELD_BYTES, _WEIGHT_BYTES = 5.0, 0.54
_BITS = 16
"""Of all integers: with fewer, all weights would be sent again once one outgrows them; coded, both take as much."""


@dataclass(frozen=True)
class TrainedWeights:
    """Dense weights as trained.

    Attributes:
        packed: all arrays, with the optimizer's state.
        curvature: where that state shows how much the loss depends on each weight.
    """

    packed: bytes
    curvature: Curvature

    @cached_property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays by name."""
        return unpack(self.packed)

    @cached_property
    def blocks(self) -> "DenseBlocks":
        """The float32 variables that are trained."""
        return DenseBlocks.of(self)


@dataclass(frozen=True)
class DenseBlocks:
    """Weights in n blocks, one array after another.

    Attributes:
        first: by name of the array, its first block, then the number of its blocks.
        weights: [n, 64] float32, zeros after the last weight of an array.
        squares: [n] float64, mean of h over the weights of each block, up to a factor of all.
        sizes: [n] int64, weights of each block.
    """

    first: dict[str, tuple[int, int]]
    weights: Float32s
    squares: Float64s
    sizes: Int64s

    @classmethod
    def of(cls, trained: TrainedWeights) -> "DenseBlocks":
        """Those of trained weights. Without squared gradients the errors of all arrays count alike, by their size."""
        first, start = dict[str, tuple[int, int]](), 0
        weights, squares, sizes = [np.empty((0, BLOCK), np.float32)], [np.empty(0)], [np.empty(0, np.int64)]
        for name in trained.curvature.squares:
            array, square = trained.arrays[name], trained.curvature.of(name, trained.arrays)
            blocks = _in_blocks(array)
            first[name], start = (start, len(blocks)), start + len(blocks)
            weights.append(blocks)
            sizes.append(np.minimum(BLOCK, array.size - BLOCK * np.arange(len(blocks))))
            squares.append(_relative(array, blocks) if square is None else _means(_in_blocks(square), sizes[-1]))
        counts = np.concatenate(sizes)
        return cls(first, np.concatenate(weights), _bounded(np.concatenate(squares), counts), counts)

    def curvature(self, loss: float) -> Float32s:
        """[n] h, if an error as large as the weights costs `loss`."""
        effect = float((self.squares * self._lengths).sum())
        scale = 2 * loss / effect if effect > 0 else 0.0
        return np.minimum(self.squares * scale, np.finfo(np.float32).max).astype(np.float32)

    def missing(self, loss: float) -> Float64s:
        """[n] what each block would cost as zeros, if an error as large as the weights costs `loss`."""
        lost: Float64s = 0.5 * self.curvature(loss) * self._lengths
        return lost

    @property
    def shares(self) -> Float64s:
        """[n] what each block loses by rounding and withholding, in prices of a byte, once it is worth to be sent.

        A step u with u² = 12 × price / h makes an error of u²/12 in each weight, which costs half the price; powers of
        two near it 8 % more. A block is withheld up to the price of its bytes, half of which is lost on average.
        """
        shares: Float64s = _WITHHELD_BYTES + _WEIGHT_BYTES * self.sizes.astype(np.float64)
        return shares

    def served_in(self, weights: ServedWeights | None) -> "_Integers":
        """What serving holds of the blocks; nothing of an array that it holds otherwise."""
        served = _Integers.empty(len(self.weights))
        for name, (start, count) in self.first.items():
            payloads = None if weights is None else weights.blocks(name)
            if payloads is not None and len(payloads) == count:
                served.put(slice(start, start + count), payloads)
        return served

    @cached_property
    def _lengths(self) -> Float64s:
        """[n] squared length of each block."""
        lengths: Float64s = (self.weights.astype(np.float64) ** 2).sum(axis=1)
        return lengths


@dataclass(frozen=True)
class DenseUpdate:
    """Dense weights of one commit.

    Attributes:
        sent: what its delta carries.
        served: what serving holds afterwards.
        loss: by what serving holds, summed as the curvature of rows is.
    """

    sent: bytes | DenseChange
    served: bytes
    loss: float = 0.0


class PublishedDense:
    """The dense weights that serving holds. Not thread-safe."""

    def __init__(self, served: bytes) -> None:
        """Continue from what serving holds; empty for nothing."""
        self.served = served
        self._weights: ServedWeights | None = None  # those of `served`, once they are read

    def held(self, dense: bytes | TrainedWeights, price: Price, loss: float) -> DenseUpdate:
        """Serve what is served. Args are those of `update`."""
        if not self.served or isinstance(dense, bytes):
            return DenseUpdate(self.served, self.served)
        weights = self._read()
        assert weights is not None
        return DenseUpdate(weights.change_to(weights) or self.served, self.served, self._loss(dense, price, loss))

    def update(self, dense: bytes | TrainedWeights, price: Price, loss: float, *, flush: bool = False) -> DenseUpdate:
        """Serve new weights: bytes as they are, of trained weights the blocks that are worth their bytes.

        A change is sent if serving holds the same arrays, else all weights.

        Args:
            dense: the weights.
            price: of a byte.
            loss: the trainer's, summed as the curvature of rows is.
            flush: send every block that this improves.
        """
        if isinstance(dense, bytes):
            self.served, self._weights = dense, None
            return DenseUpdate(dense, dense)
        before = self._read()
        after = _after(dense, before, price, loss, flush)
        change = None if before is None else before.change_to(after)
        self.served, self._weights = after.packed(), after
        sent = self.served if change is None else change
        return DenseUpdate(sent, self.served, self._loss(dense, price, loss))

    def _loss(self, dense: bytes | TrainedWeights, price: Price, loss: float) -> float:
        """What serving loses by the weights that it holds."""
        if isinstance(dense, bytes):
            return 0.0
        blocks = dense.blocks
        errors = blocks.weights.astype(np.float64) - blocks.served_in(self._read()).rows().weights
        return float((0.5 * blocks.curvature(price.dense_scale * abs(loss)) * (errors**2).sum(axis=1)).sum())

    def _read(self) -> ServedWeights | None:
        """What serving holds, read once; None for nothing."""
        if self._weights is None and self.served:
            self._weights = ServedWeights.of(self.served)
        return self._weights


def _after(
    dense: TrainedWeights, before: ServedWeights | None, price: Price, loss: float, flush: bool
) -> ServedWeights:
    """The weights as serving is to hold them."""
    blocks = dense.blocks
    integers, curvature = blocks.served_in(before), blocks.curvature(price.dense_scale * abs(loss))
    served = integers.rows()
    scores = score_rows(blocks.weights, served, curvature, price.unit)
    chosen = scores.improves & (flush | (scores.worth > np.float32(price.per_byte) * scores.cost_bytes))
    chosen |= served.bits == 0
    bits, payload = quantize(blocks.weights[chosen], served.where(chosen), curvature[chosen], price.unit)
    numbers, offsets = np.flatnonzero(chosen), payload_offsets(bits, BLOCK)[:-1]
    for wide in np.unique(bits == 16):
        of_width = (bits == 16) == wide
        size = payload_bytes(16 if wide else 8, BLOCK)
        integers.put(numbers[of_width], payload[offsets[of_width, None] + np.arange(size)])
    entries, parts = [], []
    for name, array in serving_arrays(dense.arrays).items():
        entry, part = Entry(name, array.dtype.str, array.shape), array.tobytes()
        if name in blocks.first:
            start, count = blocks.first[name]
            entry = Entry(name, "<f4", array.shape, _BITS)
            part = integers.payloads(slice(start, start + count)).tobytes()
        entries.append(entry)
        parts.append(part)
    return ServedWeights(Contents(tuple(entries), tuple(parts), tuple(entries)))


@dataclass(frozen=True)
class _Integers:
    """n blocks as serving holds them.

    Attributes:
        values: [n, 64] int16.
        exponents: [n] int8, of the powers of two that they count.
        bits: [n] uint8, 0 for a block that serving does not hold.
    """

    values: npt.NDArray[np.int16]
    exponents: Int8s
    bits: UInt8s

    @classmethod
    def empty(cls, n: int) -> "_Integers":
        """Serving holds none of the blocks."""
        return cls(np.zeros((n, BLOCK), np.int16), np.zeros(n, np.int8), np.zeros(n, np.uint8))

    def rows(self) -> ServedRows:
        """As rows of 64 weights."""
        weights = np.ldexp(self.values.astype(np.float32), self.exponents[:, None].astype(np.int32))
        return ServedRows(weights, self.bits, self.exponents)

    def put(self, place: slice | Int64s, payloads: UInt8s) -> None:
        """Replace the blocks at `place` by payloads with integers of one width."""
        width = (payloads.shape[1] - 1) // BLOCK
        self.values[place] = np.ascontiguousarray(payloads[:, 1:]).view(f"<i{width}")
        self.exponents[place], self.bits[place] = payloads[:, 0].view(np.int8), _BITS

    def payloads(self, place: slice) -> UInt8s:
        """[blocks, bytes of one] uint8 of the blocks at `place`."""
        payloads = np.empty((len(self.bits[place]), payload_bytes(_BITS, BLOCK)), np.uint8)
        payloads[:, 0] = self.exponents[place].view(np.uint8)
        payloads[:, 1:] = self.values[place].astype("<i2").view(np.uint8)
        return payloads


def _means(squares: Float32s, sizes: Int64s) -> Float64s:
    means: Float64s = squares.sum(axis=1, dtype=np.float64) / sizes
    return means


def _relative(array: npt.NDArray[Any], blocks: Float32s) -> Float64s:
    """[n] h by which errors count relative to the size of the weights of an array."""
    square = float((blocks.astype(np.float64) ** 2).sum()) / max(array.size, 1)
    return np.full(len(blocks), 1 / square if square > 0 else 0.0)


def _bounded(squares: Float64s, counts: Int64s) -> Float64s:
    """The same with a least h; all ones if no weight has a gradient yet."""
    mean = float((squares * counts).sum()) / max(int(counts.sum()), 1)
    return np.maximum(squares, _LEAST_CURVATURE * mean if mean > 0 else 1.0)


def _in_blocks(array: npt.NDArray[Any]) -> Float32s:
    """[blocks, 64] float32 of an array, C order, zeros after its end."""
    blocks = np.zeros(-(-array.size // BLOCK) * BLOCK, np.float32)
    blocks[: array.size] = array.reshape(-1)
    return blocks.reshape(-1, BLOCK)
