"""A simulated marketplace whose exact click probabilities are known, so that models trained on it can be measured.

Each hour has impressions and clicks in order of arrival, with delay, disorder, duplicates, orphans, wrong dates, poison
and bots, and separately the ground truth, which no event carries.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.arrays.block import Int64s
from pipeline.market.arrival import (
    InFlightEvents,
    Stream,
    add_duplicates,
    arrival_delay_ms,
    click_delay_ms,
    poison_records,
)
from pipeline.market.catalogue import Catalogue, Floats, Shelf
from pipeline.market.config import MarketConfig
from pipeline.market.users import Users

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
FAR_AT_MS = 4_102_444_800_000  # 2100-01-01
IDS_PER_HOUR = 10_000_000_000


@dataclass(frozen=True)
class GroundTruth:
    """The n impressions created in one hour, ordered by impression time.

    Attributes:
        id: [n] impression ids.
        at_ms: [n] impression times.
        probability: [n] exact click probabilities.
        clicked: [n] whether the impression was clicked, however late the click arrives.
        bot: [n] whether the viewer is a bot.
    """

    id: Int64s
    at_ms: Int64s
    probability: Floats
    clicked: npt.NDArray[np.bool_]
    bot: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MarketHour:
    """The events that arrive in one hour, and the ground truth of those created in it.

    Batches start with `at` (int64 ms); `*_arrive_ms` are sorted, one per row.
    """

    hour: int
    impressions: pa.RecordBatch
    clicks: pa.RecordBatch
    impressions_arrive_ms: Int64s
    clicks_arrive_ms: Int64s
    truth: GroundTruth
    poison: list[bytes]


@dataclass(frozen=True)
class _Views:
    """n impressions, before they become rows; `place` indexes the shelf, `user` indexes `Users.names`."""

    at_ms: Int64s
    user: Int64s
    place: Int64s
    position: Int64s
    probability: Floats
    bot: npt.NDArray[np.bool_]


class Market:
    """A market that is determined, byte for byte, by its seed and configuration. Not thread-safe."""

    def __init__(self, seed: int, config: MarketConfig | None = None) -> None:
        self.seed, self.config = seed, config or MarketConfig()
        config = self.config
        self._catalogue = Catalogue(seed, config)
        self._users = Users(seed, config, self._catalogue.category_factors)
        self._categories = pa.array([f"c{n}" for n in range(config.categories)], pa.string())
        rng = np.random.default_rng([seed, 5])
        self._peak_hour = rng.uniform(0, 24, config.categories)
        self._intercept = self._calibrated_intercept(rng)
        self._next_hour = 0
        self._in_flight = InFlightEvents(), InFlightEvents()

    def events(self, hour: int) -> MarketHour:
        """The events of `hour`. Hours are generated in order: an earlier hour restarts from the first.

        Raises ValueError for an hour outside the market.
        """
        if not 0 <= hour < self.config.hours:
            raise ValueError(f"hour {hour} is outside the market's 0..{self.config.hours - 1}. hint: raise hours")
        if hour < self._next_hour:
            self._next_hour, self._in_flight = 0, (InFlightEvents(), InFlightEvents())
        while self._next_hour < hour:
            self._generate(self._next_hour)
        return self._generate(hour)

    def items(self, hour: int) -> pa.RecordBatch:
        """The items on offer in `hour`: `item`, `category` and `price`, as impressions have them."""
        return self._item_columns(self._catalogue.at(hour), np.arange(self.config.items))

    def users(self, chosen: Int64s) -> pa.RecordBatch:
        """Users by number, in 0..users - 1: `user` and `interests`, as impressions have them."""
        rows = pa.array(chosen)
        return pa.RecordBatch.from_pydict(
            {"user": self._users.names.take(rows), "interests": self._users.interests.take(rows)}
        )

    def probabilities(self, hour: int, users: Int64s) -> Floats:
        """[n, items] exact click probabilities at the start of `hour`, at the first position, of n users by number."""
        shelf, (n, m) = self._catalogue.at(hour), (len(users), self.config.items)
        at_ms = np.full(n * m, self.config.start_at_ms + hour * HOUR_MS)
        places, first = np.tile(np.arange(m), n), np.zeros(n * m, np.int64)
        return self._probability(shelf, at_ms, np.repeat(users, m), places, first).reshape(n, m)

    def end_at_ms(self, hour: int) -> int:
        """End of `hour`, exclusive."""
        return self.config.start_at_ms + (hour + 1) * HOUR_MS

    def _generate(self, hour: int) -> MarketHour:
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
        # The last hour includes all impressions still in flight, but no click that arrives after its end.
        arrived = self._in_flight[0].exchange(impressions, None if last else end_ms)
        arrived_clicks = self._in_flight[1].exchange(clicks, end_ms)
        self._next_hour = hour + 1
        truth = GroundTruth(ids, views.at_ms, views.probability, clicked, views.bot)
        poison = poison_records(rng, self.config.poison_per_hour)
        return MarketHour(
            hour, arrived.rows, arrived_clicks.rows, arrived.arrive_ms, arrived_clicks.arrive_ms, truth, poison
        )

    def _views(self, rng: np.random.Generator, shelf: Shelf) -> _Views:
        config = self.config
        genuine = config.impressions_per_hour
        bots_active = config.bots is not None and config.bots[0] <= shelf.hour < config.bots[1]
        count = genuine + (int(genuine * config.bot_share) if bots_active else 0)
        start_ms = config.start_at_ms + shelf.hour * HOUR_MS
        at_ms = start_ms + np.sort(rng.integers(0, HOUR_MS, count))
        bot = np.zeros(count, dtype=bool)
        bot[rng.choice(count, count - genuine, replace=False)] = True
        user, place = self._users.draw(rng, count), self._catalogue.draw(rng, count)
        position = rng.integers(0, config.positions, count)
        probability = self._probability(shelf, at_ms, user, place, position)
        if bots_active:
            pushed = self._catalogue.pushed_places(shelf)
            user[bot] = config.users + rng.integers(0, config.bot_users, count - genuine)
            # Half of a bot's impressions are of promoted items; it never clicks the others.
            promoted = bot & (rng.random(count) < 0.5)
            place[promoted] = rng.choice(pushed, int(promoted.sum()))
            probability[bot] = np.where(np.isin(place[bot], pushed), config.bot_click_rate, 0.0)
        return _Views(at_ms, user, place, position, probability, bot)

    def _probability(self, shelf: Shelf, at_ms: Int64s, user: Int64s, place: Int64s, position: Int64s) -> Floats:
        """Exact click probabilities, [n]."""
        probability: Floats = 1 / (1 + np.exp(-self._intercept - self._logit(shelf, at_ms, user, place, position)))
        return probability

    def _logit(self, shelf: Shelf, at_ms: Int64s, user: Int64s, place: Int64s, position: Int64s) -> Floats:
        """All effects except the intercept, [n]."""
        elapsed = (at_ms - self.config.start_at_ms - shelf.hour * HOUR_MS) / HOUR_MS
        appeal = (1 - elapsed) * shelf.appeal[place] + elapsed * shelf.appeal_at_end[place]
        taste = np.einsum("ij,ij->i", self._users.taste[user], shelf.factors[place])
        day_phase = 2 * np.pi * (at_ms % DAY_MS / HOUR_MS - self._peak_hour[shelf.category[place]]) / 24
        logit: Floats = (
            appeal
            + self.config.taste * taste
            + self._users.habit[user]
            - 0.3 * np.log2(1 + position)
            + 0.3 * np.cos(day_phase)
            - 0.2 * np.log(shelf.price[place] / 20)
        )
        return logit

    def _calibrated_intercept(self, rng: np.random.Generator) -> float:
        """The intercept that gives the first hour a mean probability of `click_rate`, by bisection."""
        count, shelf = 20_000, self._catalogue.at(0)
        at_ms = self.config.start_at_ms + rng.integers(0, HOUR_MS, count)
        user, place = self._users.draw(rng, count), self._catalogue.draw(rng, count)
        logit = self._logit(shelf, at_ms, user, place, rng.integers(0, self.config.positions, count))
        low, high = -20.0, 20.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if np.mean(1 / (1 + np.exp(-middle - logit))) < self.config.click_rate else (low, middle)
            )
        return low

    def _ids(self, hour: int, rng: np.random.Generator, count: int) -> Int64s:
        """Ids without information about order: shuffled inside the range of the hour."""
        return hour * IDS_PER_HOUR + rng.permutation(count)

    def _rows(self, shelf: Shelf, views: _Views, ids: Int64s) -> pa.RecordBatch:
        items, users = self._item_columns(shelf, views.place), self.users(views.user)
        columns = {
            "at": pa.array(views.at_ms),
            "id": pa.array(ids),
            "user": users["user"],
            "item": items["item"],
            "category": items["category"],
            "position": pa.array(views.position),
            "price": items["price"],
            "interests": users["interests"],
        }
        return pa.RecordBatch.from_pydict(columns)

    def _item_columns(self, shelf: Shelf, places: Int64s) -> pa.RecordBatch:
        names = pa.array([f"i{n}" for n in shelf.item], pa.string())
        columns = {
            "item": names.take(pa.array(places)),
            "category": self._categories.take(pa.array(shelf.category[places])),
            "price": pa.array(shelf.price[places]),
        }
        return pa.RecordBatch.from_pydict(columns)

    def _impression_stream(self, rng: np.random.Generator, rows: pa.RecordBatch) -> Stream:
        at_ms = rows.column("at").to_numpy()
        stream = Stream(rows, at_ms + arrival_delay_ms(rng, self.config, len(at_ms)))
        stream = add_duplicates(rng, self.config, stream)
        index = rng.integers(0, len(at_ms), self.config.misdated_per_hour)
        misdated = rows.take(pa.array(index))
        dates = np.where(np.arange(len(index)) % 2 == 0, FAR_AT_MS, -HOUR_MS)
        misdated = misdated.set_column(0, "at", pa.array(dates.astype(np.int64)))
        # Separate ids: with genuine ids they would count as duplicates.
        ids = rows.column("id").to_numpy()[index] + IDS_PER_HOUR // 2
        misdated = misdated.set_column(1, "id", pa.array(ids))
        return stream + Stream(misdated, at_ms[index])

    def _click_stream(self, rng: np.random.Generator, clicked: pa.RecordBatch) -> Stream:
        count = clicked.num_rows
        at_ms = clicked.column("at").to_numpy() + click_delay_ms(rng, self.config, count)
        rows = pa.RecordBatch.from_pydict(
            {"at": pa.array(at_ms), "id": clicked["id"], "user": clicked["user"], "item": clicked["item"]}
        )
        orphans = rows.take(pa.array(rng.choice(count, round(count * self.config.orphan_share), replace=False)))
        ids = orphans.column("id").to_numpy() + IDS_PER_HOUR // 4
        orphans = orphans.set_column(1, "id", pa.array(ids))
        orphan_at_ms = orphans.column("at").to_numpy()
        stream = Stream(rows, at_ms + arrival_delay_ms(rng, self.config, count))
        return add_duplicates(rng, self.config, stream + Stream(orphans, orphan_at_ms))
