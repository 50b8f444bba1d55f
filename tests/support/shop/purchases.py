"""A second feedback of the small shop: purchases, negative at once and corrected by an event that comes later."""

import numpy as np
import pandas as pd

PURCHASES = """
[events.purchase]
window_s = 600
horizon_s = 7200
policy = "fake_negative"

[events.purchase.columns]
impression_id = "string"
"""


def purchases_of(impressions: pd.DataFrame, seed: int) -> pd.DataFrame:
    """A fifth of the impressions, bought before and after the window and the horizon."""
    random = np.random.default_rng(seed)
    delay_ms = random.choice([60_000, 599_999, 600_000, 5_000_000, 7_799_999, 7_900_000], len(impressions))
    bought = impressions.assign(at=impressions["at"] + delay_ms)[random.random(len(impressions)) < 0.2]
    return bought[["at", "impression_id"]].sort_values("at", kind="stable")
