"""Runs the demo: the scenario, hour by hour, through the complete pipeline.

Each hour begins with a refresh of the replicas. They predict the hour's impressions before these are joined and trained
on, so every score is one that serving would have had.
"""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline.demo.evaluation import EvaluationSet, HourlyScores
from pipeline.demo.folder import make_project
from pipeline.demo.hourly_pipeline import HourlyPipeline
from pipeline.demo.picture import draw
from pipeline.demo.publish_statistics import PublishStatistics
from pipeline.demo.report import DemoResult, report_lines, summarize
from pipeline.demo.rollback_check import RollbackOutcome, branch_without_rollback, roll_back_bots
from pipeline.demo.scenario import Scenario
from pipeline.demo.scored_replica import ScoredReplica
from pipeline.features.plan import FeaturePlan
from pipeline.process.clock import Clock, SystemClock
from pipeline.trainer.run.in_process import TrainJob
from pipeline.trainer.run.precision import PriceSearch, search_prices
from pipeline.versions.store.version_store import VersionStore

PrintLine = Callable[[str], None]
_REPORT_EVERY_HOURS = 6
_PRICED_HOURS = 2
"""Impressions whose samples are scored at other prices of a byte."""


def run_demo(
    out: Path, print_line: PrintLine, scenario: Scenario | None = None, clock: Clock | None = None
) -> dict[str, Any]:
    """Run a simulated marketplace through the pipeline, with bots and a rollback; draws `out/demo.png`.

    Args:
        out: receives `project`, the branch `without-rollback`, `demo.png` and `demo.json`.
        print_line: called with each line of progress and of the summary.
        scenario: by default three days.
        clock: measures durations.

    Returns:
        the summary, JSON-able.

    Raises:
        InputError: `out/project` exists and was not created by a demo.
    """
    demo = Demo(out, print_line, scenario or Scenario(), clock or SystemClock())
    demo.run()
    return demo.close()


class Demo:
    """One run of a scenario. Not thread-safe."""

    def __init__(self, out: Path, print_line: PrintLine, scenario: Scenario, clock: Clock) -> None:
        self._out, self._print_line, self._scenario, self._clock = out, print_line, scenario, clock
        self._began_s = clock.monotonic_s()
        self._project = make_project(out.resolve(), scenario, clock)
        self._pipeline = HourlyPipeline(self._project, scenario)
        self._plan = FeaturePlan(self._project.config, self._project.root)
        self._truth = HourlyScores("truth")
        every, once = scenario.refresh_hours, scenario.warm_up_hours
        self._live = self._replica("live", lambda hour: True)
        daily = self._replica("daily", lambda hour: hour >= once and (hour - once) % every == 0)
        self._replicas = [self._live, daily, self._replica("once", lambda hour: hour == once)]
        self._published = PublishStatistics(self._project, scenario.market.start_at_ms)
        self._branch: TrainJob | None = None
        self._rollback: RollbackOutcome | None = None

    def run(self) -> None:
        """Run all hours, in order."""
        market = self._scenario.market
        self._print_line(
            f"simulated marketplace: {market.hours} hours with {market.impressions_per_hour:,} impressions each, "
            f"{market.users:,} users, {market.items:,} items"
        )
        self._print_line("NE is normalized entropy: log loss relative to always predicting the mean; lower is better")
        for hour in range(market.hours):
            self._report_bots(hour)
            if hour == self._scenario.noticed_hour:
                self._roll_back()
            self._run_hour(hour)

    def close(self) -> dict[str, Any]:
        """Draw the picture and write the summary."""
        self._pipeline.close()
        prices, fp32_bytes = self._prices(), self._published.snapshot_fp32_bytes()
        if self._branch is not None:
            self._branch.close()
        self._published.close()
        assert self._rollback is not None, "the scenario ended before the rollback"
        scores = {scores.name: scores for scores in self._scores()}
        joined, trained = self._pipeline.joined(), self._pipeline.trained
        result = DemoResult(
            self._scenario, scores, self._rollback, joined, trained, self._published, prices, fp32_bytes
        )
        picture = self._out / "demo.png"
        draw(result, picture)
        summary = summarize(result) | {"picture": str(picture), "project": str(self._project.root)}
        summary["seconds"] = round(self._clock.monotonic_s() - self._began_s, 1)
        (self._out / "demo.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        for line in report_lines(summary):
            self._print_line(line)
        return summary

    def _prices(self) -> PriceSearch:
        """The newest samples by the rows of CURRENT, at all prices."""
        with closing(VersionStore(self._project)) as versions:
            current = versions.current(0)
            assert current is not None, "the scenario ended before the first version"
            samples = _PRICED_HOURS * self._scenario.market.impressions_per_hour
            return search_prices(self._project, self._pipeline.log, [current], samples, lambda: None)

    def _scores(self) -> list[HourlyScores]:
        return [*(replica.scores for replica in self._replicas), self._truth]

    def _replica(self, name: str, refreshes_at: Callable[[int], bool]) -> ScoredReplica:
        return ScoredReplica(name, self._project, self._pipeline.log, refreshes_at)

    def _run_hour(self, hour: int) -> None:
        for replica in self._replicas:
            replica.refresh(hour)
        self._evaluate(hour, self._pipeline.produce(hour))
        if self._scenario.trains_after(hour):
            self._train()
        if (hour + 1) % _REPORT_EVERY_HOURS == 0:
            scores = [f"{scores.name} {scores.ne[hour]:.3f}" for scores in self._scores() if hour in scores.ne]
            self._print_line(f"{self._scenario.clock_time(hour + 1)}: NE of the last hour: {', '.join(scores)}")

    def _evaluate(self, hour: int, examples: EvaluationSet) -> None:
        """Score all models and the exact probabilities on the same impressions; features are extracted once."""
        features = self._plan.extract(examples.rows, examples.at_ms)
        self._truth.add(hour, examples.probability, examples)
        for replica in self._replicas:
            replica.evaluate(hour, examples, features)

    def _train(self) -> None:
        self._pipeline.join_and_train()
        if self._branch is not None:
            self._branch.round()
        self._published.update()

    def _roll_back(self) -> None:
        """Roll back as the operator; a branch continues without the rollback."""
        scenario, pipeline = self._scenario, self._pipeline
        noticed, target = scenario.clock_time(scenario.noticed_hour), scenario.clock_time(scenario.bots[0])
        self._print_line(f"{noticed}: the operator rolls back to {target}")
        pipeline.stop_training()
        branch = branch_without_rollback(pipeline, self._out.resolve())
        self._rollback = roll_back_bots(pipeline, self._live.replica, scenario)
        pipeline.train()
        self._branch = TrainJob(branch, pipeline.log)
        self._replicas.append(ScoredReplica("without rollback", branch, pipeline.log, lambda hour: True))

    def _report_bots(self, hour: int) -> None:
        first, last = self._scenario.bots
        if hour in (first, last):
            event = "a bot farm starts clicking" if hour == first else "the bot farm is blocked"
            self._print_line(f"{self._scenario.clock_time(hour)}: {event}")
