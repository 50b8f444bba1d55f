"""The items of each batch for a label with two towers, as a function of the samples log.

The thread that prepares batches runs ahead of what is learned. It advances a copy of its own; each change goes with its
batch, and the trainer applies it to the source that versions hold once the batch is learned.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.arrays.keys import hash_column
from pipeline.arrays.types import Float32s, Int64s, UInt64s
from pipeline.configuration.config import Config
from pipeline.features.field import column_of
from pipeline.features.plan import Features
from pipeline.formats.container import Container, Kind, Section, encode_container
from pipeline.model.loss.batch_items import BatchItems
from pipeline.trainer.items.frequency import CELL, FrequencyChange, FrequencyEstimate
from pipeline.trainer.items.item_inputs import ItemInputs
from pipeline.trainer.items.reservoir import ItemReservoir, ReservoirChange

ITEMS = Kind(b"cand", "restore an earlier version")
_ITEM_SEED = 0x17E3
"""Of the keys of items, which name no row."""


@dataclass(frozen=True)
class SourceChange:
    """What a batch of n samples changes."""

    samples: int
    frequency: list[FrequencyChange]
    reservoir: ReservoirChange | None


@dataclass(frozen=True)
class NextItems:
    """The items of a batch.

    Attributes:
        items: those of the samples, then those that were drawn.
        drawn: the features of the latter.
        change: what the batch changes in the source.
    """

    items: BatchItems
    drawn: Features | None
    change: SourceChange


class ItemSource:
    """Frequencies and recent items as of a batch boundary. Not thread-safe."""

    def __init__(self, config: Config, inputs: Collection[str]) -> None:
        """A source before the first sample; the item tower depends on the Keras inputs `inputs`."""
        towers = config.towers
        assert towers is not None, "no label has towers"
        self._towers, self._types = towers, dict(config.events.impressions.columns)
        self._config, self._tower_inputs = config, inputs
        self._fields, self._inputs = [field.name for field in config.fields], ItemInputs.of(config, inputs)
        self._samples = 0
        self._frequency = FrequencyEstimate(towers.frequency_rate, towers.frequency_buckets)
        self._reservoir = (
            ItemReservoir(towers.reservoir, self._inputs, config.model.seed) if towers.negatives is not None else None
        )

    def next(self, samples: pa.RecordBatch, at_ms: Int64s, features: Features) -> NextItems:
        """The items of the next batch of n samples, with their raw columns, times and features."""
        keys, first, reservoir = self._keys_of(samples, at_ms), self._samples, self._reservoir
        frequency = self._frequency.advance(keys, first) if self._towers.log_q else []
        taken = None if reservoir is None else reservoir.advance(keys, features, first)
        self._samples += len(keys)
        change = SourceChange(len(keys), frequency, taken)
        if reservoir is None:
            return NextItems(BatchItems.of(keys, self._log_q(keys, len(keys))), None, change)
        slots, drawn = reservoir.draw(self._towers.drawn, first)
        items = np.concatenate([keys, reservoir.keys[slots]])
        present = np.concatenate([np.ones(len(keys), np.bool_), drawn])
        batch_items = BatchItems.of(items, self._log_q(items, len(keys)), present)
        return NextItems(batch_items, reservoir.features(slots, self._fields), change)

    def apply(self, change: SourceChange) -> None:
        """Move past a batch as the source that returned `change` did."""
        if self._towers.log_q:
            self._frequency.apply(change.frequency)
        if self._reservoir is not None and change.reservoir is not None:
            self._reservoir.apply(change.reservoir)
        self._samples += change.samples

    def unlearned(self, samples: pa.RecordBatch, at_ms: Int64s) -> BatchItems:
        """The items of the samples, by the frequencies so far; nothing is drawn or changed."""
        keys = self._keys_of(samples, at_ms)
        shares = np.log(self._frequency.shares(keys, self._samples)) if self._towers.log_q else np.zeros(len(keys))
        return BatchItems.of(keys, shares.astype(np.float32))

    def copy(self) -> "ItemSource":
        """The same, for a thread of its own."""
        copied = ItemSource(self._config, self._tower_inputs)
        copied.load(self.to_bytes())
        return copied

    def to_bytes(self) -> bytes:
        """Everything `load` needs: a container with the tables of the estimate and the items with their inputs."""
        header: dict[str, Any] = {"samples": self._samples, "settings": self._settings}
        sections: dict[str, Section] = {"frequency": self._frequency.cells}
        if self._reservoir is not None:
            header["filled"] = self._reservoir.filled
            sections |= self._reservoir.sections()
        return encode_container(ITEMS, header, sections)

    def load(self, state: bytes) -> None:
        """Continue from `to_bytes`; under other settings or inputs it starts empty. Raises DamagedError."""
        container = Container.of(state, ITEMS, name="items of two towers")
        if container.header.get("settings") != self._settings:
            return
        with container.parsing():
            self._samples = int(container.header["samples"])
            cells = container.array("frequency", np.uint8).view(CELL)
            self._frequency.cells[:] = cells.reshape(self._frequency.cells.shape)
            if self._reservoir is not None:
                self._reservoir.restore(container, int(container.header["filled"]))

    @property
    def _settings(self) -> dict[str, Any]:
        """What the state depends on: another one has no meaning here."""
        towers = self._towers.model_dump(mode="json", include=set(_OF_STATE))
        inputs = [[name, name in self._inputs.weighted] for name in self._inputs.fields]
        return {**towers, "inputs": inputs, "dense": len(self._inputs.dense_columns)}

    def _log_q(self, items: UInt64s, n: int) -> Float32s:
        """[n + m] logarithm of how often each item is expected: among n samples, and among those drawn."""
        if not self._towers.log_q:
            return np.zeros(len(items), np.float32)
        expected = n * self._frequency.shares(items, self._samples)
        if self._reservoir is not None and self._reservoir.filled:
            drawn = min(self._towers.drawn, self._reservoir.filled) / self._reservoir.filled
            expected = expected + drawn * self._reservoir.holds(items)
        return np.log(expected).astype(np.float32)

    def _keys_of(self, samples: pa.RecordBatch, at_ms: Int64s) -> UInt64s:
        return hash_column(column_of(samples, self._towers.item_column, self._types, at_ms), _ITEM_SEED)


_OF_STATE = ("item_column", "log_q", "frequency_rate", "frequency_buckets", "negatives", "reservoir")
