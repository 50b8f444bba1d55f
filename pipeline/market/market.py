"""A simulated marketplace whose click probabilities are known exactly: the measure of everything learned from it.

Each hour has impressions and clicks in the order they arrive, with everything that goes wrong on the way (delay,
disorder, duplicates, orphans, wrong dates, poison, bots), and beside them the truth, which no event carries.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.market.arrival import Arrivals, Stream, arrival_delay_ms, click_delay_ms, poison, resend
from pipeline.market.catalogue import Catalogue, Shelf
from pipeline.market.config import MarketConfig
from pipeline.market.crowd import Crowd

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
FAR_AT_MS = 4_102_444_800_000  # 2100-01-01
IDS_PER_HOUR = 10_000_000_000


@dataclass(frozen=True)
class Truth:
    """What really was, per impression made in one hour, by impression time; n rows.

    Attributes:
        id: [n] impression ids.
        at_ms: [n] impression times.
        probability: [n] the exact probability of a click.
        clicked: [n] whether a click was made, however late it arrives.
        bot: [n] whether a bot was looking.
    """

    id: Int64s
    at_ms: Int64s
    probability: Floats
    clicked: npt.NDArray[np.bool_]
    bot: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MarketHour:
    """One hour as it arrives. Batches start with `at` (int64 ms); `*_arrive_ms` are sorted and as long as them."""

    hour: int
    impressions: pa.RecordBatch
    clicks: pa.RecordBatch
    impressions_arrive_ms: Int64s
    clicks_arrive_ms: Int64s
    truth: Truth
    poison: list[bytes]


@dataclass(frozen=True)
class _Views:
    """Impressions before they are rows: [n] each; `place` on the shelf, `user` in the crowd's names."""

    at_ms: Int64s
    user: Int64s
    place: Int64s
    position: Int64s
    probability: Floats
    bot: npt.NDArray[np.bool_]


