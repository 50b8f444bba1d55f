"""Admission: which keys get a row, by count, by probability, or all of them.

Admission depends only on the samples log: counts are halved by log time, probability is a hash of key and position, and
each batch is counted once. A replay admits the same keys.
"""

import hashlib
import struct

import numpy as np

from pipeline.admission.sketch import CountingSketch
from pipeline.arrays.splitmix import GAMMA, mix
from pipeline.arrays.types import Bools, Float64s, UInt32s, UInt64s
from pipeline.configuration.model.fields import Admission
from pipeline.errors import DamagedError, MigrationError

_HEAD = struct.Struct("<8sq")
_MAGIC = b"SPRTADM2"
_HINT = "hint: restore a version that this release wrote"
_NEVER = -1
_COUNTER_BITS = 32


class Admitter:
    """The filter in front of a table. Not thread-safe.

    Bytes: magic "SPRTADM2" | period of the last halving i64 | sketch (`count` only).
    """

    def __init__(self, config: Admission, seed: int) -> None:
        self._config, self._seed = config, seed % 2**64
        self._period = _NEVER
        self._sketch = _sketch_of(config, self._seed)

    def admit(self, keys: UInt64s, counts: UInt32s, resident: Bools, at_s: int, position: tuple[int, int]) -> Bools:
        """Which keys without a row are admitted now. Call it once per batch, in log order: here `count` counts.

        Args:
            keys: [u] distinct.
            counts: [u] occurrences of each in the batch, at least 1.
            resident: [u] keys that have a row already; they are neither counted nor admitted.
            at_s: log time at the batch boundary.
            position: (offset, row) of the batch in the samples log.

        Returns:
            [u], false for every resident key.
        """
        if self._sketch is not None:
            self._halve(self._sketch, at_s)
        absent = np.flatnonzero(~resident)
        admitted = np.zeros(len(keys), np.bool_)
        if self._config.kind == "off":
            admitted[absent] = True
        elif self._sketch is not None:
            admitted[absent] = self._counted(self._sketch, keys[absent], counts[absent])
        else:
            admitted[absent] = self._drawn(keys[absent], counts[absent], position)
        return admitted

    def to_bytes(self) -> bytes:
        """The complete state; equal states give equal bytes."""
        return _HEAD.pack(_MAGIC, self._period) + (self._sketch.to_bytes() if self._sketch else b"")

    @classmethod
    def from_bytes(cls, config: Admission, seed: int, state: bytes) -> "Admitter":
        """The filter of `to_bytes`. Raises DamagedError, and MigrationError if its counters have another size."""
        if len(state) < _HEAD.size or not state.startswith(_MAGIC):
            raise DamagedError(f"admission state begins with {state[:8]!r}, this release reads {_MAGIC!r}. {_HINT}")
        admitter = cls(config, seed)
        _, admitter._period = _HEAD.unpack_from(state)
        sketch = CountingSketch.from_bytes(state[_HEAD.size :]) if len(state) > _HEAD.size else None
        if _size(sketch) != _size(admitter._sketch):
            sizes = f"{_size(sketch)}, the configuration has {_size(admitter._sketch)}"
            raise MigrationError(f"admission counted with a sketch of {sizes}. hint: pass --migrate to count anew")
        admitter._sketch = sketch
        return admitter

    def digest(self) -> str:
        """Hex digest of what later admissions depend on."""
        sketch = self._sketch.digest() if self._sketch else 0
        state = struct.pack("<qQ", self._period, sketch)
        return hashlib.blake2b(state, digest_size=16).hexdigest()

    def _halve(self, sketch: CountingSketch, at_s: int) -> None:
        """Halve once for every period boundary since the last batch; boundaries are multiples of the period."""
        if self._config.halve_every_s is None:
            return
        period = int(at_s // self._config.halve_every_s)
        if self._period != _NEVER:
            for _ in range(min(period - self._period, _COUNTER_BITS)):  # every counter is 0 after so many
                sketch.halve()
        self._period = max(period, self._period)

    def _counted(self, sketch: CountingSketch, keys: UInt64s, counts: UInt32s) -> Bools:
        """Whether each key has reached the threshold with its last occurrence in this batch."""
        return np.asarray(sketch.add(keys, counts) >= self._config.threshold)

    def _drawn(self, keys: UInt64s, counts: UInt32s, position: tuple[int, int]) -> Bools:
        """Whether at least one of a key's occurrences is drawn: with probability 1 − (1 − p)^count."""
        with np.errstate(divide="ignore"):  # p = 1: log of 0, chance 1
            chance = -np.expm1(counts * np.log1p(-self._config.probability))
        return np.asarray(_uniform(keys, self._seed, *position) < chance)


def _sketch_of(config: Admission, seed: int) -> CountingSketch | None:
    return CountingSketch(config.sketch_width, config.sketch_depth, seed) if config.kind == "count" else None


def _size(sketch: CountingSketch | None) -> str:
    return f"{sketch.width} × {sketch.depth}" if sketch else "no counters"


def _uniform(keys: UInt64s, seed: int, offset: int, row: int) -> Float64s:
    """[u] in [0, 1): a function of key, seed and position.

    >>> _uniform(np.arange(3, dtype=np.uint64), 1, 7, 0).round(3).tolist()
    [0.045, 0.875, 0.326]
    """
    salt = np.uint64(0)
    for part in (seed, offset, row):
        salt = mix(np.array([salt ^ np.uint64(part % 2**64)]) + GAMMA)[0]
    return (mix((keys ^ salt) + GAMMA) >> np.uint64(11)).astype(np.float64) * 2.0**-53
