"""The progress of the join for operators, from the stored states of its shards. Acquires no fence."""

from typing import Any

from pipeline.arrays.block import EventKind
from pipeline.configuration.project import Project
from pipeline.logs.interface.log import Log
from pipeline.samples.join.emitted import INPUTS
from pipeline.samples.state.restore import JoinSummary, load_summary
from pipeline.samples.state.state_files import StoredState, latest_state, read_head, read_round_manifest


def join_status(project: Project, log: Log | None) -> dict[str, Any]:
    """Plain values: `rounds`, `bytes` of state, `held_impressions`, `pending_clicks`, `watermark_ms`, and per input
    partition (`inputs`, by `topic/partition`) offset, end, lag in records and watermark_ms; all as of `kept_at_ms`,
    the time of the oldest of the shards' latest states. Without a log, ends and lags are None.

    Raises DamagedError for a state file.
    """
    names = project.config.topics.inputs
    partitions = {kind: log.partitions(names[kind]) if log else project.config.logs.partitions for kind in INPUTS}
    manifest = read_round_manifest(project.join_state)
    kept = [latest_state(project.join_state, shard) for shard in range(project.config.logs.shards)]
    standing = [
        load_summary(project.config, shard, partitions, read_head(found.folder, found.file))
        for shard, found in enumerate(kept)
        if found is not None
    ]
    watermarks = [one.progress.watermark(INPUTS) for one in standing]
    known = [at_ms for at_ms in watermarks if at_ms is not None]
    return {
        "rounds": 0 if manifest is None else manifest.number,
        "watermark_ms": min(known) if known and len(known) == len(watermarks) == len(kept) else None,
        "held_impressions": sum(one.held for one in standing),
        "pending_clicks": sum(one.pending for one in standing),
        "waiting_clicks": sum(one.candidates for one in standing),
        "kept_at_ms": min((at for found in kept if found and (at := _kept_at_ms(found))), default=None),
        "bytes": sum(found.file.bytes for found in kept if found is not None),
        "inputs": {
            f"{names[kind]}/{p}": _input(log, standing, kind, names[kind], p)
            for kind in INPUTS
            for p in range(partitions[kind])
        },
    }


def _kept_at_ms(kept: StoredState) -> int | None:
    """None if a later state has just replaced it."""
    try:
        return (kept.folder / kept.file.name).stat().st_mtime_ns // 1_000_000
    except FileNotFoundError:
        return None


def _input(
    log: Log | None, standing: list[JoinSummary], kind: EventKind, topic: str, partition: int
) -> dict[str, int | None]:
    progress = [one.progress.of[kind, partition] for one in standing]
    begin, end = (log.begin_offset(topic, partition), log.end_offset(topic, partition)) if log else (None, None)
    offset = min((p.next_offset for p in progress), default=begin)
    lag = None if end is None or offset is None else end - offset
    watermark_ms = min((p.watermark_ms for p in progress if p.watermark_ms is not None), default=None)
    return {"offset": offset, "end": end, "lag": lag, "watermark_ms": watermark_ms}
