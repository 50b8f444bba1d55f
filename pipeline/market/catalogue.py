"""The items on offer, hour by hour: their appeal drifts, and items are replaced by cold ones.

A place has a fixed popularity; the item at the place changes. Each hour is a pure function of the seed and the hour, so
any hour can be generated again.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.arrays.block import Int64s
from pipeline.market.config import MarketConfig

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shelf:
    """The items at all places in one hour; n = places, k = factors.

    Attributes:
        hour: the hour.
        item: [n] number of the item at each place; never reused.
        category: [n] category of the item.
        factors: [n, k] latent factors of the item.
        appeal: [n] appeal of the item at the start of the hour, in logits.
        appeal_at_end: [n] its appeal at the end of the hour.
        price: [n] price of the item, lognormal around 20.
    """

    hour: int
    item: Int64s
    category: Int64s
    factors: Floats
    appeal: Floats
    appeal_at_end: Floats
    price: Floats


class Catalogue:
    """Generates the shelf of each hour. Not thread-safe."""

    def __init__(self, seed: int, config: MarketConfig) -> None:
        self._seed, self._config = seed, config
        rng = np.random.default_rng([seed, 1])
        self.category_factors: Floats = rng.normal(size=(config.categories, config.factors)) / np.sqrt(config.factors)
        weights = np.arange(1, config.items + 1) ** -config.item_zipf
        self._cumulative = np.cumsum(rng.permutation(weights / weights.sum()))
        self._popularity = np.diff(self._cumulative, prepend=0.0)
        self._shelf = self._first()

    def at(self, hour: int) -> Shelf:
        """The shelf of `hour`. Hours are generated in order: an earlier hour restarts from the first."""
        if hour < self._shelf.hour:
            self._shelf = self._first()
        while self._shelf.hour < hour:
            self._shelf = self._next(self._shelf)
        return self._shelf

    def draw(self, rng: np.random.Generator, count: int) -> Int64s:
        """Draw `count` places by popularity; [count]."""
        return np.minimum(np.searchsorted(self._cumulative, rng.random(count)), len(self._cumulative) - 1)

    def pushed_places(self, shelf: Shelf) -> Int64s:
        """The places that a bot farm promotes: the least appealing among the most popular."""
        popular = np.argsort(-self._popularity, kind="stable")[: 4 * self._config.bot_items]
        return popular[np.argsort(shelf.appeal[popular], kind="stable")[: self._config.bot_items]]

    def _first(self) -> Shelf:
        rng = np.random.default_rng([self._seed, 2])
        count = self._config.items
        appeal = rng.normal(size=count) * self._config.quality
        category = rng.integers(0, self._config.categories, count)
        factors = self._item_factors(rng, category)
        price = 20 * np.exp(0.7 * rng.normal(size=count))
        return Shelf(0, np.arange(count), category, factors, appeal, self._drift(rng, appeal), price)

    def _next(self, shelf: Shelf) -> Shelf:
        rng = np.random.default_rng([self._seed, 3, shelf.hour])
        cold = np.flatnonzero(rng.random(self._config.items) < self._config.churn)
        item, category = shelf.item.copy(), shelf.category.copy()
        factors, price, appeal = shelf.factors.copy(), shelf.price.copy(), shelf.appeal_at_end.copy()
        # Item numbers follow from hour and place: unique without a counter.
        item[cold] = (shelf.hour + 1) * self._config.items + cold
        category[cold] = rng.integers(0, self._config.categories, len(cold))
        factors[cold] = self._item_factors(rng, category[cold])
        price[cold] = 20 * np.exp(0.7 * rng.normal(size=len(cold)))
        appeal[cold] = rng.normal(size=len(cold)) * self._config.quality
        return replace(
            shelf,
            hour=shelf.hour + 1,
            item=item,
            category=category,
            factors=factors,
            appeal=appeal,
            appeal_at_end=self._drift(rng, appeal),
            price=price,
        )

    def _item_factors(self, rng: np.random.Generator, category: Int64s) -> Floats:
        deviation = rng.normal(size=(len(category), self._config.factors)) / np.sqrt(self._config.factors)
        factors: Floats = 0.85 * self.category_factors[category] + 0.5 * deviation
        return factors

    def _drift(self, rng: np.random.Generator, appeal: Floats) -> Floats:
        """One hour of an Ornstein-Uhlenbeck process around 0, exact in distribution."""
        decay = np.exp(-1 / self._config.drift_hours)
        drifted: Floats = decay * appeal + self._config.quality * np.sqrt(1 - decay**2) * rng.normal(size=len(appeal))
        return drifted
