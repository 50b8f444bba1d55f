"""Join: events per second from log through Beam in process to the samples log; and of the state machine alone.

Impressions and 5 % clicks as packed records in time order, so that watermarks advance with every record; the window is
1/20 of the span, the horizon another, and every impression is held as long as both. Flink SQL's interval join runs over
the same events in the same round if Java and Maven are installed.
"""

from pathlib import Path
from subprocess import CalledProcessError

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import EventBlock, EventKind
from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.ingest.event_writer import EventWriter, append_heartbeat
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.interface.log import Log, ReadLimits
from pipeline.logs.open import open_log
from pipeline.process.clock import SystemClock
from pipeline.samples.held.bucket import Bucket
from pipeline.samples.held.durations import Durations
from pipeline.samples.held.held_impressions import HeldImpressions
from pipeline.samples.held.rows import HELD
from pipeline.samples.join.join import Join
from pipeline.samples.run.in_process import run_samples
from pipeline.samples.state.restore import load_join
from pipeline.samples.state.snapshot import take_snapshot
from pipeline.samples.state.state_files import read_shard, segment_names, write_shard
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.harness.stopwatch import Stopwatch, peak_mib, resident_mib
from tests.benchmarks.load.stream import RECORD_ROWS, START_MS, clicks_of, in_records, zipf
from tests.benchmarks.peers.flink import flink_join

SPAN_S, CLICK_SHARE = 36_000, 0.05
_FLINK_CORES = 2
_STATE_BUCKETS = 22
_PEERS = Path("bench-out/peers")


def measure(folder: Path, quick: bool) -> list[Figure]:
    rows = 40_000 if quick else 2_000_000
    project = join_project(folder, SPAN_S / 20)
    log = open_log(project)
    events = fill(project, log, rows)
    blocks = sorted(_blocks(project, log), key=lambda b: (b.watermark_ms, b.kind == "clicks"))
    alone = [_state_machine(project, blocks), _rebuilt_index(project, rows), *_stored_state(folder / "kept", blocks)]
    before_mib = resident_mib()
    with Stopwatch() as watch:
        report = run_samples(project, log, until_end=True)
    assert report.events == events, f"{report.events} of {events} events were joined"
    sizes = {
        "events": events,
        "window": "1/20 of the span",
        "record rows": RECORD_ROWS,
        "samples": sum(report.samples.values()),
        "dead letters": sum(report.dead_letters.values()),
        "rounds": report.rounds,
        "cpu_s": watch.cpu_s,
        "seconds": watch.seconds,
        "peak_mib": peak_mib(),
        "before_mib": before_mib,
    }
    rate = events / watch.seconds
    through_beam = Figure("join, log to samples log through Beam", rate, "events/s", sizes, None, None, 1.0)
    beside = [] if quick else [_compare_flink(folder, rows, rate)]
    return [through_beam, *beside, *alone]


def join_project(root: Path, window_s: float) -> Project:
    """A project whose impressions look like a shop's; it is joined, never trained."""
    columns = {"id": "int", "user": "string", "item": "string", "position": "int", "price": "float"}
    document = {
        "name": "join",
        "events": {
            "key": ["id"],
            "disorder_s": 1.0,
            "impressions": {"columns": columns},
            "clicks": {"columns": {"id": "int"}},
        },
        "samples": {"window_s": window_s, "horizon_s": window_s, "key_retention_s": 0.0},
        "fields": [{"name": "user", "columns": ["user"]}],
    }
    return Project(root, parse_config(document), SystemClock())


def fill(project: Project, log: Log, rows: int) -> int:
    """Append `rows` impressions, their clicks, and a heartbeat after all windows; returns the number of events."""
    shown, clicks = events_of(rows)
    for kind, batch in (("impressions", shown), ("clicks", clicks)):
        target = EventWriter(project, log, kind)
        for part in in_records(batch):
            target.append(part)
    append_heartbeat(project, log, START_MS + SPAN_S * 1000 * 2)
    return shown.num_rows + clicks.num_rows


def events_of(rows: int) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """`rows` impressions over the span, and their clicks."""
    random = np.random.default_rng(1)
    at_ms = START_MS + np.sort(random.integers(0, SPAN_S * 1000, rows))
    shown = pa.RecordBatch.from_pydict(
        {
            "at": pa.array(at_ms),
            "id": pa.array(random.permutation(rows)),
            "user": _named("u", random, rows),
            "item": _named("i", random, rows),
            "position": pa.array(random.integers(0, 10, rows)),
            "price": pa.array(np.round(random.exponential(20, rows), 2)),
        }
    )
    return shown, clicks_of(1, shown, CLICK_SHARE, delay_ms=SPAN_S / 20 * 250)


