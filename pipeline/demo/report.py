"""The result of a demo run, its numbers as JSON, and its summary as lines of text."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.demo.evaluation import HourlyScores
from pipeline.demo.publish_statistics import PublishStatistics
from pipeline.demo.rollback_check import RollbackOutcome
from pipeline.demo.scenario import Scenario
from pipeline.samples.run.rounds import SamplesReport
from pipeline.trainer.run.precision import PriceSearch
from pipeline.versions.deltas.quantizer import PRECISIONS

PRECISION_NAMES = ("withheld", *(str(bits) for bits in PRECISIONS))


@dataclass(frozen=True)
class DemoResult:
    """The measurements that picture and summary are made from.

    Attributes:
        scores: by model name.
        prices: the model of the end as snapshots would carry it at other prices of a byte.
        snapshot_fp32_bytes: size of the same in fp32.
    """

    scenario: Scenario
    scores: Mapping[str, HourlyScores]
    rollback: RollbackOutcome
    joined: SamplesReport
    trained: int
    published: PublishStatistics
    prices: PriceSearch
    snapshot_fp32_bytes: int

    def excess_ne(self, name: str, hour: int) -> float:
        """NE of a model minus NE of the exact probabilities."""
        return self.scores[name].ne[hour] - self.scores["truth"].ne[hour]

    def precisions(self) -> Counter[str]:
        """Rows withheld and rows sent at each precision, over all hours."""
        return sum(self.published.precisions.values(), Counter())


def summarize(result: DemoResult) -> dict[str, Any]:
    """The numbers of a run, JSON-able."""
    scenario, scores, precisions = result.scenario, result.scores, result.precisions()
    clean = _clean_hours(scenario)
    compared = {name: by_hour for name, by_hour in scores.items() if name != "without rollback"}
    after_rollback = range(scenario.noticed_hour, scenario.market.hours)
    return {
        "simulated": True,
        "hours": scenario.market.hours,
        "impressions_per_hour": scenario.market.impressions_per_hour,
        "ne": {name: _mean(by_hour.ne, clean) for name, by_hour in compared.items()},
        "clicks_ne": {name: _mean(by_hour.clicks_ne, clean) for name, by_hour in compared.items()},
        "ne_after_rollback": {name: _mean(by_hour.ne, after_rollback) for name, by_hour in scores.items()},
        "contamination": _contamination(scenario, scores["live"]),
        "rollback": asdict(result.rollback)
        | {
            "noticed": scenario.clock_time(scenario.noticed_hour),
            "quarantine_ms": list(result.rollback.quarantine_ms),
        },
        "hours_to_recover": {name: hours_to_recover(result, name) for name in ("live", "without rollback")},
        "samples": dict(sorted(result.joined.samples.items())),
        "dead_letters": dict(sorted(result.joined.dead_letters.items())),
        "samples_trained": result.trained,
        "snapshot_fp32_bytes": result.snapshot_fp32_bytes,
        "prices": [{"bytes": point.size_bytes, "loss": point.divergence} for point in result.prices.points],
        "levels": {name: asdict(level) for name, level in result.published.levels.items()},
        "precisions": {name: precisions[name] / max(precisions.total(), 1) for name in PRECISION_NAMES},
    }


def hours_to_recover(result: DemoResult, name: str) -> int | None:
    """Hours from the rollback until a model's excess NE is no larger than in the worst clean hour before the bots.

    None if that does not happen before the end.
    """
    scenario = result.scenario
    first, _ = scenario.bots
    before = range(max(scenario.warm_up_hours, first - 24), first + 1)
    usual = max(result.excess_ne("live", hour) for hour in before)
    after = range(scenario.noticed_hour, scenario.market.hours)
    recovered = [hour for hour in after if result.excess_ne(name, hour) <= usual]
    return recovered[0] - scenario.noticed_hour if recovered else None


def report_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The summary as lines of text."""
    rollback = summary["rollback"]
    yield f"mean NE over clean hours: {', '.join(f'{name} {value:.4f}' for name, value in summary['ne'].items())}"
    seconds = rollback["plan_s"] + rollback["act_s"] + rollback["serve_s"]
    yield (
        f"rollback: {rollback['undone']} to {rollback['target']} in {seconds:.2f} s, {rollback['unlearned']:,} samples "
        f"unlearned; the replica's served view {'equals' if rollback['equal'] else 'DIFFERS FROM'} the target's, "
        "byte for byte"
    )
    for name, level in summary["levels"].items():
        ratio = level["fp32_bytes"] / max(level["sent_bytes"], 1)
        yield (
            f"{name}: {level['deltas']} deltas, {level['sent_bytes']:,} bytes, "
            f"{ratio:.1f} times smaller than all changed rows in fp32"
        )
    shares = ", ".join(_precision_share(name, share) for name, share in summary["precisions"].items())
    yield f"changed rows by precision sent: {shares}"
    yield f"samples: {_counts(summary['samples'])}; dead letters: {_counts(summary['dead_letters'])}"
    yield f"picture: {summary['picture']} ({summary['seconds']} s)"


def _contamination(scenario: Scenario, live: HourlyScores) -> dict[str, Any]:
    first, last = scenario.bots
    peak = max(range(first + 1, scenario.noticed_hour), key=lambda hour: live.ne[hour])
    return {
        "bots": f"{scenario.clock_time(first)} to {scenario.clock_time(last)}",
        "peak_ne": live.ne[peak],
        "peak_at": scenario.clock_time(peak),
        "before_ne": live.ne[first],
    }


def _clean_hours(scenario: Scenario) -> list[int]:
    """Hours after the warm-up in which the live model has not learned from bots."""
    first, _ = scenario.bots
    hours = range(scenario.warm_up_hours, scenario.market.hours)
    return [hour for hour in hours if hour <= first or hour >= scenario.noticed_hour]


def _mean(by_hour: Mapping[int, float], hours: Iterable[int]) -> float:
    values = [by_hour[hour] for hour in hours if hour in by_hour]
    return float(np.mean(values)) if values else float("nan")


def _precision_share(name: str, share: float) -> str:
    return f"{name if name == 'withheld' else f'{name} bit'} {share:.1%}"


def _counts(by_name: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in by_name.items())
