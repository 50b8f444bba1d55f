"""Which rows a delta carries, and at which precision. Pure functions over arrays; the policy of design D8 in one place,
with the face of `native/sent_rows` that carries it out.

What is withheld from serving is row − served view. A movement Δ of a row changes the loss by about |⟨gradient, Δ⟩|;
with importance ≈ decayed sum of |⟨gradient, weights⟩| (first-order Taylor score, Molchanov et al. 2019) that is
importance × ‖Δ‖ / ‖row‖, the movement's worth. The few rows with most worth per byte go first.
"""

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer, require_rows
from pipeline.errors import InputError
from pipeline.versions.deltas.quantizer import MAX_DIM, PRECISIONS, payload_bytes

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
UInt8s = npt.NDArray[np.uint8]

SKIP = 0

# (bits, convergence from, importance from as a multiple of the mean). A row that still moves by more than a precision's
# error in one update gains nothing from it: the relative error of 4 bits is about 6 %, of 8 bits 0.4 %, of fp16 0.03 %.
# Hence 8 bits for rows that move less than 6 % an update, and so on; importance then decides who is worth the bytes.
STEPS = ((8, 0.94, 1.0), (16, 0.996, 8.0), (32, 0.9997, 64.0))

COARSER_GAIN = 2.0
"""So many times closer a coarser row than the served one has to bring serving, to be worth what it loses."""

_HANDLE_BYTES, _KEY_BYTES = 2, 8  # a handle with what Avro adds; a key
_SERVED = np.isin(np.arange(256), (SKIP, *PRECISIONS))


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


def send_cost_bytes(dim: int, known: Bools) -> npt.NDArray[np.float64]:
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


def cheapest_precision(dim: int) -> UInt8s:
    """[33] uint8: for each precision the cheapest one at least as fine for rows of `dim` weights, of equals the finest.

    Scale and offset make 4 bits as dear as fp16, or dearer, where a row has up to three weights.

    >>> cheapest_precision(1)[[4, 8, 16, 32]].tolist(), cheapest_precision(16)[[4, 8, 16, 32]].tolist()
    ([16, 16, 16, 32], [4, 8, 16, 32])
    """
    cheapest = np.zeros(33, np.uint8)
    for bits in PRECISIONS:
        as_fine = [other for other in PRECISIONS if other >= bits]
        cheapest[bits] = min(as_fine, key=lambda other: (payload_bytes(other, dim), -other))
    return cheapest


def quantize(
    weights: Floats, served: Floats, served_bits: UInt8s, importance: Floats, convergence: Floats
) -> tuple[UInt8s, UInt8s]:
    """Each of n rows at the precision it is to be sent at, or skipped where that brings serving no closer to the row.

    A row gets what it warrants. Where that is coarser than what serving holds and would not halve the distance, it is
    tried at the served precision; a row of which serving holds nothing yet is sent unless it is all zeros.

    Args:
        weights: [n, dim] float32, finite; rows may lie apart, as the weights inside packed rows do.
        served: [n, dim] float32, what serving holds.
        served_bits: [n] uint8, 0 where serving holds nothing.
        importance: [n] float32.
        convergence: [n] float32.

    Returns:
        bits: [n] uint8 of 0 (SKIP), 4, 8, 16, 32.
        payload: uint8, the bytes of those not skipped, one after another.

    Raises:
        InputError: a wrong dtype, shape or precision, or a weight that is NaN or infinite.
    """
    require_array("served", served, np.float32, ("n", "dim"))
    n, dim = served.shape
    require_integer("dim", dim, 1, MAX_DIM)
    require_rows("weights", weights, np.float32, (n, dim))
    require_array("served_bits", served_bits, np.uint8, (n,))
    if not _SERVED[served_bits].all():
        wrong = served_bits[int(np.argmin(_SERVED[served_bits]))]
        raise InputError(f"served_bits: got {wrong}, wanted {SKIP} or one of {PRECISIONS}")
    require_array("importance", importance, np.float32, (n,))
    require_array("convergence", convergence, np.float32, (n,))
    bits = cheapest_precision(dim)[warranted_bits(importance, convergence)]
    chosen = np.empty(n, np.uint8)
    finite, payload = _native.encode_sent(weights, served, served_bits, bits, COARSER_GAIN, chosen)
    if finite < n:
        raise InputError(f"weights: got one that is not finite in row {finite}, wanted finite ones")
    return chosen, payload
