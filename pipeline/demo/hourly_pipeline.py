"""The pipeline of the demo, run hour by hour: produce events, join (Beam), train and publish."""

from pipeline.configuration.project import Project
from pipeline.demo.evaluation import EvaluationSet
from pipeline.demo.scenario import Scenario
from pipeline.logs.interface.log import Log
from pipeline.logs.open import open_log
from pipeline.market.market import Market
from pipeline.market.produce import produce
from pipeline.samples.run.in_process import SamplesJob
from pipeline.samples.run.rounds import SamplesReport
from pipeline.trainer.run.in_process import TrainJob


class HourlyPipeline:
    """A marketplace and the jobs that learn from it. Not thread-safe.

    Attributes:
        trained: number of samples trained on.
    """

    def __init__(self, project: Project, scenario: Scenario) -> None:
        self.project: Project = project
        self.log: Log = open_log(project)
        self._market = Market(scenario.seed, scenario.market)
        self._join, self.trained = SamplesJob(project, self.log), 0
        self._job: TrainJob | None = None

    def produce(self, hour: int) -> EvaluationSet:
        """Append an hour's events to the logs; returns its genuine impressions."""
        return EvaluationSet.of(produce(self.log, self.project, self._market, [hour])[0])

    def join_and_train(self) -> None:
        """Join the events in the logs, then train to the end of the samples."""
        self._join.catch_up()
        self.train()

    def train(self) -> None:
        """Train to the end of the samples log."""
        if self._job is None:
            self._job = TrainJob(self.project, self.log)
        self.trained += self._job.round()

    def stop_training(self) -> None:
        """Release the shards, as stopping `springtide run train` does; the next `train` continues from CURRENT."""
        if self._job is not None:
            self._job.close()
            self._job = None

    def close(self) -> None:
        """Stop both jobs."""
        self.stop_training()
        self._join.close()

    def joined(self) -> SamplesReport:
        """Counts of the join."""
        return self._join.report()
