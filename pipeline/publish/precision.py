"""Which rows a delta carries, and at which precision. Pure functions over arrays; the policy of design D8 in one place.

What is withheld from serving is row − served view. A movement Δ of a row changes the loss by about |⟨gradient, Δ⟩|;
with importance ≈ decayed sum of |⟨gradient, weights⟩| (first-order Taylor score, Molchanov et al. 2019) that is
importance × ‖Δ‖ / ‖row‖, the movement's worth. The few rows with most worth per byte go first.
"""

import numpy as np
import numpy.typing as npt

from pipeline.versions.quantizer import PRECISIONS, decode, encode, payload_bytes

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
UInt8s = npt.NDArray[np.uint8]

SKIP = 0

# (bits, convergence from, importance from as a multiple of the mean). A row that still moves by more than a precision's
# error in one update gains nothing from it: the relative error of 4 bits is about 6 %, of 8 bits 0.4 %, of fp16 0.03 %.
# Hence 8 bits for rows that move less than 6 % an update, and so on; importance then decides who is worth the bytes.
STEPS = ((8, 0.94, 1.0), (16, 0.996, 8.0), (32, 0.9997, 64.0))

_HANDLE_BYTES, _KEY_BYTES = 2, 8  # a handle with what Avro adds; a key


def movement_worth(moved: Floats, length: Floats, importance: Floats) -> Floats:
    """What serving misses by not knowing each row's movement, in units of the loss.

    Args:
        moved: [n] float32, ‖row − served‖.
        length: [n] float32, ‖row‖.
        importance: [n] float32.

    Returns:
        [n] float32, importance × ‖row − served‖ / ‖row‖; a row of zeros counts its movement whole.

    >>> movement_worth(np.float32([1, 1]), np.float32([5, 0]), np.float32([10, 10])).tolist()
    [2.0, 10.0]
    """
    worth: Floats = (importance * moved / np.where(length > 0, length, 1)).astype(np.float32)
    return worth


def prices(dim: int, known: Bools) -> npt.NDArray[np.float64]:
    """[n] bytes that sending each row of `dim` weights takes about; a row that serving does not know brings its key."""
    payload = min(payload_bytes(bits, dim) for bits in PRECISIONS)
    return np.where(known, payload + _HANDLE_BYTES, payload + _HANDLE_BYTES + _KEY_BYTES).astype(np.float64)


def warranted_bits(importance: Floats, convergence: Floats) -> UInt8s:
    """The precision each row deserves: 4 bits while it moves, more the more settled *and* important it is.

    Args:
        importance: [n] float32; compared with its mean over these n rows.
        convergence: [n] float32 in [0, 1], 1 for settled.

    Returns:
        [n] uint8 of 4, 8, 16, 32.
    """
    bits = np.full(len(importance), 4, np.uint8)
    mean = float(np.mean(importance, dtype=np.float64)) if len(importance) else 0.0
    for step, settled, multiple in STEPS:
        bits[(convergence >= settled) & (importance >= multiple * mean) & (importance > 0)] = step
    return bits


def cheapest_as_fine(dim: int) -> UInt8s:
    """[33] uint8: for each precision the cheapest one at least as fine for rows of `dim` weights, of equals the finest.

    Scale and offset make 4 bits as dear as fp16, or dearer, where a row has up to three weights.

    >>> cheapest_as_fine(1)[[4, 8, 16, 32]].tolist(), cheapest_as_fine(16)[[4, 8, 16, 32]].tolist()
    ([16, 16, 16, 32], [4, 8, 16, 32])
    """
    cheapest = np.zeros(33, np.uint8)
    for bits in PRECISIONS:
        as_fine = [other for other in PRECISIONS if other >= bits]
        cheapest[bits] = min(as_fine, key=lambda other: (payload_bytes(other, dim), -other))
    return cheapest


def quantise(
    weights: Floats, served: Floats, served_bits: UInt8s, importance: Floats, convergence: Floats
) -> tuple[UInt8s, UInt8s]:
    """Each of n rows at the precision it is to be sent at, or skipped where that brings serving no closer to the row.

    A row gets what it warrants. Where that is coarser than what serving holds and would not halve the distance, it is
    tried at the served precision; a row of which serving holds nothing yet is sent unless it is all zeros.

    Args:
        weights: [n, dim] float32.
        served: [n, dim] float32, zeros where serving holds nothing.
        served_bits: [n] uint8, 0 where serving holds nothing.
        importance: [n] float32.
        convergence: [n] float32.

    Returns:
        bits: [n] uint8 of 0 (SKIP), 4, 8, 16, 32.
        payload: uint8, the bytes of those not skipped, one after another.
    """
    dim = weights.shape[1]
    bits = cheapest_as_fine(dim)[warranted_bits(importance, convergence)]
    finer = np.maximum(bits, served_bits)
    first, starts = encode(weights, bits)
    behind, error = _lengths(weights - served), _lengths(weights - decode(first, bits, dim))
    known = served_bits > 0
    sent = np.where(known, np.where(bits < served_bits, 2 * error, error) < behind, np.any(weights != 0, axis=1))
    again = np.flatnonzero(known & ~sent & (finer > bits))
    second, second_starts = encode(np.ascontiguousarray(weights[again]), finer[again])
    closer = _lengths(weights[again] - decode(second, finer[again], dim)) < behind[again]
    tries = np.concatenate([np.flatnonzero(sent), len(bits) + np.flatnonzero(closer)])
    order = np.argsort(np.concatenate([np.flatnonzero(sent), again[closer]]), kind="stable")
    all_starts = np.concatenate([starts[:-1], starts[-1] + second_starts])
    chosen = np.where(sent, bits, SKIP).astype(np.uint8)
    chosen[again[closer]] = finer[again[closer]]
    return chosen, _gathered(np.concatenate([first, second]), all_starts, tries[order])


def _gathered(payload: UInt8s, starts: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> UInt8s:
    """The bytes of `rows`, in that order; row i has `payload[starts[i]:starts[i + 1]]`."""
    sizes = starts[rows + 1] - starts[rows]
    ends = np.cumsum(sizes)
    shift = np.repeat(starts[rows] - (ends - sizes), sizes)
    return payload[shift + np.arange(len(shift))]


def _lengths(rows: Floats) -> Floats:
    """[n] the Euclidean length of each row."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", rows, rows)), np.float32)
