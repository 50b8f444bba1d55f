"""How large and how unruly a simulated market is. Everything it does follows from these numbers and its seed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MarketConfig:
    """Sizes, effects and faults of a market. Shares are of impressions or of clicks, between 0 and 1."""

    users: int = 5_000
    items: int = 1_000
    """Places in the shop window; the item in a place changes when the old one leaves."""
    categories: int = 20
    factors: int = 8
    positions: int = 10
    impressions_per_hour: int = 30_000
    hours: int = 24
    start_at_ms: int = 1_735_689_600_000
    """2025-01-01 00:00 UTC: in the past, so that no genuine event lies in the future of its append time."""

    click_rate: float = 0.07
    """Mean click probability that the intercept is set for, at the first hour."""
    item_zipf: float = 0.9
    """Exponent of item popularity."""
    user_zipf: float = 0.5
    taste: float = 0.7
    """Standard deviation of what a user's taste and an item's character add to the logit."""
    quality: float = 0.8
    """Standard deviation of an item's own appeal, which drifts around nothing."""
    drift_hours: float = 18.0
    """An item's appeal forgets itself by 1/e in this time."""
    churn: float = 0.03
    """Share of items replaced by cold ones each hour."""

    click_delay_s: float = 60.0
    """Mean of the exponential delay of most clicks."""
    slow_share: float = 0.04
    """Clicks with a lognormal delay instead: beyond the window, a few beyond the horizon."""
    slow_delay_s: float = 1_800.0
    """Median of the slow delay; sigma is 1."""

    disorder_s: float = 30.0
    """What the project allows; events arrive up to 0.8 of it behind time, and `late_share` of them 2 to 5 times it."""
    late_share: float = 0.001
    duplicate_share: float = 0.005
    """Impressions and clicks sent twice, byte for byte."""
    orphan_share: float = 0.002
    """Clicks, per genuine click, for impressions that never were."""
    misdated_per_hour: int = 4
    """Impressions dated 2100 or before 1970, on top of the genuine ones."""
    poison_per_hour: int = 3
    """Records nobody can decode."""

    bots: tuple[int, int] | None = None
    """Hours [from, to) in which a bot farm is at work."""
    bot_share: float = 0.5
    """Bot impressions per genuine one."""
    bot_users: int = 5_000
    """Throwaway accounts of the farm."""
    bot_items: int = 100
    """How many items it pushes: the least appealing among the most popular 400."""
    bot_click_rate: float = 0.8
