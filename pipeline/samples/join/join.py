"""The join: impressions and clicks in, labelled samples and dead letters out. A pure state machine over blocks.

What it says is a set that depends on the input logs alone: not on how partitions interleave, where blocks are cut, how
often `finish` is called, nor on restarts. It asks that all events of one join key in one topic lie in one partition
(producers partition by it); where the clicks of a key are spread, which of several labels may follow arrival. It reads
no clock and no file.

s is an impression's time, t a click's, e the later of t and its partition's watermark at the click.
- An impression below its own partition's watermark is `impression_too_late`; one whose key is known is
  `duplicate_impression`. A key is known from s until s + window + horizon + remember and may then be used again.
- A click belongs to the impression of its key with s <= t and e < s + window + horizon + remember. Until the watermark
  of all impressions passes t + disorder it waits for one; then it is `click_before_impression` if an impression comes
  within disorder after it, else `orphan_click`. (Deciding already at t would let interleaving choose the reason.)
- t >= s + window + horizon: `click_too_late`. Else, policy `wait`: on time and t < s + window: the first is a positive
  at once; any other waits until the smallest watermark of all partitions reaches s + window, and then the first yields
  a compensation, if there was no positive. What finds its impression labelled already is a `duplicate_click`.
- A window that closes without a positive yields a negative, where the key's hash lies below the negative rate.
- Policy `fake_negative`: the negative at once, and the first click a compensation at once.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.arrays.block import DeadLetters, EventBlock, EventKind, Int64s
from pipeline.arrays.gather import RowSelection
from pipeline.arrays.keys import ids128
from pipeline.arrays.structured import concatenate_rows
from pipeline.configuration.config import Config
from pipeline.logs.events.sample_block import sample_schema
from pipeline.samples.join import emitted, output
from pipeline.samples.join.clicks import Clicks
from pipeline.samples.join.durations import Durations
from pipeline.samples.join.emitted import INPUTS, USED, EmittedPositions
from pipeline.samples.join.held_impressions import Bools, HeldImpressions
from pipeline.samples.join.index import NONE
from pipeline.samples.join.input_progress import Input, InputProgress
from pipeline.samples.join.output import DecidedSamples, Decisions, Samples
from pipeline.samples.join.rows import EmissionFilter, Source, held_rows, sources_of

_DECIDE_EVERY_ROWS = 65_536
"""Rows fed between two looks at what can be decided, so that a long bundle holds no more than a short one."""
_LABELLED = emitted.POSITIVE | emitted.COMPENSATED


class Join:
    """One shard's join. Not thread-safe.

    Attributes:
        progress: offsets and watermarks of every input partition.
        held: impressions.
        pending: clicks without an impression yet.
        candidates: clicks that may yield a compensation once their window has closed.
        said: what the shard's own partitions say beyond this state.
    """

    def __init__(self, config: Config, shard: int, input_partitions: Mapping[EventKind, int]) -> None:
        self.config, self.shard, self.durations = config, shard, Durations.of(config)
        self.progress = InputProgress(input_partitions)
        self.held = HeldImpressions(self.durations)
        self.pending, self.candidates = Clicks.none(config), Clicks.none(config)
        self.emitted_positions = EmittedPositions()
        self._schema = sample_schema(config)
        self._fake = config.samples.policy == "fake_negative"
        self._topics = config.topics.inputs
        self._arrived: list[Clicks] = []
        self._samples: list[DecidedSamples] = []
        self._dead: list[DeadLetters] = []
        self._undecided_rows = 0

    def feed(self, block: EventBlock) -> None:
        """Take in this shard's rows of a block; blocks of one partition in log order.

        A block without rows moves offset and watermark alone. Rows below the partition's next offset were taken in
        before and are passed over.
        """
        read = self.progress.of[block.kind, block.partition].next_offset
        if block.next_offset <= read:
            return
        flags = self.emitted_positions.flags(block.kind, block.partition, block.offsets, block.rows)
        new = (block.offsets >= read) & (flags & USED == 0)
        if not new.all():
            block, flags = block.take(np.flatnonzero(new)), flags[new]
        if len(block) and block.kind == "impressions":
            self._take_impressions(block, flags)
        elif len(block):
            self._arrived.append(Clicks.of(block, self.config.events.key))
        self.progress.advance(block)
        self._undecided_rows += len(block)
        if self._undecided_rows >= _DECIDE_EVERY_ROWS:
            self._decide()

    def decide(self) -> Decisions:
        """`finish`, with samples whose columns are made as they are asked for."""
        self._decide()
        samples, dead = self._samples, self._dead
        self._samples, self._dead = [], []
        self.progress.prune(self._lowest_offsets())
        for (kind, partition), at in self.progress.of.items():
            self.emitted_positions.drop_below(kind, partition, at.next_offset)
        return Decisions(Samples(self.config, self._schema, samples), output.dead_letter_batch(dead))

    @property
    def settled(self) -> bool:
        """Whether everything fed was decided or is held, and everything decided was fetched: true after `finish`."""
        return not (self._arrived or self._samples or self._dead)

    @property
    def watermark_ms(self) -> int | None:
        """The smallest watermark over all input partitions; None while one of them has none."""
        return self.progress.watermark(INPUTS)

    def needed_offsets(self) -> dict[str, int]:
        """Per `topic/partition` the offset below which nothing is needed any more; after `finish`."""
        return {self._name(at): offset for at, (offset, _) in self.progress.restart_points().items()}

    def needed_watermarks(self) -> dict[str, int]:
        """Per `topic/partition` the watermark (ms) before the offset in `needs`; absent where there was none."""
        resume = self.progress.restart_points()
        return {self._name(at): mark for at, (_, mark) in resume.items() if mark is not None}

    def begin(self, kind: EventKind, partition: int, offset: int, watermark_ms: int | None) -> None:
        """Start at `offset` of a partition, with the watermark that holds before it."""
        self.progress.begin((kind, partition), offset, watermark_ms)

    def restore_emitted(self, samples: Sequence[pa.RecordBatch], dead: Sequence[DeadLetters] = ()) -> None:
        """Take samples and dead letters found in the shard's own partitions as decided: they are not said again.

        What their positions lead to is the same as if this state had said them itself.
        """
        rows = [emitted.emitted_by_samples(batch) for batch in samples]
        rows += [emitted.emitted_by_dead_letters(letters.table, self._topics) for letters in dead]
        found = np.concatenate([np.zeros(0, emitted.EMITTED), *rows])
        if not self.held.buckets and not len(self.pending) and not len(self.candidates):
            found = self._unread(found)
        if not len(found):
            return
        self.emitted_positions.add(found)
        for bucket in self.held.buckets.values():
            held = bucket.rows
            held["flags"] |= self.emitted_positions.flags(
                "impressions", held["partition"], held["offset"], held["row"]
            ) & ~np.uint8(USED)
        self.pending, self.candidates = self._unsaid(self.pending), self._unsaid(self.candidates)
        for (kind, partition), at in self.progress.of.items():
            self.emitted_positions.drop_below(kind, partition, at.next_offset)

    def _unread(self, said: np.ndarray) -> np.ndarray:
        """What lies in input that has not been read yet; all that matters to a join that holds nothing."""
        ahead = np.zeros(len(said), np.bool_)
        for (kind, partition), at in self.progress.of.items():
            here = (said["input"] == INPUTS.index(kind)) & (said["partition"] == partition)
            ahead |= here & (said["offset"] >= at.next_offset)
        return said[ahead]

    def _unsaid(self, clicks: Clicks) -> Clicks:
        rows = clicks.rows
        return clicks.where(self.emitted_positions.flags("clicks", rows["partition"], rows["offset"], rows["row"]) == 0)

    def _take_impressions(self, block: EventBlock, flags: npt.NDArray[np.uint8]) -> None:
        rows = held_rows(block, ids128(block.columns, self.config.events.key), flags, self._fake)
        columns = block.columns
        late = block.at_ms < block.watermarks_ms
        if late.any():
            self._set_aside("impression_too_late", "impressions", rows, columns, late)
            timely = np.flatnonzero(~late)
            rows, columns = rows.take(timely), RowSelection.of(columns, timely).gather()
        held = self.held.hold(rows, columns)
        if not held.all():
            self._set_aside("duplicate_impression", "impressions", rows, columns, ~held)
        if self._fake:
            chosen = np.flatnonzero(held & (rows["flags"] & emitted.NEGATIVE == 0) & self._kept(rows))
            self._say_negatives(rows, chosen, RowSelection.of(columns, chosen), 0)

    def _decide(self) -> None:
        self._undecided_rows = 0
        clicks = Clicks.joined([self.pending, *self._arrived])
        self._arrived = []
        self.pending = self._judge(clicks)
        watermark_ms = self.watermark_ms
        if watermark_ms is None:
            return
        self._close_windows(watermark_ms - self.durations.window_ms)
        self._settle_candidates(watermark_ms - self.durations.window_ms)
        self.held.remove_expired(watermark_ms)

    def _judge(self, clicks: Clicks) -> Clicks:
        """Judge the clicks whose impression is there, decide what needs no more waiting, return the rest."""
        if not len(clicks):
            return clicks
        at, effective = clicks.rows["at"], clicks.rows["effective"]
        places, times, next_at = self.held.find(clicks.ids(), at)
        known = (places != NONE) & (effective - self.durations.known_ms < times)
        clicks.rows["place"], clicks.rows["impression_at"] = places, times
        self._judge_known(clicks.where(known))
        watermark_ms = self.progress.watermark(("impressions",))
        if watermark_ms is None:
            return clicks.where(~known)
        undecided = ~known & (at + self.durations.disorder_ms >= watermark_ms)
        before = (next_at <= at + self.durations.disorder_ms) & (effective - self.durations.held_ms < next_at)
        lost = ~known & ~undecided
        self._set_aside("click_before_impression", "clicks", clicks.rows, clicks.columns, lost & before)
        self._set_aside("orphan_click", "clicks", clicks.rows, clicks.columns, lost & ~before)
        return clicks.where(undecided)

    def _judge_known(self, clicks: Clicks) -> None:
        rows, spans = clicks.rows, self.durations
        too_late = rows["at"] - rows["impression_at"] >= spans.attributed_ms
        self._set_aside("click_too_late", "clicks", rows, clicks.columns, too_late)
        if self._fake:
            self._compensate(clicks.where(~too_late))
            return
        in_window = ~rows["late"] & (rows["at"] - rows["impression_at"] < spans.window_ms) & ~too_late
        # Only what the shard has said itself can have closed this window already; its word stands.
        in_window &= self.held.rows_at(np.ascontiguousarray(rows["place"]))["flags"] & emitted.NEGATIVE == 0
        positives = self._first_of_each(clicks.where(in_window), emitted.POSITIVE)
        self._say_clicks(output.POSITIVE, positives, positives.rows["at"])
        self.candidates = Clicks.joined([self.candidates, clicks.where(~in_window & ~too_late)])

    def _settle_candidates(self, closed_at_ms: int) -> None:
        due = self.candidates.rows["impression_at"] <= closed_at_ms
        if due.any():
            settled, self.candidates = self.candidates.where(due), self.candidates.where(~due)
            self._compensate(settled)

    def _compensate(self, clicks: Clicks) -> None:
        first = self._first_of_each(clicks, emitted.COMPENSATED)
        closes_at = first.rows["impression_at"] + (0 if self._fake else self.durations.window_ms)
        self._say_clicks(output.COMPENSATION, first, np.maximum(first.rows["at"], closes_at))

    def _first_of_each(self, clicks: Clicks, flag: int) -> Clicks:
        """The first click of each impression that has no label yet, which it now has; the others are duplicates."""
        places = np.ascontiguousarray(clicks.rows["place"])
        free = np.flatnonzero(self.held.rows_at(places)["flags"] & _LABELLED == 0)
        first = np.zeros(len(clicks), np.bool_)
        first[free[np.unique(places[free], return_index=True)[1]]] = True
        self.held.set_flags(places[first], flag)
        self._set_aside("duplicate_click", "clicks", clicks.rows, clicks.columns, ~first)
        return clicks.where(first)

    def _close_windows(self, closed_at_ms: int) -> None:
        telling = EmissionFilter(emitted.POSITIVE | emitted.NEGATIVE, self._kept_below)
        for bucket in self.held.open_until(closed_at_ms):
            told = bucket.close_until(closed_at_ms, telling)
            if len(told):
                self._say_negatives(bucket.rows, told, bucket.pick(told), self.durations.window_ms)

    @property
    def _kept_below(self) -> int | None:
        """A negative is kept where the second half of its join key's hash is below this; None: every one."""
        rate = self.config.samples.negative_rate
        return None if rate >= 1 else int(rate * 2**64)

    def _kept(self, rows: np.ndarray) -> Bools:
        """Which impressions' negatives are kept."""
        below = self._kept_below
        return np.ones(len(rows), np.bool_) if below is None else np.asarray(rows["id"][:, 1] < np.uint64(below))

    def _say_negatives(self, held: np.ndarray, chosen: Int64s, shown: RowSelection, after_ms: int) -> None:
        sources = sources_of(held, chosen)
        written = np.ones(len(chosen), np.bool_)
        self._samples.append(DecidedSamples(output.NEGATIVE, sources.at + after_ms, sources, written, shown))

    def _say_clicks(self, kind: int, clicks: Clicks, decided_at_ms: Int64s) -> None:
        if not len(clicks):
            return
        places = np.ascontiguousarray(clicks.rows["place"])
        held, shown = self.held.rows_at(places), self.held.pick(places)
        written = self._kept(held) & (kind == output.COMPENSATION)
        labels = clicks.labels(self.config.samples.labels)
        self._samples.append(
            DecidedSamples(kind, decided_at_ms, Source.of(held), written, shown, Source.of(clicks.rows), labels)
        )

    def _set_aside(self, reason: str, kind: EventKind, rows: np.ndarray, columns: pa.RecordBatch, which: Bools) -> None:
        chosen = np.flatnonzero(which)
        if len(chosen):
            taken = columns.take(pa.array(chosen))
            self._dead.append(output.dead_letters(reason, self._topics[kind], rows.take(chosen), taken))

    def _lowest_offsets(self) -> dict[Input, int]:
        lowest: dict[Input, int] = {("impressions", p): o for p, o in self.held.lowest_offsets().items()}
        waiting = concatenate_rows([self.pending.rows, self.candidates.rows])
        for partition in np.unique(waiting["partition"]).tolist():
            lowest["clicks", partition] = int(waiting["offset"][waiting["partition"] == partition].min())
        return lowest

    def _name(self, at: Input) -> str:
        return f"{self._topics[at[0]]}/{at[1]}"
