"""Softmax over the items of a batch, and over further ones that were drawn, for two towers.

With the query vector u_i of sample i, the vectors v_j of all these items, temperature τ and Q_j how often item j is
expected among them, the loss of a sample with value 1 is

    −log softmax_i(s_i),   s_ij = ⟨u_i, v_j⟩ / τ − log Q_j

(Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", section 3; the
correction is that of Bengio and Senécal 2008). Its own item is item i. Other occurrences of the same item are
accidental hits: they are left out. A constant factor of Q has no effect.
"""

from typing import Any

from pipeline.model.runtime import tf


def in_batch_losses(
    queries: Any, vectors: Any, temperature: float, items: Any, log_q: Any, first: Any
) -> tuple[Any, Any]:
    """The losses of n samples with value 1, and the ranks of their items.

    Args:
        queries: [n, dim] of the query tower.
        vectors: [n + m, dim] of the item tower: those of the samples, then of drawn items.
        temperature: τ.
        items: [n + m] int32; see `BatchItems`.
        log_q: [n + m] float32.
        first: [n + m] bool.

    Returns:
        losses: [n].
        ranks: [n] int32, how many other items have at least the output of the sample's own, without correction.
    """
    n, all_of_them = tf.shape(queries)[0], tf.shape(vectors)[0]
    outputs = tf.matmul(queries, vectors, transpose_b=True) / temperature
    own = tf.equal(tf.range(n)[:, None], tf.range(all_of_them)[None, :])
    same = tf.equal(items[:n, None], items[None, :])
    counted = own | (~same & (items >= 0)[None, :])
    z = tf.where(counted, outputs - log_q[None, :], outputs.dtype.min)
    losses = tf.reduce_logsumexp(z, axis=1) - tf.reduce_sum(tf.where(own, z, 0.0), axis=1)
    of_own = tf.reduce_sum(tf.where(own, outputs, 0.0), axis=1)
    ahead = ~same & first[None, :] & (outputs >= of_own[:, None])
    return losses, tf.reduce_sum(tf.cast(ahead, tf.int32), axis=1)
