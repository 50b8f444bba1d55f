"""The market as a producer in real time: its hours pass in seconds, and events carry the time at which they are sent.

The rate is given in events per second. Delays from impression to click shrink in proportion, and so do the window and
the disorder in `project_in`.
"""

import threading
import time
from importlib import resources
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cluster.cluster import LocalCluster
from pipeline.configuration.project import Project
from pipeline.ingest.event_writer import EventWriter
from pipeline.logs.open import open_log
from pipeline.market.config import MarketConfig
from tests.torture.load import Batch, bots_in, ticks

TICK_S = 0.05
_MARKET = MarketConfig()
_CLICKS_PER_IMPRESSION = 0.07
_REPLACED = {
    "[logs]\npartitions = 1\nshards = 1\n": '[logs]\nengine = "kafka"\nbootstrap = "{bootstrap}"\n',
    "disorder_s = 30 ": "disorder_s = {disorder} ",
    "window_s = 600": "window_s = {window}",
    "horizon_s = 3600": "horizon_s = {horizon}",
    "key_retention_s = 600": "key_retention_s = {window}",
}
_MORE = """
[flink]
rest = "{rest}"
jar = "{jar}"
"""


def project_in(root: Path, cluster: LocalCluster) -> Project:
    """The market's project on a cluster, with durations in real time."""
    root.mkdir()
    files = resources.files("pipeline.market") / "project"
    (root / "model.py").write_text((files / "model.py").read_text(encoding="utf-8"), encoding="utf-8")
    text = (files / "springtide.toml").read_text(encoding="utf-8")
    values = {"bootstrap": cluster.bootstrap, "disorder": 0.5, "window": 10, "horizon": 60}
    for old, new in _REPLACED.items():
        assert old in text, old
        text = text.replace(old, new.format(**values))
    more = _MORE.format(rest=cluster.rest_url, jar=cluster.base_jar)
    (root / "springtide.toml").write_text(text + more, encoding="utf-8")
    return Project.open(root)


class PacedLoad(threading.Thread):
    """Appends ticks until `end`, late ones immediately, and records when each click was appended.

    Attributes:
        events: number of events appended.
        seconds: the time this took.
    """

    def __init__(self, project: Project, seed: int, rate: float, most_s: float) -> None:
        """`rate` is in events per second. The events of `most_s` seconds are generated beforehand."""
        super().__init__(name="market")
        self._project, self.events, self.seconds = project, 0, 0.0
        impressions_per_s = rate / (1 + _CLICKS_PER_IMPRESSION)
        self._speed = impressions_per_s * 3600 / _MARKET.impressions_per_hour
        made = islice(ticks(seed, max(1, round(impressions_per_s * TICK_S))), round(most_s / TICK_S))
        self._ticks = [tuple(rows.filter(pc.invert(bots_in(rows))) for rows in batch) for batch in made]
        self._stop_producing = threading.Event()
        self._produced: list[tuple[npt.NDArray[np.int64], float]] = []
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._produce()
        except BaseException as failure:
            self._failure = failure

    def end(self) -> None:
        """Stop producing. Raises the producer's failure."""
        self._stop_producing.set()
        self.join()
        if self._failure is not None:
            raise self._failure

    def produced(self, since_s: float, until_s: float) -> dict[int, float]:
        """By click id, the time (CLOCK_MONOTONIC) of its first append, of the clicks appended in this interval."""
        found: dict[int, float] = {}
        for ids, at_s in self._produced[:]:
            for id in ids.tolist():
                found.setdefault(id, at_s)
        return {id: at_s for id, at_s in found.items() if since_s <= at_s < until_s}

    def _produce(self) -> None:
        log = open_log(self._project)
        targets = [EventWriter(self._project, log, kind) for kind in ("impressions", "clicks")]
        start_ms, next_s = time.time() * 1000, time.monotonic()
        for batch in self._ticks:
            if self._stop_producing.is_set():
                break
            self._send(targets, batch, start_ms)
            next_s += TICK_S
            self._stop_producing.wait(max(0.0, next_s - time.monotonic()))
            self.seconds = time.time() - start_ms / 1000
        log.close()

    def _send(self, targets: list[EventWriter], batch: Batch, start_ms: float) -> None:
        for target, rows in zip(targets, batch, strict=True):
            if rows.num_rows:
                sent = self._with_real_times(rows, start_ms)
                if target.kind == "clicks":
                    self._produced.append((rows.column("id").to_numpy(), time.monotonic()))
                target.append(sent)
                self.events += rows.num_rows

    def _with_real_times(self, rows: pa.RecordBatch, start_ms: float) -> pa.RecordBatch:
        passed_ms = (rows.column("at").to_numpy() - _MARKET.start_at_ms) / self._speed
        return rows.set_column(0, "at", pa.array((start_ms + passed_ms).astype(np.int64)))
