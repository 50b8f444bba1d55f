"""The configuration of the model, of the trainer and of what it publishes."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.configuration.section import Fraction, Section


class Model(Section):
    """`[model]`: the dense network."""

    build: str = "model:build"
    """`module:function` in the project folder: named Keras inputs → Keras model with logits [batch, labels]."""
    batch_size: PositiveInt = 512
    learning_rate: PositiveFloat = 0.02
    """Learning rate of Adagrad for the dense weights."""
    seed: int = 1
    threads: PositiveInt = 2
    """TensorFlow's threads; training is deterministic only for an unchanged number."""


class RetentionPolicy(Section):
    """`[train.retention]`: which versions are retained, by age in the log's time: all, then one per ten minutes, then
    one per day.
    """

    all_s: PositiveFloat = 3600.0
    ten_minutes_s: PositiveFloat = 86_400.0
    daily_s: PositiveFloat | None = None
    """Default: daily versions are retained forever."""


class Train(Section):
    """`[train]`: when a trainer commits, and which versions are retained."""

    commit_every_s: PositiveFloat = 1.0
    """Wall time between commits."""
    commit_share: Fraction = 0.2
    """Maximum share of the time for which commits may stop training; slow commits become less frequent."""
    commit_every_log_s: PositiveFloat | None = 600.0
    """Maximum event time between commits: a backfill can then be rolled back as finely as a live run."""
    commit_every_batches: PositiveInt | None = None
    """Maximum number of batches between commits."""
    full_every_commits: PositiveInt = 50
    """Every n-th version is written in full; the versions between hold only changes."""
    half_life_s: PositiveFloat = 86_400.0
    """Half-life of importance, in the log's time."""
    loss_limit: PositiveFloat = 50.0
    """The trainer halts at a batch whose mean loss exceeds this or is NaN."""
    dictionary_size: Annotated[int, Field(ge=0)] = 100_000
    """Maximum number of keys per field whose raw value is stored for display."""
    retention: RetentionPolicy = RetentionPolicy()


class Publish(Section):
    """`[publish]`: how much and how often deltas are published to serving."""

    share: Fraction = 0.9
    """Share of the importance-weighted difference between trained and served rows that a realtime delta sends."""
    incremental_every_s: PositiveFloat | None = 600.0
    """Log time between incremental deltas; None publishes them only on command."""
    full_every_s: PositiveFloat | None = 86_400.0
    """Log time between full snapshots; None publishes them only on command."""
    webhook: str | None = None
    """URL that receives a CloudEvent for every version and rollback."""
    executable: str | None = None
    """Program in the project folder that receives the same CloudEvent on stdin."""
