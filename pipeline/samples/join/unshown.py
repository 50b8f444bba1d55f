"""Candidates that a request ranked and did not show: rows that become samples of their own once their window closes.

A candidate has no impression and no click. Its sample has no value of any label, and the logged score of the fine
ranker. It leaves `window` after its time, as the samples of impressions with the policy `close` do: those of a request
whose impressions and candidates have one time leave together.

- A candidate below its own partition's watermark is `candidate_too_late`, one without a score from 0 to 1
  `score_out_of_range`; numbers and weights are checked as those of impressions.
- Of candidates with one join key and one time, the first by source position is emitted, the others are
  `duplicate_candidate`: another one either waits beside the first, or is late.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.block import EventBlock
from pipeline.arrays.gather import RowSelection
from pipeline.configuration.config import Config
from pipeline.configuration.streams.events import CANDIDATES, CandidateEvents
from pipeline.features.dense import outside
from pipeline.logs.events.event_columns import arrow_schema, resolve_columns
from pipeline.samples.held.rows import Source
from pipeline.samples.join import samples
from pipeline.samples.join.clicks import Clicks
from pipeline.samples.join.decided import Decided
from pipeline.samples.join.progress.emitted import EmittedPositions, emitted_by_candidates
from pipeline.samples.join.ranges import Ranges
from pipeline.samples.join.samples import DecidedSamples
from pipeline.samples.join.waiting import WaitingClicks


class Unshown:
    """Not thread-safe.

    Attributes:
        kind: of their input.
        waiting: candidates whose windows are open, typed and stored as clicks are.
    """

    kind = CANDIDATES

    def __init__(self, config: Config, events: CandidateEvents, number: int, decided: Decided) -> None:
        """`number`: of their input in source positions."""
        self._key, self._score, self._topic, self._number = config.events.key, events.score, events.topic, number
        self._window_ms, self._decided = round(1000 * config.candidate_window_s), decided
        self._schema, self._ranges = arrow_schema(config.events.impressions.columns), Ranges(config)
        self.waiting = WaitingClicks(events, "at")

    def feed(self, block: EventBlock) -> None:
        """Receive the candidates of a block; unfit ones are dead letters."""
        found = Clicks.of(block, self._key)
        unfit = found.rows["late"].copy()
        self._set_aside("candidate_too_late", found, unfit)
        score = found.columns.column(self._score)
        wrong = outside(score, 0.0, 1.0) | score.is_null().to_numpy(zero_copy_only=False)
        self._set_aside("score_out_of_range", found, wrong & ~unfit)
        unfit |= wrong
        for reason, wrong in self._ranges.impressions(self._as_impressions(found), block.at_ms):
            self._set_aside(reason, found, wrong & ~unfit)
            unfit |= wrong
        self.waiting.add(found.where(~unfit))

    def settle(self, watermark_ms: int) -> None:
        """Emit the candidates whose windows are closed at the smallest watermark of all inputs."""
        closed = self.waiting.release(watermark_ms - self._window_ms)
        if not len(closed):
            return
        # Only after the score was declared as another column: a state holds the columns of before.
        lost = closed.columns.column(self._score).is_null().to_numpy(zero_copy_only=False)
        self._set_aside("score_out_of_range", closed, lost)
        closed = closed.where(~lost)
        first = _first_of_each(closed.rows)
        self._set_aside("duplicate_candidate", closed, ~first)
        emitted = closed.where(first)
        if not len(emitted):
            return
        raw, n = self._as_impressions(emitted), len(emitted)
        self._decided.add(
            DecidedSamples(
                samples.CANDIDATE,
                emitted.rows["at"] + self._window_ms,
                Source.of(emitted.rows),
                np.zeros(n, np.bool_),
                RowSelection.of(raw, np.arange(n)),
                decides=np.zeros(n, np.uint64),
                scores=np.asarray(pc.cast(emitted.columns.column(self._score), pa.float32()), np.float32),
            )
        )

    def emitted_in(self, batch: pa.RecordBatch) -> np.ndarray:
        """[m] EMITTED of a block of samples: its candidates, as used."""
        return emitted_by_candidates(self._number, batch)

    def drop_emitted(self, positions: EmittedPositions) -> None:
        """Drop the waiting candidates about which something was emitted."""
        candidates = self.waiting.in_order()
        self.waiting.replace(candidates.where(~positions.known(self._number, candidates.rows)))

    @property
    def idle(self) -> bool:
        """Whether no candidate waits."""
        return not len(self.waiting)

    def lowest_offsets(self) -> Mapping[int, int]:
        """By partition, the lowest source offset of a waiting candidate."""
        return self.waiting.lowest_offsets()

    def _as_impressions(self, candidates: Clicks) -> pa.RecordBatch:
        """Their columns as impressions have them; one that candidates lack is null."""
        return resolve_columns(candidates.columns, self._schema)

    def _set_aside(self, reason: str, candidates: Clicks, which: np.ndarray) -> None:
        self._decided.add_dead(reason, self._topic, candidates.rows, candidates.columns, which)


def new_unshown(config: Config, number: int, decided: Decided) -> Unshown | None:
    """The candidates of a configuration; None if none are logged."""
    events = config.events.candidates
    return None if events is None else Unshown(config, events, number, decided)


def _first_of_each(rows: np.ndarray) -> np.ndarray:
    """[n] whether a row is the first of its id and time, by source position."""
    names = ("row", "offset", "partition", "at")
    order = np.lexsort([*(rows[name] for name in names), rows["id"][:, 1], rows["id"][:, 0]])
    ids, at = rows["id"][order], rows["at"][order]
    same = (ids[1:] == ids[:-1]).all(axis=1) & (at[1:] == at[:-1])
    first = np.ones(len(rows), np.bool_)
    first[order[1:][same]] = False
    return first
