"""The pipeline of the demo, run hour by hour: produce events, join (Beam), train and publish (Beam)."""

from collections import Counter
from dataclasses import dataclass

from pipeline.configuration.project import Project
from pipeline.demo.evaluation import EvaluationSet
from pipeline.demo.scenario import Scenario
from pipeline.logs.log import Log
from pipeline.logs.open import open_log
from pipeline.market.market import Market
from pipeline.market.produce import produce
from pipeline.samples.run.in_process import SamplesJob
from pipeline.trainer.run.in_process import TrainJob


@dataclass(frozen=True)
class PipelineCounts:
    """Samples by kind, dead letters by reason, and samples trained on."""

    samples: Counter[str]
    dead_letters: Counter[str]
    trained: int


class HourlyPipeline:
    """A marketplace and the jobs that learn from it. Not thread-safe."""

    def __init__(self, project: Project, scenario: Scenario) -> None:
        self.project: Project = project
        self.log: Log = open_log(project)
        self._market = Market(scenario.seed, scenario.market)
        self._join, self._trained = SamplesJob(project, self.log), 0
        self._job: TrainJob | None = None

    def produce(self, hour: int) -> EvaluationSet:
        """Append an hour's events to the logs; returns its genuine impressions."""
        return EvaluationSet.of(produce(self.log, self.project, self._market, [hour])[0])

    def join_and_train(self) -> int:
        """Join the events in the logs, then train to the end of the samples; returns the samples trained on."""
        self._join.catch_up()
        return self.train()

    def train(self) -> int:
        """Train to the end of the samples log; returns the samples trained on."""
        if self._job is None:
            self._job = TrainJob(self.project, self.log)
        trained = self._job.round()
        self._trained += trained
        return trained

    def stop_training(self) -> None:
        """Release the shards, as stopping `springtide run train` does; the next `train` continues from CURRENT."""
        if self._job is not None:
            self._job.close()
            self._job = None

    def close(self) -> None:
        """Stop both jobs."""
        self.stop_training()
        self._join.close()

    def counts(self) -> PipelineCounts:
        """Counts so far."""
        report = self._join.report()
        return PipelineCounts(Counter(report.samples), Counter(report.dead_letters), self._trained)
