"""Somebody who serves predictions: a replica that follows every hour, once a day, or never again."""

from collections.abc import Callable

import numpy as np

from pipeline.configuration.project import Project
from pipeline.demo.score import Exam, expected_ne
from pipeline.features.plan import FeaturePlan, Features
from pipeline.logs.log import Log
from pipeline.market.truth import normalized_entropy
from pipeline.serving.replica import Replica


class Contender:
    """A replica, when it takes new versions, and its marks by hour. Not thread-safe.

    Attributes:
        name: for people.
        ne: by hour, the expected NE over that hour's genuine impressions; NaN before its first version.
        clicks_ne: the same with the clicks that happened.
    """

    def __init__(self, name: str, project: Project, log: Log, refreshed: Callable[[int], bool]) -> None:
        """Follow `project`'s deltas; `refreshed` says of an hour whether it takes new versions at its beginning."""
        self.name = name
        self.replica = Replica(project, log)
        self._refreshed = refreshed
        self.ne: dict[int, float] = {}
        self.clicks_ne: dict[int, float] = {}

    def begin(self, hour: int) -> None:
        """Take what has been published, if this is the hour for it."""
        if self._refreshed(hour):
            self.replica.catch_up()

    def sit(self, hour: int, exam: Exam, features: Features) -> None:
        """Predict an hour's impressions with what is served at its beginning, before anybody learned from them."""
        if not self.replica.ready:
            return
        predicted = self.replica.load_predictor().predict(features, self.replica.lookup)[:, 0].astype(np.float64)
        self.ne[hour] = expected_ne(predicted, exam.probability)
        self.clicks_ne[hour] = normalized_entropy(predicted, exam.clicked)


class Truth:
    """The market itself as a contender: nobody can do better."""

    def __init__(self) -> None:
        self.name = "truth"
        self.ne: dict[int, float] = {}
        self.clicks_ne: dict[int, float] = {}

    def sit(self, hour: int, exam: Exam) -> None:
        """Predict the exact probabilities."""
        self.ne[hour] = expected_ne(exam.probability, exam.probability)
        self.clicks_ne[hour] = normalized_entropy(exam.probability, exam.clicked)


def examine(hour: int, exam: Exam, plan: FeaturePlan, contenders: list[Contender], truth: Truth) -> None:
    """Let all predict the same impressions; features are worked out once."""
    features = plan.extract(exam.rows, exam.at_ms)
    truth.sit(hour, exam)
    for contender in contenders:
        contender.sit(hour, exam, features)