class Market:
    """A seeded market: the same seed and configuration give the same bytes. Not thread-safe."""

    def __init__(self, seed: int, config: MarketConfig | None = None) -> None:
        self.seed, self.config = seed, config or MarketConfig()
        config = self.config
        self._catalogue = Catalogue(seed, config)
        self._crowd = Crowd(seed, config, self._catalogue.category_character)
        self._categories = pa.array([f"c{n}" for n in range(config.categories)], pa.string())
        rng = np.random.default_rng([seed, 5])
        self._peak_hour = rng.uniform(0, 24, config.categories)
        self._intercept = self._calibrated(rng)
        self._next_hour = 0
        self._held = Arrivals(), Arrivals()

    def events(self, hour: int) -> MarketHour:
        """What arrives in `hour`; going back means starting over. Raises ValueError outside the market's hours."""
        if not 0 <= hour < self.config.hours:
            raise ValueError(f"hour {hour} is outside the market's 0..{self.config.hours - 1}. hint: raise hours")
        if hour < self._next_hour:
            self._next_hour, self._held = 0, (Arrivals(), Arrivals())
        while self._next_hour < hour:
            self._make(self._next_hour)
        return self._make(hour)

    def end_at_ms(self, hour: int) -> int:
        """When `hour` is over."""
        return self.config.start_at_ms + (hour + 1) * HOUR_MS

    def _make(self, hour: int) -> MarketHour:
        rng = np.random.default_rng([self.seed, 6, hour])
        shelf = self._catalogue.at(hour)
        views = self._views(rng, shelf)
        clicked = rng.random(len(views.at_ms)) < views.probability
        ids = self._ids(hour, rng, len(views.at_ms))
        table = self._rows(shelf, views, ids)
        impressions = self._impression_stream(rng, table)
        clicks = self._click_stream(rng, table.filter(pa.array(clicked)))
        last = hour == self.config.hours - 1
        end_ms = self.end_at_ms(hour)
        # At the very end whoever looked is still reported; clicks that were never made by then are not.
        shown = self._held[0].release(impressions, None if last else end_ms)
        pressed = self._held[1].release(clicks, end_ms)
        self._next_hour = hour + 1
        truth = Truth(ids, views.at_ms, views.probability, clicked, views.bot)
        poisoned = poison(rng, self.config.poison_per_hour)
        return MarketHour(hour, shown.rows, pressed.rows, shown.arrive_ms, pressed.arrive_ms, truth, poisoned)

    def _views(self, rng: np.random.Generator, shelf: Shelf) -> _Views:
        config = self.config
        genuine = config.impressions_per_hour
        at_work = config.bots is not None and config.bots[0] <= shelf.hour < config.bots[1]
        count = genuine + (int(genuine * config.bot_share) if at_work else 0)
        start_ms = config.start_at_ms + shelf.hour * HOUR_MS
        at_ms = start_ms + np.sort(rng.integers(0, HOUR_MS, count))
        bot = np.zeros(count, dtype=bool)
        bot[rng.choice(count, count - genuine, replace=False)] = True
        user, place = self._crowd.draw(rng, count), self._catalogue.draw(rng, count)
        position = rng.integers(0, config.positions, count)
        probability = self._probability(shelf, at_ms, user, place, position)
        if at_work:
            pushed = self._catalogue.pushed(shelf)
            user[bot] = config.users + rng.integers(0, config.bot_users, count - genuine)
            # Half of what a bot calls up is what it is paid for, the rest is cover that it never clicks.
            paid = bot & (rng.random(count) < 0.5)
            place[paid] = rng.choice(pushed, int(paid.sum()))
            probability[bot] = np.where(np.isin(place[bot], pushed), config.bot_click_rate, 0.0)
        return _Views(at_ms, user, place, position, probability, bot)

    def _probability(self, shelf: Shelf, at_ms: Int64s, user: Int64s, place: Int64s, position: Int64s) -> Floats:
        """The exact click probability of each impression, [n]."""
        probability: Floats = 1 / (1 + np.exp(-self._intercept - self._logit(shelf, at_ms, user, place, position)))
        return probability

    def _logit(self, shelf: Shelf, at_ms: Int64s, user: Int64s, place: Int64s, position: Int64s) -> Floats:
        """All effects but the intercept, [n]."""
        passed = (at_ms - self.config.start_at_ms - shelf.hour * HOUR_MS) / HOUR_MS
        appeal = (1 - passed) * shelf.appeal[place] + passed * shelf.appeal_later[place]
        taste = np.einsum("ij,ij->i", self._crowd.taste[user], shelf.character[place])
        clock = 2 * np.pi * (at_ms % DAY_MS / HOUR_MS - self._peak_hour[shelf.category[place]]) / 24
        logit: Floats = (
            appeal
            + self.config.taste * taste
            + self._crowd.habit[user]
            - 0.3 * np.log2(1 + position)
            + 0.3 * np.cos(clock)
            - 0.2 * np.log(shelf.price[place] / 20)
        )
        return logit

    def _calibrated(self, rng: np.random.Generator) -> float:
        """The intercept at which the first hour's mean probability is `click_rate`, by bisection."""
        count, shelf = 20_000, self._catalogue.at(0)
        at_ms = self.config.start_at_ms + rng.integers(0, HOUR_MS, count)
        user, place = self._crowd.draw(rng, count), self._catalogue.draw(rng, count)
        logit = self._logit(shelf, at_ms, user, place, rng.integers(0, self.config.positions, count))
        low, high = -20.0, 20.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if np.mean(1 / (1 + np.exp(-middle - logit))) < self.config.click_rate else (low, middle)
            )
        return low

    def _ids(self, hour: int, rng: np.random.Generator, count: int) -> Int64s:
        """Ids that tell nothing about order: a shuffle inside the hour's own range."""
        return hour * IDS_PER_HOUR + rng.permutation(count)

    def _rows(self, shelf: Shelf, views: _Views, ids: Int64s) -> pa.RecordBatch:
        item_names = pa.array([f"i{n}" for n in shelf.number], pa.string())
        place, user = pa.array(views.place), pa.array(views.user)
        columns = {
            "at": pa.array(views.at_ms),
            "id": pa.array(ids),
            "user": self._crowd.names.take(user),
            "item": item_names.take(place),
            "category": self._categories.take(pa.array(shelf.category[views.place])),
            "position": pa.array(views.position),
            "price": pa.array(shelf.price[views.place]),
            "interests": self._crowd.interests.take(user),
        }
        return pa.RecordBatch.from_pydict(columns)

    def _impression_stream(self, rng: np.random.Generator, rows: pa.RecordBatch) -> Stream:
        at_ms = rows.column("at").to_numpy()
        stream = Stream(rows, at_ms + arrival_delay_ms(rng, self.config, len(at_ms)))
        stream = resend(rng, self.config, stream)
        index = rng.integers(0, len(at_ms), self.config.misdated_per_hour)
        wrong = rows.take(pa.array(index))
        dates = np.where(np.arange(len(index)) % 2 == 0, FAR_AT_MS, -HOUR_MS)
        wrong = wrong.set_column(0, "at", pa.array(dates.astype(np.int64)))
        # Ids of their own, or they would pass for re-sent genuine impressions.
        fresh = rows.column("id").to_numpy()[index] + IDS_PER_HOUR // 2
        wrong = wrong.set_column(1, "id", pa.array(fresh))
        return stream.plus(Stream(wrong, at_ms[index]))

    def _click_stream(self, rng: np.random.Generator, seen: pa.RecordBatch) -> Stream:
        count = seen.num_rows
        at_ms = seen.column("at").to_numpy() + click_delay_ms(rng, self.config, count)
        rows = pa.RecordBatch.from_pydict(
            {"at": pa.array(at_ms), "id": seen["id"], "user": seen["user"], "item": seen["item"]}
        )
        orphans = rows.take(pa.array(rng.choice(count, round(count * self.config.orphan_share), replace=False)))
        ids = orphans.column("id").to_numpy() + IDS_PER_HOUR // 4
        orphans = orphans.set_column(1, "id", pa.array(ids))
        orphan_at_ms = orphans.column("at").to_numpy()
        stream = Stream(rows, at_ms + arrival_delay_ms(rng, self.config, count))
        stream = stream.plus(Stream(orphans, orphan_at_ms))
        return resend(rng, self.config, stream)
