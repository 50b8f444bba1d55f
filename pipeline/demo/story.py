"""What happens in the demo, and when. Hours count from the market's first; a day is 24 of them."""

from dataclasses import dataclass, field

from pipeline.market.config import MarketConfig
from pipeline.market.market import HOUR_MS

_WARM_UP_STEP_HOURS = 4


def three_days() -> MarketConfig:
    """A shop whose taste moves within hours, and a bot farm on the third morning."""
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
class Story:
    """One run of the demo, from its seed to the operator's command.

    Attributes:
        seed: of the market; the model has its own in the configuration.
        market: its size, its drift and its bots.
        warm_up_hours: everybody learns until then; the model that is trained once stops there.
        refresh_hours: how often the model that is not live takes the newest version.
        noticed_hour: when the operator rolls back, at the beginning of that hour; the bots are gone by then.
        commit_every_batches: a version, and a realtime delta, every so many batches.
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
        harm_seen = first + 1  # the first bots are learned at the end of their first hour
        if not 0 < self.warm_up_hours <= first < last <= self.noticed_hour < self.market.hours:
            raise ValueError(
                f"warm-up to {self.warm_up_hours}, bots {first}..{last}, noticed at {self.noticed_hour}, "
                f"{self.market.hours} hours: wanted in this order. hint: change the story's hours"
            )
        if self.noticed_hour <= harm_seen:
            raise ValueError(f"noticed at {self.noticed_hour}, harm shows from {harm_seen} on. hint: notice later")

    @property
    def bots(self) -> tuple[int, int]:
        """Hours [from, to) in which the bot farm is at work."""
        if self.market.bots is None:
            raise ValueError("the market has no bots, the story needs some. hint: set MarketConfig.bots")
        return self.market.bots

    def at_ms(self, hour: int) -> int:
        """When an hour begins."""
        return self.market.start_at_ms + hour * HOUR_MS

    def learns_after(self, hour: int) -> bool:
        """Whether what an hour brought is learned at its end; the warm-up, which nobody watches, takes larger steps."""
        return hour + 1 >= self.warm_up_hours or (hour + 1) % _WARM_UP_STEP_HOURS == 0

    def clock_time(self, hour: int) -> str:
        """An hour as people say it.

        >>> Story().clock_time(31)
        'day 2, 07:00'
        """
        return f"day {hour // 24 + 1}, {hour % 24:02d}:00"