def _compare_flink(folder: Path, rows: int, rate: float) -> Figure:
    """Our rate divided by Flink's."""
    what, least = "join through Beam, times Flink SQL's interval join", 8.0
    why = flink_join.missing()
    if why is not None:
        return Figure(what, 0.0, "x", {"not measured": why})
    shown, clicks = events_of(rows)
    flink_join.write_events(folder / "flink", shown, clicks)
    try:
        found = flink_join.measure(flink_join.jars(_PEERS), folder / "flink", _FLINK_CORES, SPAN_S // 20 // 60)
    except CalledProcessError as failure:
        return Figure(what, 0.0, "x", {"not measured": (failure.stderr or failure.stdout).strip()[-400:]})
    events = shown.num_rows + clicks.num_rows
    flink = events / found["join_s"]
    sizes = {"events": events, "cores": _FLINK_CORES, "ours": rate, "flink": flink}
    return Figure(what, rate / flink, "x", sizes | {"flink_reading_alone": events / found["read_s"]}, least)


def _rebuilt_index(project: Project, rows: int) -> Figure:
    """The part of a start after reading the state: building the index over all held impressions."""
    random, durations = np.random.default_rng(1), Durations.of(project.config)
    buckets = []
    for serial, part in enumerate(np.array_split(np.arange(rows), _STATE_BUCKETS)):
        bucket = Bucket(serial, (0, serial))
        held = np.zeros(len(part), HELD)
        held["id"], held["at"], held["offset"] = random.integers(0, 2**64, (len(part), 2), np.uint64), part, part
        bucket.append(held, pa.record_batch({"row": part}))
        buckets.append(bucket)
    held_rows = HeldImpressions(durations)
    with Stopwatch() as watch:
        held_rows.restore(buckets, np.zeros((0, 2), np.uint64))
    sizes = {"rows": rows, "buckets": _STATE_BUCKETS, "index_mib": held_rows.index_bytes / 2**20}
    what = "join, index rebuilt from state blocks, per processor second"
    return Figure(what, rows / watch.cpu_s, "rows/s", sizes | {"seconds": watch.seconds}, 5_000_000)


def _stored_state(folder: Path, blocks: list[EventBlock]) -> list[Figure]:
    """The state written by a round with half of the blocks held and a tenth as many new ones; and its loading."""
    project = join_project(folder, SPAN_S * 10)
    partitions: dict[EventKind, int] = {"impressions": 1, "clicks": 1}
    join, half = Join(project.config, 0, partitions), len(blocks) // 2
    file, seconds, new_bytes = None, 0.0, 0
    for number, part in enumerate((blocks[:half], blocks[half : half + half // 10])):
        for block in part:
            join.feed(block)
        join.decide()
        with Stopwatch() as watch:
            before = segment_names(file)
            file = write_shard(folder, f"{number}.join", take_snapshot(join, before), (0, 0))
        seconds = watch.seconds
        new_bytes = file.length + sum(s.length for s in file.segments if s.name not in before)
    assert file is not None
    with Stopwatch() as watch:
        loaded = load_join(project.config, 0, partitions, *read_shard(folder, file))
    assert len(loaded.held) == len(join.held), "impressions are missing"
    sizes = {"held": len(join.held), "state_mib": file.bytes / 2**20, "files": len(file.segments) + 1}
    return [
        Figure("join, a round's state written, durable", seconds, "s", sizes | {"new_mib": new_bytes / 2**20}),
        Figure(
            "join, state read and ready, per processor second",
            len(join.held) / watch.cpu_s,
            "rows/s",
            sizes | {"seconds": watch.seconds},
            3_000_000,
        ),
    ]


def _state_machine(project: Project, blocks: list[EventBlock]) -> Figure:
    """The join without log and Beam, fed block by block in the order of the watermarks."""
    events = sum(map(len, blocks))
    join = Join(project.config, 0, {"impressions": 1, "clicks": 1})
    held = peak_bytes = samples = 0
    columns_bytes = _bytes_per_row(blocks)
    with Stopwatch() as watch:
        for block in blocks:
            join.feed(block)
            samples += join.decide().samples.batch().num_rows
            held = max(held, len(join.held))
            peak_bytes = max(peak_bytes, int(len(join.held) * columns_bytes) + join.held.index_bytes)
    sizes = {
        "events": events,
        "blocks": len(blocks),
        "samples": samples,
        "peak held impressions": held,
        "peak state_mib": peak_bytes / 2**20,
        "seconds": watch.seconds,
    }
    what = "join, state machine alone, per processor second"
    return Figure(what, events / watch.cpu_s, "events/s", sizes, 3_000_000)


def _bytes_per_row(blocks: list[EventBlock]) -> float:
    """Memory of a held impression without the index: its columns and its typed row."""
    shown = next(block for block in blocks if block.kind == "impressions")
    return shown.columns.nbytes / len(shown) + HELD.itemsize


def _blocks(project: Project, log: Log) -> list[EventBlock]:
    blocks = []
    for kind in ("impressions", "clicks"):
        codec, at, max_event_time_ms = EventCodec(project.config.events, kind, log), 0, None
        while records := log.read(kind, 0, at, ReadLimits(records=1)):
            decoded = codec.decode(records, kind, 0, max_event_time_ms)
            at, max_event_time_ms = decoded.block.next_offset, decoded.max_event_time_ms
            blocks.append(decoded.block)
    return blocks


def _named(prefix: str, random: np.random.Generator, rows: int) -> pa.Array:
    distinct, inverse = np.unique(zipf(random, rows), return_inverse=True)
    return pa.array([f"{prefix}{value}" for value in distinct.tolist()]).take(pa.array(inverse))
