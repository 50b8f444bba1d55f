"""The join: impressions and clicks in, labelled samples and dead letters out. A state machine over blocks.

What it emits is a set that depends on the input logs alone, not on how partitions interleave, how blocks are cut, how
often `decide` is called, or on restarts. All events of one join key in one topic must be in one partition (producers
partition by it); if the clicks of a key are in several, their order of arrival may choose among labels. The join reads
no clock and no file.

s is an impression's time, t a click's, e the later of t and its partition's watermark at the click.
- An impression below its own partition's watermark is `impression_too_late`; one whose key is known is
  `duplicate_impression`. A key is known from s until s + window + horizon + key retention and may then be used again.
- An impression with a weight or a dense number out of its range is `weight_out_of_range` or `number_out_of_range`, a
  click with such a label `label_out_of_range`: as if the event did not exist.
- A click belongs to the impression of its key with s <= t and e < s + window + horizon + key retention. Without one it
  is pending until the watermark of all impressions passes t + disorder; then it is `click_before_impression` if there
  is an impression within disorder after it, else `orphan_click`. (Deciding already at t would make the reason depend
  on the interleaving.)
- t >= s + window + horizon: `click_too_late`. Otherwise, with policy `wait`: the first click on time with
  t < s + window is a positive at once. All others are candidates until the smallest watermark of all partitions reaches
  s + window; the first of them then yields a compensation if there was no positive. A click whose impression has a
  label already is a `duplicate_click`.
- A window that closes without a positive yields a negative, if the key's hash is below the negative rate.
- Policy `fake_negative`: the negative is emitted at once, and so is a compensation for the first click.

Order: samples are emitted in the order of their decision times, however far partitions are read ahead of each other.
Inputs with more records to read limit what is decided: clicks after the smallest of their max event times remain
pending, and so do negatives of the policy `fake_negative`. What still leaves out of order is late input: an event may
be `disorder` behind its partition, and a click may be attributed `disorder` after its time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import DeadLetters, EventBlock, EventKind
from pipeline.arrays.gather import RowSelection
from pipeline.arrays.keys import ids128
from pipeline.arrays.structured import concatenate_rows
from pipeline.arrays.types import Bools, Int64s, UInt8s
from pipeline.configuration.config import Config
from pipeline.logs.events.sample_block import sample_schema
from pipeline.samples.join import emitted, samples
from pipeline.samples.join.bucket import NEVER_MS
from pipeline.samples.join.clicks import Clicks
from pipeline.samples.join.dead_letters import concatenate_dead_letters, dead_letters
from pipeline.samples.join.durations import Durations
from pipeline.samples.join.emitted import INPUTS, USED, EmittedPositions
from pipeline.samples.join.held_impressions import HeldImpressions
from pipeline.samples.join.index import NONE
from pipeline.samples.join.input_progress import Input, InputProgress
from pipeline.samples.join.ranges import Ranges
from pipeline.samples.join.rows import EmissionFilter, Source, held_rows, sources_of
from pipeline.samples.join.samples import DecidedSamples, Samples

_DECIDE_EVERY_ROWS = 65_536
"""The rows that are fed before the join decides, so that it holds no more in a long bundle than in a short one."""
_LABELLED = emitted.POSITIVE | emitted.COMPENSATED


@dataclass(frozen=True)
class Decisions:
    """The samples and dead letters that a bundle decided."""

    samples: Samples
    dead: DeadLetters


class Join:
    """One shard's join. Not thread-safe.

    Attributes:
        progress: offsets and watermarks of every input partition.
        held: impressions.
        pending: clicks without an impression yet.
        candidates: clicks that may yield a compensation when their window closes.
        emitted_positions: positions that the shard's partitions contain beyond this state.
        unfinished: inputs with more records to read now; the caller sets it before blocks are fed.
    """

    def __init__(self, config: Config, shard: int, input_partitions: Mapping[EventKind, int]) -> None:
        self.config, self.shard, self.durations = config, shard, Durations.of(config)
        self.progress = InputProgress(input_partitions)
        self.held = HeldImpressions(self.durations)
        self.pending, self.candidates = Clicks.empty(config), Clicks.empty(config)
        self.emitted_positions = EmittedPositions()
        self._schema, self._ranges = sample_schema(config), Ranges(config)
        self._fake = config.samples.policy == "fake_negative"
        self._topics = config.topics.inputs
        self._arrived: list[Clicks] = []
        self._samples: list[DecidedSamples] = []
        self._dead: list[DeadLetters] = []
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
        flags = self.emitted_positions.flags(block.kind, block.partition, block.offsets, block.rows)
        new = (block.offsets >= next_offset) & (flags & USED == 0)
        if not new.all():
            block, flags = block.take(np.flatnonzero(new)), flags[new]
        if len(block) and block.kind == "impressions":
            self._hold(block, flags)
        elif len(block):
            clicks = Clicks.of(block, self.config.events.key)
            wrong = self._ranges.clicks(clicks.columns)
            self._add_dead("label_out_of_range", "clicks", clicks.rows, clicks.columns, wrong)
            self._arrived.append(clicks.where(~wrong))
        self.progress.advance(block)
        self._undecided_rows += len(block)
        if self._undecided_rows >= _DECIDE_EVERY_ROWS:
            self._decide()

    def decide(self) -> Decisions:
        """Decide everything that can be decided; returns what was decided since the last call."""
        self._decide()
        decided, dead = self._samples, self._dead
        self._samples, self._dead = [], []
        self.progress.prune(self._lowest_offsets())
        self._drop_read_positions()
        return Decisions(Samples(self.config, self._schema, decided), concatenate_dead_letters(dead))

    @property
    def settled(self) -> bool:
        """Whether everything that was fed is held or was returned by `decide`: true directly after `decide`."""
        return not (self._arrived or self._samples or self._dead)

    @property
    def watermark_ms(self) -> int | None:
        """The smallest watermark over all input partitions; None while one of them has none."""
        return self.progress.watermark(INPUTS)

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
        rows = [emitted.emitted_by_samples(block) for block in blocks]
        rows += [emitted.emitted_by_dead_letters(letters.table, self._topics) for letters in dead]
        positions = np.concatenate([np.zeros(0, emitted.EMITTED), *rows])
        if not self.held.buckets and not len(self.pending) and not len(self.candidates):
            positions = self._not_yet_read(positions)
        if not len(positions):
            return
        self.emitted_positions.add(positions)
        for bucket in self.held.buckets.values():
            held = bucket.rows
            flags = self.emitted_positions.flags("impressions", held["partition"], held["offset"], held["row"])
            held["flags"] |= flags & ~np.uint8(USED)
        self.pending, self.candidates = self._not_yet_emitted(self.pending), self._not_yet_emitted(self.candidates)
        self._drop_read_positions()

    def _not_yet_read(self, positions: np.ndarray) -> np.ndarray:
        """The positions in input that was not read yet: a join that holds nothing needs no others."""
        ahead = np.zeros(len(positions), np.bool_)
        for (kind, partition), at in self.progress.of.items():
            here = (positions["input"] == INPUTS.index(kind)) & (positions["partition"] == partition)
            ahead |= here & (positions["offset"] >= at.next_offset)
        return positions[ahead]

    def _not_yet_emitted(self, clicks: Clicks) -> Clicks:
        rows = clicks.rows
        return clicks.where(self.emitted_positions.flags("clicks", rows["partition"], rows["offset"], rows["row"]) == 0)

    def _drop_read_positions(self) -> None:
        for (kind, partition), at in self.progress.of.items():
            self.emitted_positions.drop_below(kind, partition, at.next_offset)

    def _hold(self, block: EventBlock, flags: UInt8s) -> None:
        rows = held_rows(block, ids128(block.columns, self.config.events.key), flags)
        columns = block.columns
        late = block.at_ms < block.watermarks_ms
        self._add_dead("impression_too_late", "impressions", rows, columns, late)
        unfit = late
        for reason, wrong in self._ranges.impressions(columns, block.at_ms):
            self._add_dead(reason, "impressions", rows, columns, wrong & ~unfit)
            unfit = unfit | wrong
        if unfit.any():
            fit = np.flatnonzero(~unfit)
            rows, columns = rows.take(fit), RowSelection.of(columns, fit).gather()
        held = self.held.hold(rows, columns)
        if not held.all():
            self._add_dead("duplicate_impression", "impressions", rows, columns, ~held)

    def _decide(self) -> None:
        self._undecided_rows = 0
        limit_ms = self._limit_ms()
        clicks = Clicks.concatenate([self.pending, *self._arrived])
        self._arrived = []
        due, later = clicks.split_at(limit_ms)
        self.pending = Clicks.concatenate([self._attribute(due), later])
        if self._fake:
            self._close_windows(limit_ms, 0)
        watermark_ms = self.watermark_ms
        if watermark_ms is None:
            return
        if not self._fake:
            self._close_windows(watermark_ms - self.durations.window_ms, self.durations.window_ms)
        self._settle_candidates(watermark_ms - self.durations.window_ms)
        self.held.remove_expired(watermark_ms)

    def _limit_ms(self) -> int:
        """The time up to which clicks may be attributed and negatives of `fake_negative` emitted."""
        if not self.unfinished:
            return NEVER_MS - 1
        return self.progress.max_event_time(self.unfinished, self.durations.disorder_ms)

    def _attribute(self, clicks: Clicks) -> Clicks:
        """Attribute clicks to their impressions and decide those that have none; returns those that are pending."""
        if not len(clicks):
            return clicks
        at, effective = clicks.rows["at"], clicks.rows["effective"]
        places, times, next_at = self.held.find(clicks.ids(), at)
        known = (places != NONE) & (effective - self.durations.known_ms < times)
        clicks.rows["place"], clicks.rows["impression_at"] = places, times
        self._decide_attributed(clicks.where(known))
        watermark_ms = self.progress.watermark(("impressions",))
        if watermark_ms is None:
            return clicks.where(~known)
        pending = ~known & (at + self.durations.disorder_ms >= watermark_ms)
        before = (next_at <= at + self.durations.disorder_ms) & (effective - self.durations.held_ms < next_at)
        lost = ~known & ~pending
        self._add_dead("click_before_impression", "clicks", clicks.rows, clicks.columns, lost & before)
        self._add_dead("orphan_click", "clicks", clicks.rows, clicks.columns, lost & ~before)
        return clicks.where(pending)

    def _decide_attributed(self, clicks: Clicks) -> None:
        rows, durations = clicks.rows, self.durations
        too_late = rows["at"] - rows["impression_at"] >= durations.attributed_ms
        self._add_dead("click_too_late", "clicks", rows, clicks.columns, too_late)
        if self._fake:
            self._compensate(clicks.where(~too_late))
            return
        in_window = ~rows["late"] & (rows["at"] - rows["impression_at"] < durations.window_ms) & ~too_late
        # Only a restored emission can have closed the window of such a click: the negative that was emitted is final.
        in_window &= self.held.rows_at(np.ascontiguousarray(rows["place"]))["flags"] & emitted.NEGATIVE == 0
        positives = self._first_of_each(clicks.where(in_window), emitted.POSITIVE)
        self._emit_clicks(samples.POSITIVE, positives, positives.rows["at"])
        self.candidates = Clicks.concatenate([self.candidates, clicks.where(~in_window & ~too_late)])

    def _settle_candidates(self, closed_at_ms: int) -> None:
        due = self.candidates.rows["impression_at"] <= closed_at_ms
        if due.any():
            settled, self.candidates = self.candidates.where(due), self.candidates.where(~due)
            self._compensate(settled)

    def _compensate(self, clicks: Clicks) -> None:
        first = self._first_of_each(clicks, emitted.COMPENSATED)
        closes_at = first.rows["impression_at"] + (0 if self._fake else self.durations.window_ms)
        self._emit_clicks(samples.COMPENSATION, first, np.maximum(first.rows["at"], closes_at))

    def _first_of_each(self, clicks: Clicks, flag: int) -> Clicks:
        """The first click of each impression without a label, which gets `flag`; the other clicks are duplicates."""
        places = np.ascontiguousarray(clicks.rows["place"])
        free = np.flatnonzero(self.held.rows_at(places)["flags"] & _LABELLED == 0)
        first = np.zeros(len(clicks), np.bool_)
        first[free[np.unique(places[free], return_index=True)[1]]] = True
        self.held.set_flags(places[first], flag)
        self._add_dead("duplicate_click", "clicks", clicks.rows, clicks.columns, ~first)
        return clicks.where(first)

    def _close_windows(self, closed_at_ms: int, after_ms: int) -> None:
        """Emit the negatives of impressions up to `closed_at_ms`, decided `after_ms` after the impression."""
        emission = EmissionFilter(emitted.POSITIVE | emitted.NEGATIVE, self._sampled_below)
        for bucket in self.held.open_until(closed_at_ms):
            rows = bucket.close_until(closed_at_ms, emission)
            if len(rows):
                self._emit_negatives(bucket.rows, rows, bucket.select(rows), after_ms)

    @property
    def _sampled_below(self) -> int | None:
        """A negative is emitted if the second half of its join key's hash is below this; None: all are."""
        rate = self.config.samples.negative_rate
        return None if rate >= 1 else int(rate * 2**64)

    def _sampled(self, rows: np.ndarray) -> Bools:
        """Whether the negatives of impressions are emitted."""
        below = self._sampled_below
        return np.ones(len(rows), np.bool_) if below is None else np.asarray(rows["id"][:, 1] < np.uint64(below))

    def _emit_negatives(self, held: np.ndarray, chosen: Int64s, columns: RowSelection, after_ms: int) -> None:
        sources = sources_of(held, chosen)
        written = np.ones(len(chosen), np.bool_)
        self._samples.append(DecidedSamples(samples.NEGATIVE, sources.at + after_ms, sources, written, columns))

    def _emit_clicks(self, kind: int, clicks: Clicks, decided_at_ms: Int64s) -> None:
        if not len(clicks):
            return
        places = np.ascontiguousarray(clicks.rows["place"])
        held, columns = self.held.rows_at(places), self.held.select(places)
        written = self._sampled(held) & (kind == samples.COMPENSATION)
        labels = clicks.labels(self.config.samples.labels)
        self._samples.append(
            DecidedSamples(kind, decided_at_ms, Source.of(held), written, columns, Source.of(clicks.rows), labels)
        )

    def _add_dead(self, reason: str, kind: EventKind, rows: np.ndarray, columns: pa.RecordBatch, which: Bools) -> None:
        chosen = np.flatnonzero(which)
        if len(chosen):
            selected = columns.take(pa.array(chosen))
            self._dead.append(dead_letters(reason, self._topics[kind], rows.take(chosen), selected))

    def _lowest_offsets(self) -> dict[Input, int]:
        lowest: dict[Input, int] = {("impressions", p): o for p, o in self.held.lowest_offsets().items()}
        waiting = concatenate_rows([self.pending.rows, self.candidates.rows])
        for partition in np.unique(waiting["partition"]).tolist():
            lowest["clicks", partition] = int(waiting["offset"][waiting["partition"] == partition].min())
        return lowest

    def _name(self, at: Input) -> str:
        return f"{self._topics[at[0]]}/{at[1]}"
