"""The demo's scenario: what happens in which hour. Hours count from the market's first; a day has 24 hours."""

from dataclasses import dataclass, field

from pipeline.market.config import MarketConfig
from pipeline.market.market import HOUR_MS

_WARM_UP_ROUND_HOURS = 4


def three_days() -> MarketConfig:
    """A market whose preferences drift within hours, with a bot farm on the third morning."""
    return MarketConfig(
        users=1_000,
        items=200,
        impressions_per_hour=10_000,
        hours=72,
        click_rate=0.15,
        taste=0.5,
        quality=1.2,
        drift_hours=18.0,
        churn=0.04,
        bots=(55, 58),
        bot_share=1.0,
        bot_users=2_000,
        bot_items=40,
    )


@dataclass(frozen=True)
class Scenario:
    """One run of the demo.

    Attributes:
        seed: seed of the market; the model's seed is in the configuration.
        market: size, drift and bots of the market.
        warm_up_hours: end of the warm-up, in which no model is compared; the model trained once stops there.
        refresh_hours: hours between two refreshes of the daily model.
        noticed_hour: the operator rolls back at the beginning of this hour, after the last bot.
        commit_every_batches: batches per version, and thus per realtime delta.
    """

    seed: int = 1
    market: MarketConfig = field(default_factory=three_days)
    warm_up_hours: int = 24
    refresh_hours: int = 24
    noticed_hour: int = 58
    commit_every_batches: int = 8

    def __post_init__(self) -> None:
        """Check the order of events."""
        first, last = self.bots
        harm_visible = first + 1  # the bots of their first hour are trained on at its end
        if not 0 < self.warm_up_hours <= first < last <= self.noticed_hour < self.market.hours:
            raise ValueError(
                f"warm-up to {self.warm_up_hours}, bots {first}..{last}, noticed at {self.noticed_hour}, "
                f"{self.market.hours} hours: wanted in this order. hint: change the scenario's hours"
            )
        if self.noticed_hour <= harm_visible:
            raise ValueError(
                f"noticed at {self.noticed_hour}, harm is visible from {harm_visible} on. hint: raise noticed_hour"
            )

    @property
    def bots(self) -> tuple[int, int]:
        """Hours [from, to) in which the bot farm is active."""
        if self.market.bots is None:
            raise ValueError("the market has no bots, the scenario needs some. hint: set MarketConfig.bots")
        return self.market.bots

    def at_ms(self, hour: int) -> int:
        """Begin of an hour."""
        return self.market.start_at_ms + hour * HOUR_MS

    def trains_after(self, hour: int) -> bool:
        """Whether training runs at the end of an hour; in the warm-up only every few hours."""
        return hour + 1 >= self.warm_up_hours or (hour + 1) % _WARM_UP_ROUND_HOURS == 0

    def clock_time(self, hour: int) -> str:
        """Day and time of day of an hour.

        >>> Scenario().clock_time(31)
        'day 2, 07:00'
        """
        return f"day {hour // 24 + 1}, {hour % 24:02d}:00"
