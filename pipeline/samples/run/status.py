"""The progress of the join for operators, from the stored states of its shards. Acquires no fence."""

from typing import Any

from pipeline.arrays.block import EventKind
from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, OffsetError
from pipeline.logs.interface.log import Log, last_record
from pipeline.samples.join.counts import feedback_counts
from pipeline.samples.state.restore import JoinSummary, load_summary
from pipeline.samples.state.state_files import StoredState, latest_state, read_head, read_state_manifest
from pipeline.versions.ledger.sample_records import SampleRecords


def join_status(project: Project, log: Log | None) -> dict[str, Any]:
    """Plain values: `rounds`, `bytes` of state, `held_impressions`, `pending_clicks` (their impression is absent),
    `undecided_clicks` (their window has not closed), `waiting_candidates` (not shown; if they are logged),
    `watermark_ms`, and per input partition (`inputs`, by `topic/partition`) offset, end, lag in records and
    watermark_ms; `feedbacks` has, by kind of event, how many were joined, came as a compensation or too late, or were
    set aside and why, and how many negatives there are; all as of `stored_at_ms`, the time of the oldest of the shards'
    latest states. Without a log, ends and lags are None. `problems` has a text by shard for each that cannot open: a
    record of its samples partition after its state, among the first thousand, cannot be read.

    Raises DamagedError for a state file.
    """
    names = project.config.input_topics
    partitions = {kind: log.partitions(names[kind]) if log else project.config.logs.partitions for kind in names}
    manifest = read_state_manifest(project.join_state)
    stored = [latest_state(project.join_state, shard) for shard in range(project.config.logs.shards)]
    summaries = [
        load_summary(project.config, shard, partitions, read_head(found.folder, found.file))
        for shard, found in enumerate(stored)
        if found is not None
    ]
    watermarks = [summary.progress.watermark(names) for summary in summaries]
    known = [at_ms for at_ms in watermarks if at_ms is not None]
    waiting = (
        {} if project.config.events.candidates is None else {"waiting_candidates": sum(s.unshown for s in summaries)}
    )
    return waiting | {
        "rounds": 0 if manifest is None else manifest.number,
        "watermark_ms": min(known) if known and len(known) == len(watermarks) == len(stored) else None,
        "held_impressions": sum(summary.held for summary in summaries),
        "pending_clicks": sum(summary.pending for summary in summaries),
        "undecided_clicks": sum(summary.undecided for summary in summaries),
        "feedbacks": feedback_counts([summary.counts for summary in summaries]),
        "stored_at_ms": min((at for found in stored if found and (at := _stored_at_ms(found))), default=None),
        "bytes": sum(found.file.bytes for found in stored if found is not None),
        "inputs": {
            f"{names[kind]}/{p}": _input(log, summaries, kind, names[kind], p)
            for kind in names
            for p in range(partitions[kind])
        },
        "problems": {
            str(shard): text for shard, found in enumerate(stored) if (text := _problem(project, log, shard, found))
        },
    }


def _problem(project: Project, log: Log | None, shard: int, stored: StoredState | None) -> str | None:
    """What a join that opens the shard meets in its samples partition; None if that can be read."""
    topic = project.config.topics.samples
    if log is None or topic not in log.topics():
        return None
    samples, begin = SampleRecords(project, log, shard), log.begin_offset(topic, shard)
    try:
        records = log.read(topic, shard, begin if stored is None else max(begin, stored.file.samples_offset))
        if stored is None and (last := last_record(log, topic, shard)):
            records.append(last)
        for record in records:
            samples.decode(record)
    except (DamagedError, OffsetError) as failure:
        return str(failure)
    return None


def _stored_at_ms(stored: StoredState) -> int | None:
    """None if a later state has just replaced it."""
    try:
        return (stored.folder / stored.file.name).stat().st_mtime_ns // 1_000_000
    except FileNotFoundError:
        return None


def _input(
    log: Log | None, summaries: list[JoinSummary], kind: EventKind, topic: str, partition: int
) -> dict[str, int | None]:
    progress = [summary.progress.of[kind, partition] for summary in summaries]
    begin, end = (log.begin_offset(topic, partition), log.end_offset(topic, partition)) if log else (None, None)
    offset = min((p.next_offset for p in progress), default=begin)
    lag = None if end is None or offset is None else end - offset
    watermark_ms = min((p.watermark_ms for p in progress if p.watermark_ms is not None), default=None)
    return {"offset": offset, "end": end, "lag": lag, "watermark_ms": watermark_ms}
