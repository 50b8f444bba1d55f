"""Scrapes of a running process's exporter, for tests."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Counter, Histogram
from prometheus_client.parser import text_string_to_metric_families

from pipeline.telemetry import metrics
from pipeline.telemetry.registry import CollectedMetric


class Scrape(NamedTuple):
    """One response of `/metrics`."""

    values: dict[tuple[str, tuple[tuple[str, str], ...]], float]

    def __call__(self, name: str, **labels: str) -> float | None:
        """One value; None if it is missing."""
        return self.values.get((name, tuple(sorted(labels.items()))))

    def all(self, name: str) -> dict[str, float]:
        """By the values of its labels (in the order of their names, joined by blanks)."""
        return {" ".join(v for _, v in labels): value for (n, labels), value in self.values.items() if n == name}

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.values}


def parsed(text: str) -> Scrape:
    """Raises ValueError if a series occurs twice."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            if key in found:
                raise ValueError(f"{key} occurs twice")
            found[key] = sample.value
    return Scrape(found)


def scrape(url: str) -> Scrape:
    with urllib.request.urlopen(url, timeout=30) as response:
        return parsed(response.read().decode())


def url_of(project: Path, process: str) -> str | None:
    """The address in the target file of `process`; None if there is none."""
    target_file = project / "state" / "telemetry" / f"{process}.json"
    if not target_file.exists():
        return None
    [group] = json.loads(target_file.read_text())
    [target] = group["targets"]
    return f"http://{target}/metrics"


def _declared() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every name that may be exported, with its labels."""
    for declared in vars(metrics).values():
        if isinstance(declared, CollectedMetric):
            yield declared.name, declared.labels
        elif isinstance(declared, Histogram | Counter):
            [family] = declared.describe()
            ends = ("_bucket", "_sum", "_count") if family.type == "histogram" else ("_total",)
            yield from ((family.name + end, declared._labelnames) for end in ends)


def declared_names() -> set[str]:
    return {name for name, _ in _declared()}


def declared_labels(name: str) -> tuple[str, ...]:
    return dict(_declared())[name]
