"""Replays dead letters: what was set aside goes back to the topic and partition it came from, to be judged again.

For letters whose reason is gone: a schema that was missing, a column that was declared wrongly, a skew that was too
narrow. Nothing is forgiven: an event that is still late is set aside again, at its new position. A letter is replayed
once; a run that was interrupted goes on, for each record says which letter it is.

Letters of rows that `ingest` refused never had a place in a topic: correct the file and ingest it.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.formats.atomic_file import write_atomically
from pipeline.ingest.ingest import NO_OFFSET
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.dead_letters import read_dead_letters
from pipeline.logs.events.event_columns import AT
from pipeline.logs.log import Log, runs_of
from pipeline.process.crash_point import reach_crash_point

LETTER = "springtide.replay.letter"
"""Header of a replayed record: `partition/offset` of its letter."""
_APPEND = 1_000

Place = tuple[str, int]


@dataclass
class ReplayPlan:
    """What a replay appends.

    Attributes:
        letters: by target topic and partition, in the order they were set aside: the letter's name, the event's bytes.
        reasons: how many of each reason.
        replayed: letters that an earlier replay took.
        from_files: letters of rows that `ingest` refused, which cannot be replayed.
    """

    letters: dict[Place, list[tuple[str, bytes]]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    replayed: int = 0
    from_files: int = 0


def plan_replay(project: Project, log: Log, reasons: tuple[str, ...] = (), since_ms: int | None = None) -> ReplayPlan:
    """What would be appended: the letters with one of `reasons`, all without any, set aside at or after `since_ms`.

    Raises InputError for a letter of a topic that the configuration does not name.
    """
    plan, done = ReplayPlan(), _Ledger(project).done(log)
    codecs = _codecs(project, log)
    for name, letter in _letters(project, log, since_ms):
        if reasons and letter["reason"] not in reasons:
            continue
        if name in done:
            plan.replayed += 1
        elif letter["offset"] == NO_OFFSET:
            plan.from_files += 1
        else:
            value = _event(_codec_of(letter, codecs, name), letter["original"])
            plan.letters.setdefault((letter["topic"], letter["partition"]), []).append((name, value))
            plan.reasons[letter["reason"]] += 1
    return plan


def replay(project: Project, log: Log, plan: ReplayPlan) -> None:
    """Append what the plan says, and keep in mind that it was. One replay at a time."""
    ledger = _Ledger(project)
    done = ledger.done(log)
    ledger.keep(done, {place: log.end_offset(*place) for place in plan.letters})
    for (topic, partition), letters in plan.letters.items():
        for start in range(0, len(letters), _APPEND):
            part = letters[start : start + _APPEND]
            log.append(topic, partition, [value for _, value in part], headers=[{LETTER: name} for name, _ in part])
            reach_crash_point("replay.after_append")
    ledger.keep(done | {name for letters in plan.letters.values() for name, _ in letters}, {})


def _letters(project: Project, log: Log, since_ms: int | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    topic = project.config.topics.dead_letters
    for partition in range(log.partitions(topic)):
        start = None if since_ms is None else log.offset_at(topic, partition, since_ms)
        for records in runs_of(log, topic, partition, start):
            for record, letter in zip(records, read_dead_letters(records).table.to_pylist(), strict=True):
                yield f"{partition}/{record.offset}", letter


def _codecs(project: Project, log: Log) -> dict[str, EventCodec]:
    config = project.config
    return {topic: EventCodec(config.events, kind, log) for kind, topic in config.topics.inputs.items()}


def _codec_of(letter: Mapping[str, Any], codecs: Mapping[str, EventCodec], name: str) -> EventCodec:
    if letter["topic"] not in codecs:
        raise InputError(
            f"dead letter {name} is of topic {letter['topic']}, the configuration has {', '.join(codecs)}. "
            "hint: name the topics as they were"
        )
    return codecs[letter["topic"]]


def _event(codec: EventCodec, original: bytes) -> bytes:
    """A record as it was; of a row that was packed with others, which is kept as JSON, an event of its own."""
    try:
        row = json.loads(original)
        return codec.encode_event(row.pop(AT), row)
    except (ValueError, AttributeError, KeyError, TypeError, InputError):
        return original


class _Ledger:
    """Which letters were replayed, and where an unfinished replay began. One file."""

    def __init__(self, project: Project) -> None:
        self._path: Path = project.state / "replay.json"

    def done(self, log: Log) -> set[str]:
        """The letters that the logs have been given again, those of an unfinished replay among them."""
        if not self._path.exists():
            return set()
        kept = json.loads(self._path.read_text(encoding="utf-8"))
        done = set(kept["letters"])
        for topic, partition, start in kept["unfinished"]:
            for records in runs_of(log, topic, partition, max(start, log.begin_offset(topic, partition))):
                done |= {record.headers[LETTER] for record in records if LETTER in record.headers}
        return done

    def keep(self, done: set[str], unfinished: Mapping[Place, int]) -> None:
        """Remember `done`; beyond it the targets may hold more, from the offsets of `unfinished` on."""
        starts = [[*place, offset] for place, offset in unfinished.items()]
        write_atomically(self._path, [json.dumps({"letters": sorted(done), "unfinished": starts}).encode()])
