"""Runs the demo's story through the real chain, hour by hour, and tells what happened.

At the beginning of an hour replicas take what is published; they predict the hour's impressions; only then are these
joined and learned from. So every score is what serving would have shown.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.demo.contender import Contender, Truth, examine
from pipeline.demo.folder import make_project
from pipeline.demo.incident import Incident, branch_off, undo_bots
from pipeline.demo.line import Line
from pipeline.demo.picture import draw
from pipeline.demo.report import Curve, Run, summarize, tell
from pipeline.demo.story import Story
from pipeline.demo.traffic import Traffic
from pipeline.features.plan import FeaturePlan
from pipeline.process.clock import Clock, SystemClock
from pipeline.trainer.run.job import TrainJob

Say = Callable[[str], None]
_TELL_EVERY_HOURS = 6


def run_demo(out: Path, say: Say, story: Story | None = None, clock: Clock | None = None) -> dict[str, Any]:
    """Run a simulated marketplace through everything, with bots and a rollback; draws `out/demo.png`.

    Args:
        out: gets the project in `project`, the branch that is not rolled back, `demo.png` and `demo.json`.
        say: takes lines for people.
        story: what happens; by default three days.
        clock: for durations.

    Returns:
        the numbers, JSON-able.

    Raises:
        InputError: `out/project` is there and no demo made it.
    """
    demo = Demo(out, say, story or Story(), clock or SystemClock())
    demo.play()
    return demo.close()


class Demo:
    """One run of the story. Not thread-safe."""

    def __init__(self, out: Path, say: Say, story: Story, clock: Clock) -> None:
        self._out, self._say, self._story, self._clock = out, say, story, clock
        self._began_s = clock.monotonic_s()
        self._project = make_project(out.resolve(), story, clock)
        self._line = Line(self._project, story)
        self._plan = FeaturePlan(self._project.config, self._project.root)
        self._truth = Truth()
        every, once = story.refresh_hours, story.warm_up_hours
        self._live = self._contender("live", lambda hour: True)
        self._daily = self._contender("daily", lambda hour: hour >= once and (hour - once) % every == 0)
        self._once = self._contender("once", lambda hour: hour == once)
        self._contenders = [self._live, self._daily, self._once]
        self._traffic = Traffic(self._project, story.market.start_at_ms)
        self._branch: TrainJob | None = None
        self._incident: Incident | None = None

    def play(self) -> None:
        """All hours, in order."""
        market = self._story.market
        self._say(
            f"A simulated marketplace: {market.hours} hours, {market.impressions_per_hour:,} impressions each, "
            f"{market.users:,} users, {market.items:,} items"
        )
        for hour in range(market.hours):
            self._announce(hour)
            if hour == self._story.noticed_hour:
                self._notice()
            self._play_hour(hour)

    def close(self) -> dict[str, Any]:
        """Draw the picture and sum up."""
        self._line.close()
        if self._branch is not None:
            self._branch.close()
            self._branch.versions.close()
        self._traffic.close()
        assert self._incident is not None, "the story ended before the operator noticed"
        curves = {curve.name: curve for curve in self._curves()}
        run = Run(self._story, curves, self._incident, self._line.learned(), self._traffic)
        picture = self._out / "demo.png"
        draw(run, picture)
        result = summarize(run) | {"picture": str(picture), "project": str(self._project.root)}
        result["seconds"] = round(self._clock.monotonic_s() - self._began_s, 1)
        (self._out / "demo.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        for line in tell(result):
            self._say(line)
        return result

    def _curves(self) -> list[Curve]:
        return [*self._contenders, self._truth]

    def _contender(self, name: str, refreshed: Callable[[int], bool]) -> Contender:
        return Contender(name, self._project, self._line.log, refreshed)

    def _play_hour(self, hour: int) -> None:
        for contender in self._contenders:
            contender.begin(hour)
        exam = self._line.produce(hour)
        examine(hour, exam, self._plan, self._contenders, self._truth)
        if self._story.learns_after(hour):
            self._learn()
        if (hour + 1) % _TELL_EVERY_HOURS == 0:
            scores = [f"{curve.name} {curve.ne[hour]:.3f}" for curve in self._curves() if hour in curve.ne]
            self._say(f"{self._story.clock_time(hour + 1)}: NE of the last hour: {', '.join(scores)}")

    def _learn(self) -> None:
        self._line.learn()
        if self._branch is not None:
            self._branch.round()
        self._traffic.read()

    def _notice(self) -> None:
        """The operator rolls back; a branch goes on as if nobody had."""
        story, line = self._story, self._line
        self._say(
            f"{story.clock_time(story.noticed_hour)}: the operator rolls back to {story.clock_time(story.bots[0])}"
        )
        line.stop_training()
        branch = branch_off(line, self._out.resolve())
        self._incident = undo_bots(line, self._live.replica, story)
        line.train()
        self._branch = TrainJob(branch, line.log)
        self._contenders.append(Contender("without rollback", branch, line.log, lambda hour: True))

    def _announce(self, hour: int) -> None:
        first, last = self._story.bots
        if hour in (first, last):
            what = "goes to work" if hour == first else "is shut out"
            self._say(f"{self._story.clock_time(hour)}: a bot farm {what}")
