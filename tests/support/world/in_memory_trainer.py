"""The trainer's own steps over a samples log, without commits: features, tables, network and their inputs in reach."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipeline.configuration.project import Project
from pipeline.features.plan import FeaturePlan
from pipeline.logs.open import open_log
from pipeline.model.dense import DenseModel
from pipeline.trainer.batch.batches import BatchReader, Excluded, SamplePosition
from pipeline.trainer.batch.prefetch import Prefetcher
from pipeline.trainer.commit.boundary_snapshot import TrainerProgress
from pipeline.trainer.run.scoring import score_batch
from pipeline.trainer.tables.tables import Tables
from tests.support.shop.shop import append_samples


@dataclass
class InMemoryTrainer:
    """Learns batch after batch, in the order of a trainer shard."""

    project: Project
    record_rows: int = 100
    """Samples in a record of the log."""
    inputs: list[np.ndarray] = field(default_factory=list)
    """[n, columns] of every batch."""
    losses: list[float] = field(default_factory=list)
    """Mean loss of every batch before it was learned from."""
    logits: list[np.ndarray] = field(default_factory=list)
    """[n, labels] of every batch before it was learned from."""
    ranks: list[np.ndarray | None] = field(default_factory=list)
    """[n] of every batch, of a model with two towers."""

    def __post_init__(self) -> None:
        config, root = self.project.config, self.project.root
        self.plan, self.tables, self.model = FeaturePlan(config, root), Tables(config), DenseModel(config, root)
        self.progress = TrainerProgress.start(config, self.model.item_inputs)

    def learn(self, samples: pa.RecordBatch) -> None:
        """Append the samples to the log and learn from them."""
        log, config = open_log(self.project), self.project.config
        first = log.end_offset("samples", 0)
        append_samples(log, self.project, samples, block_rows=self.record_rows)
        everything = Excluded(lambda samples, at_ms, offset: np.zeros(len(at_ms), bool))
        reader = BatchReader(log, "samples", 0, SamplePosition(first, 0), config.model.batch_size, everything)
        prefetcher = Prefetcher(reader, self.plan, config.outputs, self.progress.items)
        position, at_ms = SamplePosition(first, 0), 0
        while prepared := prefetcher.next(log.end_offset("samples", 0)):
            n, at_ms = len(prepared.batch), max(at_ms, int(prepared.batch.at_ms.max()))
            admitted = self.tables.admit(prepared, at_ms, position)
            inputs = self.tables.gather(admitted)
            self.inputs.append(inputs[:n].copy())
            result = self.model.step(inputs, prepared.targets)
            score_batch(config.outputs, self.progress, prepared, result, at_ms)
            self.tables.learn(admitted, result.gradient)
            self.losses.append(result.sample_loss)
            self.logits.append(result.logits)
            self.ranks.append(result.ranks)
            position = prepared.batch.end
        prefetcher.close()
        log.close()

    def lookup(self, name: str, keys: np.ndarray) -> np.ndarray:
        """[m, dim] the rows of keys of a table."""
        return self.tables.by_name[name].table.lookup(keys)

    def digest(self) -> tuple[object, ...]:
        """Of everything that was learned."""
        return (self.model.weights_bytes(), *(each.table.digest() for each in self.tables.by_name.values()))
