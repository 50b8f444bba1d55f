"""Candidates of the small shop that were ranked and not shown; a coarse label learns their scores."""

import numpy as np
import pandas as pd

CANDIDATES = """
[[labels]]
name = "label"

[[labels]]
name = "purchase"
event = "purchase"

[[labels]]
name = "coarse"
target = "label"
teacher = "label"
candidates = true

[events.candidates]
score = "fine"

[events.candidates.columns]
impression_id = "string"
user = "string"
item = "string"
fine = "float"
"""


def candidates_of(impressions: pd.DataFrame, seed: int) -> pd.DataFrame:
    """A candidate at the time of each impression, of another item; one in ten has a score that is none."""
    random = np.random.default_rng(seed)
    fine = random.random(len(impressions)).round(3)
    return pd.DataFrame(
        {
            "at": impressions["at"],
            "impression_id": "unshown-" + impressions["impression_id"],
            "user": impressions["user"],
            "item": impressions["item"].sample(frac=1, random_state=seed).to_numpy(),
            "fine": np.where(np.arange(len(fine)) % 10 == 0, 1.5, fine),
        }
    )
