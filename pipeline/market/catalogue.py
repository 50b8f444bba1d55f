"""What is on offer: items that drift, leave and are replaced by cold ones, hour by hour.

A place in the shop window keeps its popularity; the item in it changes. Evolving is a pure function of seed and hour,
so any hour of a market can be had again.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.market.config import MarketConfig

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shelf:
    """All places at the start of one hour; n = places, k = factors.

    Attributes:
        hour: the hour it belongs to.
        number: [n] which item stands in the place; never reused.
        category: [n] its category.
        character: [n, k] its latent factors.
        appeal: [n] its own appeal at the start of the hour, in logits.
        appeal_later: [n] the same at the end of the hour, if it is still there.
        price: [n] in money, lognormal around 20.
    """

    hour: int
    number: Int64s
    category: Int64s
    character: Floats
    appeal: Floats
    appeal_later: Floats
    price: Floats


class Catalogue:
    """The shelves of a market, one after the other. Not thread-safe."""

    def __init__(self, seed: int, config: MarketConfig) -> None:
        self._seed, self._config = seed, config
        rng = np.random.default_rng([seed, 1])
        self.category_character: Floats = rng.normal(size=(config.categories, config.factors)) / np.sqrt(config.factors)
        weights = np.arange(1, config.items + 1) ** -config.item_zipf
        self._cumulative = np.cumsum(rng.permutation(weights / weights.sum()))
        self._popularity = np.diff(self._cumulative, prepend=0.0)
        self._shelf = self._first()

    def at(self, hour: int) -> Shelf:
        """The shelf of `hour`; going back means starting over."""
        if hour < self._shelf.hour:
            self._shelf = self._first()
        while self._shelf.hour < hour:
            self._shelf = self._next(self._shelf)
        return self._shelf

    def draw(self, rng: np.random.Generator, count: int) -> Int64s:
        """`count` places by popularity, [count]."""
        return np.minimum(np.searchsorted(self._cumulative, rng.random(count)), len(self._cumulative) - 1)

    def pushed(self, shelf: Shelf) -> Int64s:
        """The places a bot farm pushes: the least appealing among the most popular."""
        popular = np.argsort(-self._popularity, kind="stable")[: 4 * self._config.bot_items]
        return popular[np.argsort(shelf.appeal[popular], kind="stable")[: self._config.bot_items]]

    def _first(self) -> Shelf:
        rng = np.random.default_rng([self._seed, 2])
        count = self._config.items
        appeal = rng.normal(size=count) * self._config.quality
        category = rng.integers(0, self._config.categories, count)
        character = self._character(rng, category)
        price = 20 * np.exp(0.7 * rng.normal(size=count))
        return Shelf(0, np.arange(count), category, character, appeal, self._drift(rng, appeal), price)

    def _next(self, shelf: Shelf) -> Shelf:
        rng = np.random.default_rng([self._seed, 3, shelf.hour])
        cold = np.flatnonzero(rng.random(self._config.items) < self._config.churn)
        number, category = shelf.number.copy(), shelf.category.copy()
        character, price, appeal = shelf.character.copy(), shelf.price.copy(), shelf.appeal_later.copy()
        # Numbers by hour and place: unique without keeping count of all items that ever were.
        number[cold] = (shelf.hour + 1) * self._config.items + cold
        category[cold] = rng.integers(0, self._config.categories, len(cold))
        character[cold] = self._character(rng, category[cold])
        price[cold] = 20 * np.exp(0.7 * rng.normal(size=len(cold)))
        appeal[cold] = rng.normal(size=len(cold)) * self._config.quality
        return replace(
            shelf,
            hour=shelf.hour + 1,
            number=number,
            category=category,
            character=character,
            appeal=appeal,
            appeal_later=self._drift(rng, appeal),
            price=price,
        )

    def _character(self, rng: np.random.Generator, category: Int64s) -> Floats:
        own = rng.normal(size=(len(category), self._config.factors)) / np.sqrt(self._config.factors)
        character: Floats = 0.85 * self.category_character[category] + 0.5 * own
        return character

    def _drift(self, rng: np.random.Generator, appeal: Floats) -> Floats:
        """One hour of an Ornstein-Uhlenbeck process around 0, exact in distribution."""
        kept = np.exp(-1 / self._config.drift_hours)
        later: Floats = kept * appeal + self._config.quality * np.sqrt(1 - kept**2) * rng.normal(size=len(appeal))
        return later
