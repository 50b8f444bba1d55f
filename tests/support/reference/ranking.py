"""Reference of how well scores order rows."""

import numpy as np
import pandas as pd


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of pairs of a click and another row in which the click has the higher score."""
    ranks = pd.Series(scores).rank().to_numpy()
    clicks = labels.sum()
    return float((ranks[labels == 1].sum() - clicks * (clicks + 1) / 2) / (clicks * (len(labels) - clicks)))
