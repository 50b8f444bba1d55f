"""The configuration of the model, of the trainer and of what it publishes."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, SecretStr, Tag, model_validator

from pipeline.configuration.deployment.address import check_webhook
from pipeline.configuration.model.optimizers import DenseAdagrad, DenseOptimizer
from pipeline.configuration.section import Count, Fraction, Seconds, Secret, Section, Setting


class Model(Section):
    """`[model]`: the dense network."""

    build: str = "model:build"
    """`module:function` in the project folder: named Keras inputs → Keras model with logits [batch, labels], or
    with outputs by name: for each label a logit [batch] or [batch, 1]."""
    batch_size: Annotated[int, Field(ge=1, le=1 << 20)] = 512
    """Samples per training step."""
    learning_rate: Setting = 0.02
    """Learning rate of Adagrad for the dense weights; another optimizer has its own."""
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 1
    """Seed of all initial weights."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 2
    """TensorFlow's threads; training is deterministic only for an unchanged number."""
    optimizer: DenseOptimizer = DenseAdagrad()

    @property
    def dense_learning_rate(self) -> float:
        """The learning rate of the dense weights."""
        return self.learning_rate if self.optimizer.learning_rate is None else self.optimizer.learning_rate

    @model_validator(mode="after")
    def _check_learning_rate(self) -> Self:
        given = "learning_rate" in self.model_fields_set
        if given and not isinstance(self.optimizer, DenseAdagrad):
            raise ValueError(
                f"model.learning_rate is that of adagrad, the optimizer is {self.optimizer.kind}. "
                "hint: set model.optimizer.learning_rate"
            )
        if given and self.optimizer.learning_rate is not None:
            raise ValueError(
                "model.learning_rate and model.optimizer.learning_rate both set the learning rate. hint: leave one out"
            )
        return self


class RetentionPolicy(Section):
    """`[train.retention]`: which versions are retained, by age in the log's time: all, then one per ten minutes, then
    one per day.
    """

    all_s: Seconds = 3600.0
    """Age up to which every version is retained."""
    ten_minutes_s: Seconds = 86_400.0
    """Age up to which one version per ten minutes is retained."""
    daily_s: Seconds | None = None
    """Age up to which one version per day is retained; default: forever."""
    newest: Count = 20
    """So many of the newest versions that CURRENT descends from are retained whatever their age: after a pause of the
    input all versions are old."""


class Train(Section):
    """`[train]`: when a trainer commits, and which versions are retained."""

    commit_every_s: Seconds = 1.0
    """Wall time between commits."""
    commit_share: Fraction = 0.2
    """Maximum share of the time for which commits may stop training; slow commits become less frequent."""
    commit_every_log_s: Seconds | None = 600.0
    """Maximum event time between commits: a backfill can then be rolled back as finely as a live run."""
    commit_every_batches: Count | None = None
    """Maximum number of batches between commits."""
    half_life_s: Seconds = 86_400.0
    """Half-life of importance, in the log's time."""
    shuffle_window: Annotated[int, Field(ge=2, le=1 << 22)] | None = None
    """Samples are learned in random order within windows of so many, a multiple of `model.batch_size`: those of one
    request, user or item are then spread over several batches. The order follows from `model.seed` and the log. A
    window is learned once it is complete, and versions are committed at its end. Not set: in the order of the log."""
    pipeline_depth: Literal[1, 2] = 1
    """2: the rows of a batch learn its gradient while the network learns the next batch, so the next batch reads rows
    without it. Rows and network then work at the same time. The network itself is never late, and what is learned is
    as repeatable as with 1: a version holds a gradient that is still to be learned."""
    loss_limit: Annotated[float, Field(gt=0, le=1e9)] = 50.0
    """The trainer halts at a batch whose mean loss exceeds this or is NaN."""
    positive_within_samples: Count | None = 100_000
    """A label that has no positive in so many samples is a warning: it may be one that no click sets."""
    dictionary_size: Annotated[int, Field(ge=0, le=1 << 31)] = 100_000
    """Maximum number of keys per field whose raw value is stored for display."""
    memory_bytes: Annotated[int, Field(ge=1, le=1 << 50)] | None = None
    """Memory for the rows of all tables of one shard. The rows beyond it that are used least stay on disk only, in the
    files of CURRENT, and are read while batches are prepared; what is learned is the same. Beside it memory holds 20
    bytes for each row on disk, and rows that changed since the last commit. Not set: all rows are in memory."""
    retention: RetentionPolicy = RetentionPolicy()


