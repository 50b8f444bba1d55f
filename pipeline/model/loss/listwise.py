"""Losses over lists: the samples of a batch that are in one list, such as the impressions of a request.

−Σ y log softmax(z) over the samples of a list: the cross entropy of top one probabilities of ListNet (Cao et al. 2007,
"Learning to Rank: From Pairwise Approach to Listwise Approach", section 4.2), with the values y as they are in place of
their own softmax (Bruch et al. 2019, "An Analysis of the Softmax Cross Entropy Loss for Learning-to-Rank with Binary
Relevance", equation 7).

A list that a batch cuts in two is two lists. Batches are a function of the log, and so is what is learned.
"""

from typing import Any

from pipeline.model.runtime import tf


def list_losses(values: Any, outputs: Any, lists: Any) -> Any:
    """[n] the part of each sample in the loss of its list; 0 outside of lists.

    Args:
        values: [n] y, times the sample's weight.
        outputs: [n] z.
        lists: [n] int32 number of each sample's list, below n; −1: it is in none.
    """
    n, member = tf.shape(outputs)[0], lists >= 0
    places = tf.maximum(lists, 0)
    lowest = tf.fill([n], outputs.dtype.min)
    largest = tf.math.unsorted_segment_max(tf.where(member, tf.stop_gradient(outputs), lowest), places, n)
    z = tf.where(member, outputs - tf.gather(largest, places), 0.0)
    totals = tf.math.unsorted_segment_sum(tf.where(member, tf.exp(z), 0.0), places, n)
    total = tf.where(member, tf.gather(totals, places), 1.0)
    return tf.where(member, values * (tf.math.log(total) - z), 0.0)
