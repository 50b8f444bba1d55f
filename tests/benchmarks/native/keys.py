"""Keys: values hashed per second on one core, compared with the `xxhash` package called per value.

Arrow columns of `rows` values, hashed by `hash_column` in one call; the peer gets the same values as Python bytes.
"""

import sys
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.arrays.keys import combine_keys, hash_column
from tests.benchmarks.harness.paired import main, paired
from tests.benchmarks.harness.report import Figure, Result

SEED = 7


def measure(quick: bool, rounds: int) -> list[Result]:
    rows = 2_000 if quick else 200_000
    random = np.random.default_rng(1)
    integers = random.integers(-(2**62), 2**62, rows)
    texts = [f"{number & (2**64 - 1):016x}" for number in integers.tolist()]
    lengths = random.integers(1, 40, rows).tolist()
    mixed = [(text * 3)[:length] for text, length in zip(texts, lengths, strict=True)]
    some = [None if number % 10 == 0 else text for number, text in zip(integers.tolist(), texts, strict=True)]
    columns = {
        "strings of 16 bytes": pa.array(texts),
        "strings of 1 to 39 bytes": pa.array(mixed),
        "strings of 16 bytes, a tenth null": pa.array(some),
        "integers": pa.array(integers),
        "doubles": pa.array(random.random(rows)),
        "dictionary of 1,000 strings": pa.array(texts[:1000])
        .take(pa.array(integers % min(rows, 1000)))
        .dictionary_encode(),
    }
    results = [_one(f"keys: {name}", column, rows, rounds) for name, column in columns.items()]
    halves = [hash_column(columns["integers"], seed) for seed in (1, 2)]
    figure = Figure("keys: two combined", rows, "rows/s", {"rows": rows})
    return [*results, paired(figure, lambda: combine_keys(halves, SEED), _per_value(np.stack(halves, 1)), rounds)]


def _one(name: str, column: pa.Array, rows: int, rounds: int) -> Result:
    least = 50e6 if name == "keys: strings of 16 bytes" else None
    figure = Figure(name, rows, "values/s", {"values": rows, "threads": 1}, least=least)
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    values = plain.fill_null("").cast(pa.binary()) if pa.types.is_string(plain.type) else plain.to_numpy()
    return paired(figure, lambda: hash_column(column, SEED), _per_value(values), rounds)


def _per_value(values: pa.Array | np.ndarray) -> Callable[[], list[int]]:
    """Calls xxhash for each value; its arguments are prepared before the measurement."""
    ready = values.to_pylist() if isinstance(values, pa.Array) else [value.tobytes() for value in values]
    return lambda: [xxhash.xxh64_intdigest(value, SEED) for value in ready]


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
