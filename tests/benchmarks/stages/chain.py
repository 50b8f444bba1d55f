"""The whole chain: impressions per second from producing events through join and training to published deltas.

Once over the stream of 26 fields, once over the simulated market with its project. Generating events is not timed;
packing, appending, joining, learning, committing and publishing are.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pipeline.market
from pipeline.configuration.config import load_config, parse_config
from pipeline.configuration.project import Project
from pipeline.ingest.event_writer import EventWriter, append_heartbeat
from pipeline.logs.interface.log import Log
from pipeline.logs.open import open_log
from pipeline.market.config import MarketConfig
from pipeline.market.market import Market, MarketHour
from pipeline.market.produce import produce
from pipeline.process.clock import SystemClock
from pipeline.samples.run.in_process import SamplesJob
from pipeline.trainer.run.in_process import TrainJob
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.harness.stopwatch import Stopwatch, peak_mib
from tests.benchmarks.load.stream import START_MS, clicks_of, impressions, in_records, stream_project

STREAM_RATE, TURNS = 20_000, 3
"""Impressions a second of the stream's own time; and how often join and trainer take turns."""


class RecordedMarket(Market):
    """A market whose hours are generated beforehand."""

    def __init__(self, config: MarketConfig) -> None:
        super().__init__(1, config)
        self._recorded = [super(RecordedMarket, self).events(hour) for hour in range(config.hours)]

    def events(self, hour: int) -> MarketHour:
        return self._recorded[hour]


def measure(folder: Path, quick: bool) -> list[Figure]:
    return [_stream(folder / "stream", quick), _market(folder / "market", quick)]


def _stream(folder: Path, quick: bool) -> Figure:
    rows, fields = (20_000, 3) if quick else (450_000, 26)
    window_s = rows / STREAM_RATE / 20
    project = stream_project(folder, fields, samples={"window_s": window_s, "horizon_s": window_s})
    log, each = open_log(project), rows // TURNS
    turns = [impressions(1, first, each, 1000 / STREAM_RATE, fields) for first in range(0, each * TURNS, each)]
    clicks = [clicks_of(1, shown, 0.05, window_s * 250) for shown in turns]
    targets = EventWriter(project, log, "impressions"), EventWriter(project, log, "clicks")

    def put(turn: int) -> None:
        for target, batch in zip(targets, (turns[turn], clicks[turn]), strict=True):
            for part in in_records(batch):
                target.append(part)
        if turn == TURNS - 1:
            append_heartbeat(project, log, START_MS + 2 * rows * 1000 // STREAM_RATE)

    return _timed("whole chain, 26 fields", project, log, each * TURNS, range(TURNS), put)


def _market(folder: Path, quick: bool) -> Figure:
    shutil.copytree(Path(pipeline.market.__file__).parent / "project", folder)
    # The peer's batch size; everything else is the market's project.
    document = load_config(folder / "springtide.toml").model_dump(exclude_unset=True)
    document["model"]["batch_size"] = 2048
    project = Project(folder, parse_config(document), SystemClock())
    log = open_log(project)
    config = MarketConfig(hours=TURNS, impressions_per_hour=5_000 if quick else 200_000, users=20_000)
    market = RecordedMarket(config)

    def put(hour: int) -> None:
        produce(log, project, market, [hour])
        if hour == TURNS - 1:
            append_heartbeat(project, log, market.end_at_ms(hour) + 3_600_000)

    shown = sum(market.events(hour).impressions.num_rows for hour in range(TURNS))
    return _timed("whole chain, market", project, log, shown, range(TURNS), put)


def _timed(
    what: str, project: Project, log: Log, rows: int, turns: Iterable[int], put: Callable[[int], None]
) -> Figure:
    """Each turn puts its events into the log, joins them and learns from them."""
    join, trainer = SamplesJob(project, log), TrainJob(project, log)
    parts = dict.fromkeys(("produce_s", "join_s", "train_s"), 0.0)
    try:
        trainer.open()  # building the network belongs to the start
        with Stopwatch() as whole:
            for turn in turns:
                with Stopwatch() as producing:
                    put(turn)
                with Stopwatch() as joining:
                    join.catch_up()
                with Stopwatch() as training:
                    trainer.round()
                for name, watch in zip(parts, (producing, joining, training), strict=True):
                    parts[name] += watch.seconds
        report, samples = trainer.report(), sum(join.report().samples.values())
    finally:
        join.close()
        trainer.close()
    assert report.samples == samples >= 0.9 * rows, f"{rows} impressions, {samples} samples, {report.samples} learned"
    return Figure(
        what, rows / whole.seconds, "impressions/s", _sizes(rows, asdict(report), whole) | parts, least_ratio=0.3
    )


def _sizes(rows: int, report: dict[str, Any], whole: Stopwatch) -> dict[str, Any]:
    keys = sum(report["shards"][0]["rows"].values())
    counts = {"impressions": rows, "samples": report["samples"], "batches": report["batches"]}
    progress = {"commits": report["commits"], "rows at the end": keys}
    return counts | progress | {"seconds": whole.seconds, "cpu_s": whole.cpu_s, "peak_mib": peak_mib()}
