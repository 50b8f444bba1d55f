"""The line from market to model: produce, join (Beam), train and publish (Beam), an hour at a time."""

from collections import Counter
from dataclasses import dataclass

from pipeline.configuration.project import Project
from pipeline.demo.score import Exam
from pipeline.demo.story import Story
from pipeline.logs.log import Log
from pipeline.logs.open import open_log
from pipeline.market.market import Market
from pipeline.market.produce import produce
from pipeline.samples.run.job import SamplesJob
from pipeline.trainer.run.job import TrainJob


@dataclass(frozen=True)
class Learned:
    """What a line has done since it began."""

    samples: Counter[str]
    dead_letters: Counter[str]
    trained: int


class Line:
    """One marketplace and the jobs that learn from it. Not thread-safe."""

    def __init__(self, project: Project, story: Story) -> None:
        self.project: Project = project
        self.log: Log = open_log(project)
        self._market = Market(story.seed, story.market)
        self._join, self._trained = SamplesJob(project, self.log), 0
        self._job: TrainJob | None = None

    def produce(self, hour: int) -> Exam:
        """Append an hour's events to the logs; returns what its genuine impressions ask of a model."""
        return Exam.of(produce(self.log, self.project, self._market, [hour])[0])

    def learn(self) -> int:
        """Join what is in the logs, then train to the end of the samples; returns samples learned from."""
        self._join.catch_up()
        return self.train()

    def train(self) -> int:
        """Train to the end of the samples log; returns samples learned from."""
        if self._job is None:
            self._job = TrainJob(self.project, self.log)
        learned = self._job.round()
        self._trained += learned
        return learned

    def stop_training(self) -> None:
        """Let the shards go, as stopping `springtide run train` does; the next `train` continues from CURRENT."""
        if self._job is not None:
            self._job.close()
            self._job.versions.close()
            self._job = None

    def close(self) -> None:
        """Stop both jobs."""
        self.stop_training()
        self._join.close()

    def learned(self) -> Learned:
        """Counts so far."""
        joined = self._join.report()
        return Learned(Counter(joined.samples), Counter(joined.dead_letters), self._trained)
