"""Who is looking: users with tastes, a habit of clicking, and a list of declared interests."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.market.config import MarketConfig

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


class Crowd:
    """All users of a market; fixed for its life, so thread-safe.

    Attributes:
        taste: [users, factors] latent factors.
        habit: [users] logits a user adds to every impression.
        names: [users] user ids, then the bot accounts' ids.
        interests: as `names`: up to four categories a user declares, a ragged column. Bots declare at random.
    """

    def __init__(self, seed: int, config: MarketConfig, category_character: Floats) -> None:
        rng = np.random.default_rng([seed, 4])
        self.taste: Floats = rng.normal(size=(config.users, config.factors))
        self.habit: Floats = 0.4 * rng.normal(size=config.users)
        weights = (np.arange(1, config.users + 1) + 10.0) ** -config.user_zipf
        self._cumulative = np.cumsum(rng.permutation(weights / weights.sum()))
        bots = config.bot_users if config.bots else 0
        self.names = pa.array([f"u{n}" for n in range(config.users)] + [f"x{n}" for n in range(bots)], pa.string())
        liking = self.taste @ category_character.T
        self.interests = _interests(rng, np.vstack([liking, rng.normal(size=(bots, config.categories))]))

    def draw(self, rng: np.random.Generator, count: int) -> Int64s:
        """`count` users by activity, [count]."""
        return np.minimum(np.searchsorted(self._cumulative, rng.random(count)), len(self._cumulative) - 1)


def _interests(rng: np.random.Generator, liking: Floats) -> pa.Array:
    """The best-liked categories of each user, 0 to 4 of them: a list<string> column."""
    users, categories = liking.shape
    best = np.argsort(-liking, axis=1)[:, :4]
    lengths = np.minimum(rng.integers(0, 5, users), best.shape[1])
    kept = np.arange(best.shape[1])[None, :] < lengths[:, None]
    names = pa.array([f"c{n}" for n in range(categories)], pa.string())
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), names.take(pa.array(best[kept])))
