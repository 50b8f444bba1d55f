"""A replica with a refresh schedule and the scores of its predictions."""

from collections.abc import Callable

import numpy as np

from pipeline.configuration.project import Project
from pipeline.demo.evaluation import EvaluationSet, HourlyScores
from pipeline.features.plan import Features
from pipeline.logs.interface.log import Log
from pipeline.serving.replica import Replica


class ScoredReplica:
    """Serves a model that is refreshed every hour, every day or once. Not thread-safe."""

    def __init__(self, name: str, project: Project, log: Log, refreshes_at: Callable[[int], bool]) -> None:
        """Follow the deltas of `project`; `refreshes_at` returns whether to apply new versions before an hour."""
        self.replica, self.scores = Replica(project, log), HourlyScores(name)
        self._refreshes_at = refreshes_at

    def refresh(self, hour: int) -> None:
        """Apply the published versions, if the schedule includes `hour`."""
        if self._refreshes_at(hour):
            self.replica.catch_up()

    def evaluate(self, hour: int, examples: EvaluationSet, features: Features) -> None:
        """Predict an hour's impressions with the served version and score them; nothing before the first version."""
        if self.replica.ready:
            predicted = self.replica.load_predictor().predict(features, self.replica.lookup)[:, 0]
            self.scores.add(hour, predicted.astype(np.float64), examples)
