"""The policy of publishing: what sending a row is worth, and at which precision it is sent. Pure functions over arrays.

What is withheld from serving is row − served view. A movement Δ of a row changes the loss by about |⟨gradient, Δ⟩|;
with importance ≈ decayed sum of |⟨gradient, weights⟩| (first-order Taylor score, Molchanov et al. 2019) that is
importance × ‖Δ‖ / ‖row‖, the movement's worth. Rows with most worth per byte are sent first. `quantize` wraps
`native/serving/sent_rows`.
"""

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer, require_rows
from pipeline.arrays.types import Bools, Float32s, Int8s, UInt8s
from pipeline.errors import InputError
from pipeline.versions.deltas.quantizer import MAX_DIM, PRECISIONS

SKIP = 0

# (bits, least convergence, least importance as a multiple of the mean). A precision whose error is below a row's step
# per update is wasted: the relative error of 4 bits is about 6 %, of 8 bits 0.7 %, of 16 bits 0.03 %.
# Hence 8 bits for rows that move less than 6 % per update, and so on; importance decides which are worth the bytes.
THRESHOLDS = ((8, 0.94, 1.0), (16, 0.996, 8.0), (32, 0.9997, 64.0))

COARSER_GAIN = 2.0
"""A row coarser than the served one is sent only if it divides serving's distance from the row by this factor."""

_HANDLE_BYTES, _KEY_BYTES = 1.0, 7.0  # coded as gaps
_DIFFERENCE_BITS, _WEIGHT_BITS = 2.5, 4.0  # of a weight of a known row and of a new one, coded
_SHORT_DIM = 3
_IS_PRECISION = np.isin(np.arange(256), (SKIP, *PRECISIONS))


def movement_worth(moved: Float32s, length: Float32s, importance: Float32s) -> Float32s:
    """What serving loses without each row's movement, in units of the loss.

    Args:
        moved: [n] float32, ‖row − served‖.
        length: [n] float32, ‖row‖.
        importance: [n] float32.

    Returns:
        [n] float32, importance × ‖row − served‖ / ‖row‖; for a row of zeros the divisor is 1.

    >>> movement_worth(np.float32([1, 1]), np.float32([5, 0]), np.float32([10, 10])).tolist()
    [2.0, 10.0]
    """
    worth: Float32s = (importance * moved / np.where(length > 0, length, 1)).astype(np.float32)
    return worth


def send_cost_bytes(dim: int, known: Bools) -> npt.NDArray[np.float64]:
    """[n] approximate bytes of sending each row of `dim` weights; a row that serving does not hold includes its key."""
    difference, row = _HANDLE_BYTES + dim * _DIFFERENCE_BITS / 8, _HANDLE_BYTES + _KEY_BYTES + dim * _WEIGHT_BITS / 8
    return np.where(known, difference, row)


def warranted_bits(importance: Float32s, convergence: Float32s) -> UInt8s:
    """The precision each row warrants: 4 bits while it moves, more bits the more settled *and* important it is.

    Args:
        importance: [n] float32; compared with its mean over these n rows.
        convergence: [n] float32 in [0, 1], 1 for settled.

    Returns:
        [n] uint8 of 4, 8, 16, 32.
    """
    bits = np.full(len(importance), 4, np.uint8)
    mean = float(np.mean(importance, dtype=np.float64)) if len(importance) else 0.0
    for precision, settled, multiple in THRESHOLDS:
        bits[(convergence >= settled) & (importance >= multiple * mean) & (importance > 0)] = precision
    return bits


def sent_precision(dim: int) -> UInt8s:
    """[33] uint8: for each warranted precision the one at which rows of `dim` weights are sent.

    Rows of up to three weights are sent at 8 bits at least: 4 bits would save at most a byte and a half of a row that
    costs more than that for its handle or key.

    >>> sent_precision(1)[[4, 8, 16, 32]].tolist(), sent_precision(16)[[4, 8, 16, 32]].tolist()
    ([8, 8, 16, 32], [4, 8, 16, 32])
    """
    sent = np.zeros(33, np.uint8)
    sent[list(PRECISIONS)] = PRECISIONS
    if dim <= _SHORT_DIM:
        sent[4] = 8
    return sent


def quantize(
    weights: Float32s,
    served: Float32s,
    served_bits: UInt8s,
    served_exponents: Int8s,
    importance: Float32s,
    convergence: Float32s,
) -> tuple[UInt8s, UInt8s]:
    """Quantize each of n rows at the precision to send, or skip it if sending brings serving no closer to the row.

    A row is sent at the precision it warrants. If that is coarser than the served one and would not halve the distance,
    the served precision is tried. A row that serving does not hold is sent unless it is all zeros. A row that keeps its
    precision keeps the step of its served value until it has outgrown it.

    Args:
        weights: [n, dim] float32, finite; the rows need not be adjacent in memory, like the weights inside packed rows.
        served: [n, dim] float32, what serving holds.
        served_bits: [n] uint8, 0 for rows that serving does not hold.
        served_exponents: [n] int8, of the served rows of integers.
        importance: [n] float32.
        convergence: [n] float32.

    Returns:
        bits: [n] uint8 of 0 (SKIP), 4, 8, 16, 32.
        payload: uint8, the payloads of the rows not skipped, concatenated.

    Raises:
        InputError: a wrong dtype, shape or precision, or a weight that is NaN or infinite.
    """
    require_array("served", served, np.float32, ("n", "dim"))
    n, dim = served.shape
    require_integer("dim", dim, 1, MAX_DIM)
    require_rows("weights", weights, np.float32, (n, dim))
    require_array("served_bits", served_bits, np.uint8, (n,))
    if not _IS_PRECISION[served_bits].all():
        wrong = served_bits[int(np.argmin(_IS_PRECISION[served_bits]))]
        raise InputError(f"served_bits: got {wrong}, wanted {SKIP} or one of {PRECISIONS}")
    require_array("served_exponents", served_exponents, np.int8, (n,))
    require_array("importance", importance, np.float32, (n,))
    require_array("convergence", convergence, np.float32, (n,))
    bits = sent_precision(dim)[warranted_bits(importance, convergence)]
    sent_bits = np.empty(n, np.uint8)
    finite, payload = _native.encode_sent(weights, served, served_bits, served_exponents, bits, COARSER_GAIN, sent_bits)
    if finite < n:
        raise InputError(f"weights: got one that is not finite in row {finite}, wanted finite ones")
    return sent_bits, payload
