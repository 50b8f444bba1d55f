"""The demo's numbers: what a run gives back, and the lines that sum it up for people."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from pipeline.demo.incident import Incident
from pipeline.demo.line import Learned
from pipeline.demo.story import Story
from pipeline.demo.traffic import Traffic
from pipeline.versions.deltas.quantizer import PRECISIONS

STEPS = ("withheld", *(str(bits) for bits in PRECISIONS))


class Curve(Protocol):
    """Somebody's NE by hour."""

    name: str
    ne: dict[int, float]
    clicks_ne: dict[int, float]


@dataclass(frozen=True)
class Run:
    """Everything that picture and summary are made of."""

    story: Story
    curves: Mapping[str, Curve]
    incident: Incident
    learned: Learned
    traffic: Traffic

    def excess(self, name: str, hour: int) -> float:
        """How far somebody's NE is above the truth's own."""
        return self.curves[name].ne[hour] - self.curves["truth"].ne[hour]

    def mix(self) -> Counter[str]:
        """Rows withheld and sent at each precision, over all hours."""
        return sum(self.traffic.mix.values(), Counter())


def summarize(run: Run) -> dict[str, Any]:
    """The numbers of a run, JSON-able."""
    story, mix = run.story, run.mix()
    clean = _clean_hours(story)
    first, last = story.bots
    hurt = range(first + 1, story.noticed_hour)
    peak = max(hurt, key=lambda hour: run.curves["live"].ne[hour])
    return {
        "simulated": True,
        "hours": story.market.hours,
        "impressions_per_hour": story.market.impressions_per_hour,
        "ne": {name: _mean(curve.ne, clean) for name, curve in run.curves.items() if name != "without rollback"},
        "clicks_ne": {
            name: _mean(curve.clicks_ne, clean) for name, curve in run.curves.items() if name != "without rollback"
        },
        "ne_after_rollback": {
            name: _mean(curve.ne, range(story.noticed_hour, story.market.hours)) for name, curve in run.curves.items()
        },
        "contamination": {
            "bots": f"{story.clock_time(first)} to {story.clock_time(last)}",
            "peak_ne": run.curves["live"].ne[peak],
            "peak_at": story.clock_time(peak),
            "before_ne": run.curves["live"].ne[first],
        },
        "rollback": asdict(run.incident)
        | {
            "noticed": story.clock_time(story.noticed_hour),
            "quarantine_ms": list(run.incident.quarantine_ms),
        },
        "hours_to_recover": {name: hours_to_recover(run, name) for name in ("live", "without rollback")},
        "samples": dict(sorted(run.learned.samples.items())),
        "dead_letters": dict(sorted(run.learned.dead_letters.items())),
        "samples_trained": run.learned.trained,
        "levels": {name: asdict(level) for name, level in run.traffic.levels.items()},
        "precisions": {step: mix[step] / max(mix.total(), 1) for step in STEPS},
    }


def hours_to_recover(run: Run, name: str) -> int | None:
    """Hours from the rollback until somebody is as close to the truth as in the worst clean hour before the bots.

    None where that does not happen before the end.
    """
    first, _ = run.story.bots
    usual = max(run.excess("live", hour) for hour in range(max(run.story.warm_up_hours, first - 24), first + 1))
    later = range(run.story.noticed_hour, run.story.market.hours)
    found = [hour for hour in later if run.excess(name, hour) <= usual]
    return found[0] - run.story.noticed_hour if found else None


def tell(result: Mapping[str, Any]) -> Iterator[str]:
    """The closing lines."""
    ne, back, levels = result["ne"], result["rollback"], result["levels"]
    yield f"NE over clean hours: {', '.join(f'{name} {value:.4f}' for name, value in ne.items())}"
    seconds = back["plan_s"] + back["act_s"] + back["serve_s"]
    yield (
        f"rollback: {back['undone']} to {back['target']} in {seconds:.2f} s, {back['unlearned']:,} samples unlearned; "
        f"the replica's served view {'equals' if back['equal'] else 'DIFFERS FROM'} the target's, byte for byte"
    )
    for name, level in levels.items():
        ratio = level["whole_bytes"] / max(level["sent_bytes"], 1)
        yield f"{name}: {level['deltas']} deltas, {level['sent_bytes']:,} bytes, {ratio:.1f} times less than in fp32"
    yield "precisions: " + ", ".join(f"{step} {share:.1%}" for step, share in result["precisions"].items())
    yield f"samples: {result['samples']}; dead letters: {result['dead_letters']}"
    yield f"picture: {result['picture']} ({result['seconds']} s)"


def _clean_hours(story: Story) -> list[int]:
    """Hours after the warm-up in which what is live was neither contaminated nor just rolled back."""
    first, _ = story.bots
    hours = range(story.warm_up_hours, story.market.hours)
    return [hour for hour in hours if hour <= first or hour >= story.noticed_hour]


def _mean(by_hour: Mapping[int, float], hours: Any) -> float:
    found = [by_hour[hour] for hour in hours if hour in by_hour]
    return float(np.mean(found)) if found else float("nan")
