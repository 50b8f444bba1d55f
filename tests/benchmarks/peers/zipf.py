"""The batches of all trainer peers: Zipf values, exponent 1.05 over a million, per field; NumPy only."""

from collections.abc import Iterator

import numpy as np

FIELDS, DIM, LAYERS, BATCH = 26, 16, (256, 128), 2048
VALUES, EXPONENT = 1_000_000, 1.05


def batches(
    count: int, seed: int = 1, columns: int = FIELDS, tables: int = FIELDS
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`count` times keys [BATCH, columns] int64, table and value combined, and labels [BATCH] float32.

    Column c reads table c % tables.
    """
    random = np.random.default_rng(seed)
    cumulated = np.cumsum(np.arange(1, VALUES + 1, dtype=np.float64) ** -EXPONENT)
    cumulated /= cumulated[-1]
    for _ in range(count):
        values = np.searchsorted(cumulated, random.random((BATCH, columns))).astype(np.int64)
        yield values + np.arange(columns) % tables * VALUES, (random.random(BATCH) < 0.1).astype(np.float32)
