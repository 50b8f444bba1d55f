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

_ROW_OVERHEAD_BYTES = 2  # a handle, and what Avro adds


def movement_worth(weights: Floats, served: Floats, importance: Floats) -> Floats:
    """What serving misses by not knowing each row's movement, in units of the loss.

    Args:
        weights: [n, dim] float32, the trainer's rows.
        served: [n, dim] float32, what serving holds of them; zeros where it holds nothing.
        importance: [n] float32.

    Returns:
        [n] float32, importance × ‖row − served‖ / ‖row‖; a row of zeros counts its movement whole.

    >>> row, held = np.float32([[3, 4]]), np.float32([[3, 3]])
    >>> movement_worth(row, held, np.float32([10])).tolist()
    [2.0]
    """
    moved = np.linalg.norm(weights - served, axis=1)
    length = np.linalg.norm(weights, axis=1)
    worth: Floats = (importance * moved / np.where(length > 0, length, 1)).astype(np.float32)
    return worth


def select(worth: Floats, dims: npt.NDArray[np.int64], share: float) -> Bools:
    """The rows that carry `share` of all worth in the fewest bytes: most worth per byte first, the last one included.

    Args:
        worth: [n] float32, not negative.
        dims: [n] int64, weights per row: a byte's price differs between fields.
        share: in (0, 1].

    Returns:
        [n] bool; rows without worth are never chosen, ties go to the earlier row.

    >>> select(np.float32([1, 8, 0, 1]), np.full(4, 16), 0.8).tolist()
    [False, True, False, False]
    """
    least = [min(payload_bytes(bits, int(dim)) for bits in PRECISIONS) for dim in np.unique(dims)]
    costs = np.array(least, np.float64) + _ROW_OVERHEAD_BYTES
    price = costs[np.searchsorted(np.unique(dims), dims)]
    chosen = np.zeros(len(worth), np.bool_)
    if len(worth):
        candidates = _most_valuable(worth / price, worth, share)
        order = candidates[np.argsort(-(worth[candidates] / price[candidates]), kind="stable")]
        carried = np.cumsum(worth[order], dtype=np.float64)
        whole = carried[-1] if len(order) == len(worth) else worth.sum(dtype=np.float64)
        chosen[order[(carried - worth[order] < share * whole) & (worth[order] > 0)]] = True
    return chosen


def _most_valuable(value: npt.NDArray[np.float64], worth: Floats, share: float) -> npt.NDArray[np.int64]:
    """Indices, ascending, of rows sure to hold all that `select` chooses: a few rows mostly, and far fewer to sort."""
    wanted = share * worth.sum(dtype=np.float64)
    for part in (32, 8):
        count = len(worth) // part
        if count:
            top = np.flatnonzero(value >= np.partition(value, -count)[-count])
            if worth[top].sum(dtype=np.float64) > wanted:
                return top
    return np.arange(len(worth))


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


def choose_bits(
    weights: Floats, served: Floats, served_bits: UInt8s, importance: Floats, convergence: Floats
) -> UInt8s:
    """The precision to send each of n rows at, or SKIP where sending would bring serving no closer to the row.

    A row gets what it warrants. Where that is coarser than what serving holds and would not halve the distance, it is
    tried at the served precision; a row of which serving holds nothing yet is always sent, unless it is all zeros.

    Args:
        weights: [n, dim] float32.
        served: [n, dim] float32, zeros where serving holds nothing.
        served_bits: [n] uint8, 0 where serving holds nothing.
        importance: [n] float32.
        convergence: [n] float32.

    Returns:
        [n] uint8 of 0 (SKIP), 4, 8, 16, 32.
    """
    bits = cheapest_as_fine(weights.shape[1])[warranted_bits(importance, convergence)]
    bits[(served_bits == 0) & ~np.any(weights != 0, axis=1)] = SKIP
    known = np.flatnonzero(served_bits)
    bits[known] = _improving_bits(weights[known], served[known], served_bits[known], bits[known])
    return bits


def _improving_bits(weights: Floats, served: Floats, served_bits: UInt8s, bits: UInt8s) -> UInt8s:
    """[n] uint8: `bits`, or the served precision, or SKIP for rows that serving holds at `served_bits` > 0."""
    behind = _distance(weights, served)
    error = _distance(weights, requantised(weights, bits))
    closer = np.where(bits < served_bits, 2 * error, error) < behind
    finer = np.maximum(bits, served_bits)
    retry = ~closer & (finer > bits)
    closer_yet = _distance(weights[retry], requantised(weights[retry], finer[retry])) < behind[retry]
    bits = np.where(closer, bits, SKIP).astype(np.uint8)
    bits[retry] = np.where(closer_yet, finer[retry], SKIP)
    return bits


def requantised(weights: Floats, bits: UInt8s) -> Floats:
    """[n, dim] float32: what serving would hold of `weights` at `bits`, [n] uint8."""
    n, dim = weights.shape
    held = np.zeros((n, dim), np.float32)
    for step in np.unique(bits):
        rows = bits == step
        payload, _ = encode(np.ascontiguousarray(weights[rows]), bits[rows])
        held[rows] = decode(payload, bits[rows], dim)
    return held


def _distance(weights: Floats, held: Floats) -> Floats:
    distance: Floats = np.linalg.norm(weights - held, axis=1)
    return distance
