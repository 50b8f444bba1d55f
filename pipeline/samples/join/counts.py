"""How many samples and dead letters a shard has emitted, by kind of event.

They are counted when they are decided, and after a restart when they are read again: they are the numbers in the
shard's own partitions, whatever was killed in between.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.block import DeadLetters, EventKind
from pipeline.configuration.streams.events import CANDIDATES
from pipeline.configuration.streams.feedbacks import Feedback
from pipeline.logs.events.sample_block import CANDIDATE, KINDS, of_kind
from pipeline.samples.join.progress.emitted import decided_by
from pipeline.samples.join.samples import Samples

TOO_LATE = frozenset({"impression_too_late", "click_too_late", "candidate_too_late"})
"""Reasons of dead letters whose events came too late."""


class EmittedCounts:
    """Not thread-safe."""

    def __init__(self, topics: Mapping[EventKind, str], feedbacks: Sequence[Feedback]) -> None:
        """`topics` are those of the inputs, by kind."""
        self._kinds = {topic: kind for kind, topic in topics.items()}
        self._feedbacks = feedbacks
        self._of: dict[EventKind, Counter[str]] = {kind: Counter() for kind in topics}

    def add_samples(self, samples: Samples) -> None:
        """Count samples: each for every feedback whose labels it decides, a candidate for itself."""
        for number, kinds in enumerate(samples.kinds_by_feedback(len(self._feedbacks))):
            self._of[self._feedbacks[number].kind].update(kinds)
        if CANDIDATES in self._of:
            self._add_candidates(samples.kinds().get(CANDIDATE))

    def add_block(self, batch: pa.RecordBatch) -> None:
        """Count the samples of a block that was read again."""
        kinds = batch.column("kind").cast(pa.string())
        for feedback in self._feedbacks:
            decided = kinds.filter(pa.array(decided_by(feedback, batch)))
            counts = pc.value_counts(decided).to_pylist()
            self._of[feedback.kind].update({count["values"]: count["counts"] for count in counts})
        if CANDIDATES in self._of:
            self._add_candidates(int(of_kind(batch, CANDIDATE).sum()))

    def add_dead(self, letters: DeadLetters) -> None:
        """Count dead letters; those that were in no input topic (offset -1) are not the join's."""
        table = letters.table
        if not table.num_rows:  # mostly: a filter of nothing costs as much as closing a thousand windows
            return
        own = table.filter(pc.greater_equal(table.column("offset"), 0))
        found = Counter(zip(own.column("topic").to_pylist(), own.column("reason").to_pylist(), strict=True))
        for (topic, reason), count in found.items():
            if topic in self._kinds:
                self._of[self._kinds[topic]][reason] += count

    def to_json(self) -> dict[EventKind, dict[str, int]]:
        return {kind: dict(sorted(counts.items())) for kind, counts in self._of.items()}

    def restore(self, stored: Mapping[EventKind, Mapping[str, int]]) -> None:
        """Continue from `to_json`; a kind that is not configured any more is dropped."""
        for kind, counts in stored.items():
            if kind in self._of:
                self._of[kind].update(counts)

    def _add_candidates(self, count: int | None) -> None:
        if count:
            self._of[CANDIDATES][CANDIDATE] += count


def feedback_counts(stored: Sequence[Mapping[EventKind, Mapping[str, int]]]) -> dict[EventKind, dict[str, Any]]:
    """The counts of all shards by kind, for people and JSON.

    >>> counts = {"clicks": {"positive": 2, "compensation": 1, "click_too_late": 4, "orphan_click": 1}}
    >>> feedback_counts([counts])["clicks"]["joined"], feedback_counts([counts, counts])["clicks"]["late"]
    (3, 8)
    """
    found: dict[EventKind, dict[str, Any]] = {}
    for kind in dict.fromkeys(kind for counts in stored for kind in counts):
        total = Counter[str]()
        for counts in stored:
            total.update(counts.get(kind, {}))
        samples = {name: total.pop(name, 0) for name in KINDS}
        found[kind] = {
            "joined": samples["positive"] + samples["compensation"] + samples[CANDIDATE],
            "negatives": samples["negative"],
            "compensations": samples["compensation"],
            "late": sum(total[reason] for reason in TOO_LATE),
            "set_aside": dict(sorted(total.items())),
        }
    return found
