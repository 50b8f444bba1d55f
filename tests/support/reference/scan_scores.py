"""The scores of a scan index in NumPy: codes of vectors and exact integer products."""

import numpy as np

LARGEST_CODE = 127 * 256


def codes_of(vectors):
    """[n, dim] float32 → upper and lower codes, [n, dim] int64 each, and scales, [n] float32."""
    largest = np.abs(vectors).max(axis=1)
    zero = largest < np.float32(2.0**-40)
    safe = np.where(zero, np.float32(1), largest)
    inverse = np.where(zero, np.float32(0), np.float32(LARGEST_CODE) / safe)
    codes = np.rint(vectors * inverse[:, None]).astype(np.int64)
    upper = (codes + 128) >> 8
    return upper, codes - 256 * upper, np.where(zero, np.float32(0), largest / np.float32(LARGEST_CODE))


def scores_of(queries, vectors):
    """[q, n] float32."""
    upper, lower, scales = codes_of(vectors)
    query_upper, query_lower, query_scales = codes_of(queries)
    products = (256 * query_upper + query_lower) @ (256 * upper + lower).T
    return (products.astype(np.float64) * scales * query_scales.astype(np.float64)[:, None]).astype(np.float32)


def best_of(scores, ids, k):
    """The ids and scores of the best k: [n] float32 and [n] uint64 → of equal scores the lower ids first."""
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]
