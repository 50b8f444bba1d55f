"""The join: impressions and feedback in, labelled samples and dead letters out. A state machine over blocks.

Each pair of an impression and a feedback (clicks, purchases …) is decided for itself, by the window, horizon and policy
of the feedback; a click below is an event of any feedback. What all feedbacks share: the held impressions, which stay
as long as the longest of them needs, the watermark, and the order of samples. A sample decides the labels of one
feedback; a negative those of all feedbacks whose windows close together (`negatives`). Its other labels are null.
Candidates that were not shown meet no impression and no feedback (`unshown`).

What it emits is a set that depends on the input logs alone, not on how partitions interleave, how blocks are cut, how
often `decide` is called, or on restarts. All events of one join key in one topic must be in one partition (producers
partition by it); if the clicks of a key are in several, their order of arrival may choose among labels. The join reads
no clock and no file.

s is an impression's time, t a click's, e the later of t and its partition's watermark at the click.
- An impression below its own partition's watermark is `impression_too_late`; one whose key is known is
  `duplicate_impression`. A key is known from s until s + window + horizon of the longest feedback + key
  retention and may then be used again.
- An impression with a weight or a dense number out of its range is `weight_out_of_range` or `number_out_of_range`, one
  with weights that do not fit a list `weights_invalid`, a click with a label out of its range `label_out_of_range`: as
  if the event did not exist.
- A click belongs to the impression of its key with s <= t and e < s + window + horizon + key retention. Without one it
  is pending until the watermark of all impressions passes t + disorder; then it is `click_before_impression` if there
  is an impression within disorder after it, else `orphan_click`. (Deciding already at t would make the reason depend
  on the interleaving.)
- t >= s + window + horizon: `click_too_late`. Otherwise, with policy `wait`: the first click on time with
  t < s + window is a positive at once. All others are undecided until the smallest watermark of all partitions reaches
  s + window; the first of them then yields a compensation if there was no positive. A click whose impression has a
  label already is a `duplicate_click`.
- With policy `close`, all clicks are undecided: when the window closes, the first click on time with t < s + window is
  a positive with the decision time s + window, and one without such a click yields a compensation.
- A window that closes without a positive yields a negative, if the key's hash is below the negative rate.
- Policy `fake_negative`: the negative is emitted at once, and so is a compensation for the first click.

Order: samples are emitted in the order of their decision times, however far partitions are read ahead of each other.
Inputs with more records to read limit what is decided: clicks after the smallest of their max event times remain
pending, and so do negatives of the policy `fake_negative`. What still leaves out of order is late input: an event may
be `disorder` behind its partition, and a click may be attributed `disorder` after its time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import DeadLetters, EventBlock, EventKind
from pipeline.arrays.gather import RowSelection
from pipeline.arrays.keys import ids128
from pipeline.arrays.types import Bools, UInt8s
from pipeline.configuration.config import Config
from pipeline.configuration.streams.events import IMPRESSIONS
from pipeline.logs.events.sample_block import sample_schema
from pipeline.samples.held.durations import Durations
from pipeline.samples.held.held_impressions import HeldImpressions
from pipeline.samples.held.open_windows import NEVER_MS
from pipeline.samples.held.rows import held_rows
from pipeline.samples.join.attribution import Attribution
from pipeline.samples.join.counts import EmittedCounts
from pipeline.samples.join.dead_letters import concatenate_dead_letters
from pipeline.samples.join.decided import Decided
from pipeline.samples.join.negative_sampling import NegativeSampling
from pipeline.samples.join.negatives import closing_together
from pipeline.samples.join.progress import emitted
from pipeline.samples.join.progress.emitted import USED, EmittedPositions
from pipeline.samples.join.progress.input_progress import Input, InputProgress
from pipeline.samples.join.ranges import Ranges
from pipeline.samples.join.samples import Samples
from pipeline.samples.join.unshown import new_unshown

_DECIDE_EVERY_ROWS = 65_536
"""The rows that are fed before the join decides, so that it holds no more in a long bundle than in a short one."""


@dataclass(frozen=True)
class Decisions:
    """The samples and dead letters that a bundle decided."""

    samples: Samples
    dead: DeadLetters


class _FurtherInput(Protocol):
    """What the events of an input besides the impressions go to: an attribution, or the candidates.

    Attributes:
        kind: of its events.
        idle: whether nothing waits.
    """

    @property
    def kind(self) -> EventKind: ...

    @property
    def idle(self) -> bool: ...

    def feed(self, block: EventBlock) -> None: ...

    def settle(self, watermark_ms: int) -> None: ...

    def emitted_in(self, batch: pa.RecordBatch) -> np.ndarray: ...

    def drop_emitted(self, positions: EmittedPositions) -> None: ...

    def lowest_offsets(self) -> Mapping[int, int]: ...


class Join:
    """One shard's join. Not thread-safe.

    Attributes:
        inputs: the number of each input in source positions, by kind: impressions 0, then the feedbacks, then the
            candidates that were not shown.
        progress: offsets and watermarks of every input partition.
        held: impressions.
        attributions: by feedback, which clicks wait and what they decide.
        unshown: candidates that were not shown; None if none are logged.
        emitted_positions: positions that the shard's partitions contain beyond this state.
        counts: what the shard's partitions contain.
        unfinished: inputs with more records to read now; the caller sets it before blocks are fed.
    """

    def __init__(self, config: Config, shard: int, input_partitions: Mapping[EventKind, int]) -> None:
        self.config, self.shard, self.durations = config, shard, Durations.of(config)
        self._topics = config.input_topics
        self.inputs = {kind: number for number, kind in enumerate(self._topics)}
        self.progress = InputProgress(input_partitions)
        feedbacks = len(config.feedbacks)
        self.held = HeldImpressions(self.durations, feedbacks)
        self._decided = Decided()
        self.attributions = tuple(Attribution(config, n, self.held, self._decided) for n in range(feedbacks))
        self.unshown = new_unshown(config, feedbacks + 1, self._decided)
        unshown = () if self.unshown is None else (self.unshown,)
        self._further: tuple[_FurtherInput, ...] = (*self.attributions, *unshown)
        self.emitted_positions = EmittedPositions()
        self.counts = EmittedCounts(self._topics, config.feedbacks)
        self._schema, self._ranges = sample_schema(config), Ranges(config)
        self._windows = closing_together(self.attributions)
        self._sampling = NegativeSampling(config.samples.negative_rate)
        self._undecided_rows = 0
        self.unfinished: Collection[Input] = ()

    def feed(self, block: EventBlock) -> None:
        """Process this shard's rows of a block; blocks of one partition in log order.

        A block without rows only advances offset and watermark. Rows below the partition's next offset were processed
        before and are skipped.
        """
        next_offset = self.progress.of[block.kind, block.partition].next_offset
        if block.next_offset <= next_offset:
            return
        number = self.inputs[block.kind]
        flags = self.emitted_positions.flags(number, block.partition, block.offsets, block.rows)
        new = (block.offsets >= next_offset) & (flags & USED == 0)
        if not new.all():
            block, flags = block.take(np.flatnonzero(new)), flags[new]
        if len(block) and not number:
            self._hold(block, flags)
        elif len(block):
            self._further[number - 1].feed(block)
        self.progress.advance(block)
        self._undecided_rows += len(block)
        if self._undecided_rows >= _DECIDE_EVERY_ROWS:
            self._decide()

    def decide(self) -> Decisions:
        """Decide everything that can be decided; returns what was decided since the last call."""
        self._decide()
        decided, dead = self._decided.take()
        self.progress.prune(self._lowest_offsets())
        self._drop_read_positions()
        decisions = Decisions(Samples(self.config, self._schema, decided), concatenate_dead_letters(dead))
        self.counts.add_samples(decisions.samples)
        self.counts.add_dead(decisions.dead)
        return decisions

    @property
    def settled(self) -> bool:
        """Whether everything that was fed is held or was returned by `decide`: true directly after `decide`."""
        return not self._decided and all(each.settled for each in self.attributions)

    @property
    def watermark_ms(self) -> int | None:
        """The smallest watermark over all input partitions; None while one of them has none."""
        return self.progress.watermark(self.inputs)

    @property
    def pending(self) -> int:
        """How many clicks wait for their impression."""
        return sum(len(each.pending) for each in self.attributions)

    @property
    def undecided(self) -> int:
        """How many clicks wait for their window to close."""
        return sum(len(each.undecided) for each in self.attributions)

    @property
    def _empty(self) -> bool:
        """Whether nothing is held and nothing waits."""
        return not self.held.buckets and all(each.idle for each in self._further)

    def needed_offsets(self) -> dict[str, int]:
        """Per `topic/partition`, the offset to restart at without a state; directly after `decide`."""
        return {self._name(at): offset for at, (offset, _) in self.progress.restart_points().items()}

    def needed_watermarks(self) -> dict[str, int]:
        """Per `topic/partition`, the watermark (ms) before the needed offset; absent without one."""
        points = self.progress.restart_points()
        return {self._name(at): watermark for at, (_, watermark) in points.items() if watermark is not None}

    def begin(self, kind: EventKind, partition: int, offset: int, watermark_ms: int | None) -> None:
        """Start a partition at `offset`, with the watermark before it."""
        self.progress.begin((kind, partition), offset, watermark_ms)

    def restore_emitted(self, blocks: Sequence[pa.RecordBatch], dead: Sequence[DeadLetters] = ()) -> None:
        """Restore which samples and dead letters the shard's partitions contain beyond this state.

        They are not emitted again, and the join continues as if it had emitted them from this state.
        """
        for block in blocks:
            self.counts.add_block(block)
        for letters in dead:
            self.counts.add_dead(letters)
        rows = [each.emitted_in(block) for each in self._further for block in blocks]
        rows += [emitted.emitted_by_dead_letters(letters.table, self._topics.values()) for letters in dead]
        positions = np.concatenate([np.zeros(0, emitted.EMITTED), *rows])
        if self._empty:
            positions = self._not_yet_read(positions)
        if not len(positions):
            return
        self.emitted_positions.add(positions)
        for bucket in self.held.buckets.values():
            held = bucket.rows
            for feedback in range(len(self.attributions)):
                flags = self.emitted_positions.flags(-feedback, held["partition"], held["offset"], held["row"])
                bucket.flags(feedback)[:] |= flags & ~np.uint8(USED)
        for each in self._further:
            each.drop_emitted(self.emitted_positions)
        self._drop_read_positions()

    def _not_yet_read(self, positions: np.ndarray) -> np.ndarray:
        """The positions in input that was not read yet: a join that holds nothing needs no others."""
        ahead = np.zeros(len(positions), np.bool_)
        for (kind, partition), at in self.progress.of.items():
            numbers = np.maximum(positions["input"], 0)
            here = (numbers == self.inputs[kind]) & (positions["partition"] == partition)
            ahead |= here & (positions["offset"] >= at.next_offset)
        return positions[ahead]

    def _drop_read_positions(self) -> None:
        for (kind, partition), at in self.progress.of.items():
            self.emitted_positions.drop_below(self.inputs[kind], partition, at.next_offset)

    def _hold(self, block: EventBlock, flags: UInt8s) -> None:
        rows = held_rows(block, ids128(block.columns, self.config.events.key), flags)
        columns = block.columns
        late = block.at_ms < block.watermarks_ms
        self._add_dead("impression_too_late", rows, columns, late)
        unfit = late
        for reason, wrong in self._ranges.impressions(columns, block.at_ms):
            self._add_dead(reason, rows, columns, wrong & ~unfit)
            unfit = unfit | wrong
        if unfit.any():
            fit = np.flatnonzero(~unfit)
            rows, columns = rows.take(fit), RowSelection.of(columns, fit).gather()
        held = self.held.hold(rows, columns)
        if not held.all():
            self._add_dead("duplicate_impression", rows, columns, ~held)
        if len(self.attributions) > 1 and len(self.emitted_positions):
            self._restore_flags(rows.take(np.flatnonzero(held)))

    def _restore_flags(self, rows: np.ndarray) -> None:
        """Set the flags of impressions that are held now and were emitted, for all feedbacks but the first."""
        for feedback in range(1, len(self.attributions)):
            flags = self.emitted_positions.flags(-feedback, rows["partition"], rows["offset"], rows["row"])
            if flags.any():
                found = rows[flags != 0]
                places, _, _ = self.held.find(np.ascontiguousarray(found["id"]), np.ascontiguousarray(found["at"]))
                for flag in (emitted.POSITIVE, emitted.NEGATIVE, emitted.COMPENSATED):
                    self.held.set_flags(places[flags[flags != 0] & flag != 0], flag, feedback)

    def _decide(self) -> None:
        self._undecided_rows = 0
        limit_ms, watermark_ms = self._limit_ms(), self.watermark_ms
        of_impressions_ms = self.progress.watermark((IMPRESSIONS,))
        for each in self.attributions:
            each.attribute(limit_ms, of_impressions_ms)
        if watermark_ms is not None:
            for each in self.attributions:
                each.settle_positives(watermark_ms)
        for windows in self._windows:
            closed_at_ms = limit_ms if windows.fake else watermark_ms
            if closed_at_ms is not None:
                for negatives in windows.close(self.held, closed_at_ms - windows.after_ms, self._sampling):
                    self._decided.add(negatives)
        if watermark_ms is None:
            return
        for further in self._further:
            further.settle(watermark_ms)
        self.held.remove_expired(watermark_ms)

    def _limit_ms(self) -> int:
        """The time up to which clicks may be attributed and negatives of `fake_negative` emitted."""
        if not self.unfinished:
            return NEVER_MS - 1
        return self.progress.max_event_time(self.unfinished, self.durations.disorder_ms)

    def _add_dead(self, reason: str, rows: np.ndarray, columns: pa.RecordBatch, which: Bools) -> None:
        self._decided.add_dead(reason, self._topics[IMPRESSIONS], rows, columns, which)

    def _lowest_offsets(self) -> dict[Input, int]:
        lowest: dict[Input, int] = {(IMPRESSIONS, p): o for p, o in self.held.lowest_offsets().items()}
        for each in self._further:
            lowest |= {(each.kind, p): o for p, o in each.lowest_offsets().items()}
        return lowest

    def _name(self, at: Input) -> str:
        return f"{self._topics[at[0]]}/{at[1]}"
