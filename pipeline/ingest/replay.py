"""Replays dead letters: appends their events again to the topic and partition they came from.

For dead letters whose cause has been fixed: a missing schema, a wrongly declared column, too small a skew. An event
that is still invalid or late becomes a dead letter again, at its new offset. Each dead letter is replayed once:
replayed records carry a header that names it, so an interrupted replay continues where it stopped. Rows that `ingest`
refused never had an offset and are not replayed: correct the file and ingest it.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.formats.sealed_json import SealedJson
from pipeline.ingest.event_writer import NO_OFFSET
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.dead_letters import REASONS, read_dead_letters, readable_letters
from pipeline.logs.events.event_columns import AT
from pipeline.logs.interface.log import Log, read_to_end
from pipeline.process.crash_point import reach_crash_point

DEAD_LETTER_HEADER = "springtide.replay.letter"
"""Header of a replayed record: `partition/offset` of its dead letter."""
_APPEND_RECORDS = 1_000

TopicPartition = tuple[str, int]


@dataclass
class ReplayPlan:
    """What a replay would append.

    Attributes:
        letters: by target topic and partition, in the order of the dead letters: (the letter's id, the letter).
        reasons: number of dead letters by reason.
        replayed: number of dead letters that earlier replays appended.
        from_files: number of rows that `ingest` refused, which cannot be replayed.
    """

    letters: dict[TopicPartition, list[tuple[str, Mapping[str, Any]]]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    replayed: int = 0
    from_files: int = 0


def plan_replay(project: Project, log: Log, reasons: tuple[str, ...] = (), since_ms: int | None = None) -> ReplayPlan:
    """Plan to replay the dead letters with one of `reasons` (empty: any), appended at or after `since_ms`.

    Changes nothing. Raises InputError for a dead letter of a topic that the configuration does not name, and for a
    reason that is not known and that no dead letter has.
    """
    plan, done, seen = ReplayPlan(), _ReplayedLetters(project).replayed(log), set(REASONS)
    inputs = tuple(project.config.input_topics.values())
    for id, letter in _dead_letters(project, log, since_ms):
        seen.add(letter["reason"])
        if reasons and letter["reason"] not in reasons:
            continue
        if id in done:
            plan.replayed += 1
        elif letter["offset"] == NO_OFFSET:
            plan.from_files += 1
        else:
            _check_topic(letter, inputs, id)
            plan.letters.setdefault((letter["topic"], letter["partition"]), []).append((id, letter))
            plan.reasons[letter["reason"]] += 1
    _check_reasons(reasons, seen)
    return plan


def replay(project: Project, log: Log, plan: ReplayPlan) -> None:
    """Append the planned events and store which dead letters were replayed. One replay at a time."""
    stored, config = _ReplayedLetters(project), project.config
    codecs = {topic: EventCodec.of(project, kind, log) for kind, topic in config.input_topics.items()}
    done = stored.replayed(log)
    stored.save(done, {target: log.end_offset(*target) for target in plan.letters})
    for (topic, partition), letters in plan.letters.items():
        for start in range(0, len(letters), _APPEND_RECORDS):
            part = letters[start : start + _APPEND_RECORDS]
            headers = [{DEAD_LETTER_HEADER: id} for id, _ in part]
            log.append(topic, partition, [_event(codecs[topic], letter) for _, letter in part], headers=headers)
            reach_crash_point("replay.after_append")
    stored.save(done | {id for letters in plan.letters.values() for id, _ in letters}, {})


def _dead_letters(project: Project, log: Log, since_ms: int | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(id, columns) of each dead letter; the id is `partition/offset`."""
    topic = project.config.topics.dead_letters
    for partition in range(log.partitions(topic)):
        start = None if since_ms is None else log.offset_at(topic, partition, since_ms)
        for found in read_to_end(log, topic, partition, start):
            records = readable_letters(found)
            for record, letter in zip(records, read_dead_letters(records).table.to_pylist(), strict=True):
                yield f"{partition}/{record.offset}", letter


def _check_topic(letter: Mapping[str, Any], inputs: tuple[str, ...], id: str) -> None:
    if letter["topic"] not in inputs:
        raise InputError(
            f"dead letter {id} is of topic {letter['topic']}, the configuration has {', '.join(inputs)}. "
            "hint: restore the former names of the topics"
        )


def _check_reasons(reasons: tuple[str, ...], known: set[str]) -> None:
    unknown = [reason for reason in reasons if reason not in known]
    if unknown:
        raise InputError(f"no dead letter has reason {unknown[0]!r}. known: {', '.join(sorted(known))}")


def _event(codec: EventCodec, letter: Mapping[str, Any]) -> bytes:
    """The original record; a row of a packed record is stored as JSON and becomes a record of one event."""
    original: bytes = letter["original"]
    try:
        row = json.loads(original)
        at_ms = row.pop(AT)
        if codec.reads_json and at_ms != letter["event_at"]:
            return original  # a JSON event, whose time has another name or unit
        return codec.encode_event(at_ms, row)
    except (ValueError, AttributeError, KeyError, TypeError, InputError):
        return original


class _ReplayedLetters:
    """Which dead letters were replayed, and where an unfinished replay began; one JSON file."""

    def __init__(self, project: Project) -> None:
        self._path = project.state / "replay.json"
        self._sealed = SealedJson(
            "replay", 2, "restore it from a copy; without it dead letters would be replayed again"
        )

    def replayed(self, log: Log) -> set[str]:
        """Ids of the replayed dead letters, including those that an unfinished replay appended to the log."""
        if not self._path.exists():
            return set()
        saved = self._sealed.read(self._path)
        done = set(saved["letters"])
        for topic, partition, start in saved["unfinished"]:
            for records in read_to_end(log, topic, partition, max(start, log.begin_offset(topic, partition))):
                done |= {r.headers[DEAD_LETTER_HEADER] for r in records if DEAD_LETTER_HEADER in r.headers}
        return done

    def save(self, done: set[str], unfinished: Mapping[TopicPartition, int]) -> None:
        """Store `done` and, for an unfinished replay, the end offsets of its targets before its first append."""
        starts = [[*target, offset] for target, offset in unfinished.items()]
        self._sealed.write(self._path, {"letters": sorted(done), "unfinished": starts})
