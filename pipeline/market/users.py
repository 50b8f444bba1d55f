"""The users of a market: their taste, click habit and declared interests."""

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import Int64s
from pipeline.market.catalogue import Floats
from pipeline.market.config import MarketConfig


class Users:
    """All users of a market and all bot accounts. Immutable, so thread-safe.

    Attributes:
        taste: [users, factors] latent factors.
        habit: [users] logits that a user adds to every impression.
        names: [users + bots] user ids, then ids of bot accounts.
        interests: [users + bots] list<string>, up to four declared categories; random for bots.
    """

    def __init__(self, seed: int, config: MarketConfig, category_factors: Floats) -> None:
        rng = np.random.default_rng([seed, 4])
        self.taste: Floats = rng.normal(size=(config.users, config.factors))
        self.habit: Floats = 0.4 * rng.normal(size=config.users)
        weights = (np.arange(1, config.users + 1) + 10.0) ** -config.user_zipf
        self._cumulative = np.cumsum(rng.permutation(weights / weights.sum()))
        bots = config.bot_users if config.bots else 0
        self.names = pa.array([f"u{n}" for n in range(config.users)] + [f"x{n}" for n in range(bots)], pa.string())
        affinity = self.taste @ category_factors.T
        self.interests = _interests(rng, np.vstack([affinity, rng.normal(size=(bots, config.categories))]))

    def draw(self, rng: np.random.Generator, count: int) -> Int64s:
        """Draw `count` users by activity; [count]."""
        return np.minimum(np.searchsorted(self._cumulative, rng.random(count)), len(self._cumulative) - 1)


def _interests(rng: np.random.Generator, affinity: Floats) -> pa.Array:
    """The 0 to 4 categories of highest affinity of each user: a list<string> column."""
    users, categories = affinity.shape
    best = np.argsort(-affinity, axis=1)[:, :4]
    lengths = np.minimum(rng.integers(0, 5, users), best.shape[1])
    declared = np.arange(best.shape[1])[None, :] < lengths[:, None]
    names = pa.array([f"c{n}" for n in range(categories)], pa.string())
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), names.take(pa.array(best[declared])))