def shuffle_problems(window: int | None, batch_size: int, listed: Sequence[str] = ()) -> list[str]:
    """What is wrong with `train.shuffle_window`; `listed`: labels with lists.

    >>> shuffle_problems(1024, 512), shuffle_problems(None, 512, ["ranked"])
    ([], [])
    """
    if window is None:
        return []
    if listed:
        return [f"label {listed[0]} has lists, and train.shuffle_window takes them apart. hint: leave one of both out"]
    if window > batch_size and window % batch_size == 0:
        return []
    hint = f"hint: {max(window // batch_size, 2) * batch_size}"
    return [f"train.shuffle_window is {window}, wanted a multiple of model.batch_size, which is {batch_size}. {hint}"]


def _checked_url(url: SecretStr) -> SecretStr:
    check_webhook(url.get_secret_value())
    return url


WebhookUrl = Annotated[
    Annotated[SecretStr, AfterValidator(_checked_url), Tag("url")] | Annotated[Secret, Tag("secret")],
    Discriminator(lambda given: "secret" if isinstance(given, dict | Secret) else "url"),
]
"""A URL, or `{ file = … }` or `{ env = … }` that holds one. Never shown: a URL may contain a password or a token."""


class HookDelivery(Section):
    """`[publish.hooks]`: how notices are delivered to webhook and executable. Each has its own queue and thread."""

    timeout_s: Annotated[float, Field(gt=0, le=600)] = 5.0
    """Total time of one attempt, from the name lookup to the answer's status, or of one run of the executable."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Maximum number of attempts per notice. A webhook's 3xx and 4xx are final, except 408, 425 and 429."""
    retry_after_s: Annotated[float, Field(gt=0, le=600)] = 1.0
    """Wait before the second attempt; it doubles with every attempt, up to a minute."""
    queue_events: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    """Maximum number of notices that wait for one hook; further ones are recorded as failed."""
    close_s: Annotated[float, Field(gt=0, le=3_600)] = 10.0
    """How long a process that ends waits for deliveries; the remaining notices are recorded as failed."""
    redirects: Annotated[int, Field(ge=0, le=20)] = 0
    """Maximum number of redirects that a webhook may answer with; only 307 and 308, which repeat the POST."""


AllowedLoss = Annotated[float, Field(gt=0, le=0.5)]
"""A share of the trainer's loss."""


class Publish(Section):
    """`[publish]`: how much and how often deltas are published to serving."""

    loss: AllowedLoss = 0.0002
    """How much the loss of serving may exceed the trainer's, as a share of it, by rows and dense weights that realtime
    deltas withhold or round. The price of a byte follows from it: a row, or a block of 64 dense weights, is sent if
    that takes more off the loss than its bytes cost."""
    dense: Literal["priced", "exact"] = "priced"
    """How serving holds the dense weights. `"priced"`: as integers of one or two bytes; a realtime delta carries the
    differences of what is worth its bytes. `"exact"`: float32 as trained, complete in every delta."""
    incremental_every_s: Seconds | None = 600.0
    """Log time between incremental deltas; `"off"`: only on command."""
    full_every_s: Seconds | None = 86_400.0
    """Log time between full snapshots; `"off"`: only on command."""
    full_rows: Literal["every", "served"] = "every"
    """The rows of a full snapshot that is due. `"every"`: all of the tables; the realtime delta before it sends what
    was withheld. `"served"`: those that realtime deltas have sent, so that a replica that starts from it serves what
    all others do; such a file is smaller and no delta is large. On command and after a migration it has every row."""
    webhook: WebhookUrl | None = None
    """URL that receives a CloudEvent for every version and rollback."""
    executable: Annotated[str, Field(min_length=1)] | None = None
    """Program in the project folder that receives the same CloudEvent on stdin."""
    hooks: HookDelivery = HookDelivery()
