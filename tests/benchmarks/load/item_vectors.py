"""Vectors of items and users, like those of two towers: clusters, few strong directions, lengths that vary."""

import numpy as np

DIM, CLUSTERS = 64, 500


def item_vectors(random: np.random.Generator, n: int) -> np.ndarray:
    """[n, DIM] float32. Neighbours in the list belong to different clusters."""
    centres = _directions(np.random.default_rng(1), CLUSTERS)
    vectors = centres[random.integers(0, CLUSTERS, n)]
    vectors += 0.7 * _directions(random, n)
    vectors *= random.lognormal(0, 0.2, (n, 1)).astype(np.float32)
    return vectors


def user_vectors(random: np.random.Generator, n: int) -> np.ndarray:
    """[n, DIM] float32: each near a cluster of items."""
    centres = _directions(np.random.default_rng(1), CLUSTERS)
    return centres[random.integers(0, CLUSTERS, n)] + _directions(random, n)


def _directions(random: np.random.Generator, n: int) -> np.ndarray:
    """[n, DIM] float32, with variances that decline from the first component to the last."""
    drawn = random.standard_normal((n, DIM), np.float32)
    drawn *= (np.arange(1, DIM + 1, dtype=np.float32) ** -0.3)[None]
    return drawn
