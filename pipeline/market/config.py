"""Sizes, effects and faults of a simulated market. With the seed, they determine every event."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MarketConfig:
    """Sizes, effects and faults of a market. Shares are of impressions or of clicks, between 0 and 1."""

    users: int = 5_000
    items: int = 1_000
    """Places on offer; the item at a place is replaced now and then."""
    categories: int = 20
    factors: int = 8
    positions: int = 10
    impressions_per_hour: int = 30_000
    hours: int = 24
    start_at_ms: int = 1_735_689_600_000
    """2025-01-01 00:00 UTC: in the past, so that no genuine event is later than its append time."""

    click_rate: float = 0.07
    """Mean click probability of the first hour; the intercept is set for it."""
    item_zipf: float = 0.9
    """Exponent of item popularity."""
    user_zipf: float = 0.5
    taste: float = 0.7
    """Standard deviation of the product of user taste and item factors in the logit."""
    quality: float = 0.8
    """Standard deviation of an item's appeal, which drifts around 0."""
    drift_hours: float = 18.0
    """Time in which the correlation of an item's appeal with its earlier value falls to 1/e."""
    churn: float = 0.03
    """Share of items replaced by cold ones each hour."""

    click_delay_s: float = 60.0
    """Mean of the exponential delay of most clicks."""
    slow_share: float = 0.04
    """Share of clicks with a lognormal delay instead: beyond the window, a few beyond the horizon."""
    slow_delay_s: float = 1_800.0
    """Median of the slow delay; sigma is 1."""

    disorder_s: float = 30.0
    """The project's disorder; events arrive up to 0.8 of it late, a share of `late_share` 2 to 5 times it late."""
    late_share: float = 0.001
    duplicate_share: float = 0.005
    """Share of impressions and clicks sent twice, byte for byte."""
    orphan_share: float = 0.002
    """Clicks for impressions that do not exist, per genuine click."""
    misdated_per_hour: int = 4
    """Impressions dated 2100 or before 1970, in addition to the genuine ones."""
    poison_per_hour: int = 3
    """Undecodable records."""

    bots: tuple[int, int] | None = None
    """Hours [from, to) in which a bot farm is active."""
    bot_share: float = 0.5
    """Bot impressions per genuine one."""
    bot_users: int = 5_000
    """Accounts of the bot farm."""
    bot_items: int = 100
    """Items that the bots promote: the least appealing among the four times as many most popular."""
    bot_click_rate: float = 0.8
