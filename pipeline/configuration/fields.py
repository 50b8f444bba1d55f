"""The configuration of the model's inputs: fields with their optimizer, admission and expiry, and dense numbers."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag

from pipeline.configuration.section import Fraction, Name, Section

Setting = Annotated[float, Field(gt=0, le=1e6)]
"""Of an optimizer: so that no step leaves the floats."""
Penalty = Annotated[float, Field(ge=0, le=1e6)]


class Sgd(Section):
    """A field's sparse optimizer: plain stochastic gradient descent, no state."""

    kind: Literal["sgd"]
    learning_rate: Setting = 0.05


class Adagrad(Section):
    """A field's sparse optimizer: a sum of squared gradients for every weight, or one for the row."""

    kind: Literal["adagrad", "rowwise_adagrad"] = "rowwise_adagrad"
    learning_rate: Setting = 0.05
    initial_accumulator: Setting = 0.1


class Adam(Section):
    """A field's sparse optimizer: Adam whose steps are counted row by row; rows outside a batch stay as they are."""

    kind: Literal["adam"]
    learning_rate: Setting = 0.001
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: Setting = 1e-8


class Ftrl(Section):
    """A field's sparse optimizer: FTRL-proximal; L1 empties single weights."""

    kind: Literal["ftrl"]
    learning_rate: Setting = 0.1
    """α of the paper."""
    beta: Setting = 1.0
    l1: Penalty = 0.0
    l2: Penalty = 0.0


class GroupFtrl(Section):
    """A field's sparse optimizer: FTRL-proximal with group lasso, which empties whole rows."""

    kind: Literal["group_ftrl"]
    learning_rate: Setting = 0.1
    beta: Setting = 1.0
    l1: Penalty = 0.0
    l2: Penalty = 0.0
    l21: Penalty = 0.001
    """Weight of the group lasso; times √dim."""


def _optimizer_kind(given: Any) -> str | None:
    """The mark of the class that a table of settings wants; without a kind it is row-wise Adagrad's."""
    kind = given.get("kind", "rowwise_adagrad") if isinstance(given, dict) else getattr(given, "kind", None)
    return f"<{'adagrad' if kind == 'rowwise_adagrad' else kind}>"


Optimizer = Annotated[
    Annotated[Sgd, Tag("<sgd>")]
    | Annotated[Adagrad, Tag("<adagrad>")]
    | Annotated[Adam, Tag("<adam>")]
    | Annotated[Ftrl, Tag("<ftrl>")]
    | Annotated[GroupFtrl, Tag("<group_ftrl>")],
    Discriminator(
        _optimizer_kind,
        custom_error_type="optimizer_kind",
        custom_error_message="kind is one of sgd, adagrad, rowwise_adagrad, adam, ftrl, group_ftrl",
    ),
]
"""Marks are in angle brackets: they are no part of a path in the file."""


class Admission(Section):
    """When a key earns a row."""

    kind: Literal["off", "count", "probability"] = "off"
    threshold: PositiveInt = 2
    """`count`: the occurrence at which a key is admitted."""
    probability: Fraction = 0.1
    """`probability`: chance that one occurrence admits a key."""
    sketch_width: PositiveInt = 65_536
    sketch_depth: PositiveInt = 4
    halve_every_s: PositiveFloat | None = 86_400.0
    """Counts are halved this often, by the log's time."""


class Expiry(Section):
    """When a row is removed."""

    ttl_s: PositiveFloat | None = None
    """Removed when unseen for this long, by the log's time."""
    budget_bytes: PositiveInt | None = None
    """The field's rows × row bytes stay below this: the least important go first."""
    sweep_every_s: PositiveFloat = 600.0
    """How often to look, by the log's time."""


class FieldConfig(Section):
    """A named input of the model with its own table."""

    name: Name
    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    """Raw impression columns (`at` is the impression's time). Several are crossed."""
    transform: str = "value"
    """`value`, `cross`, `bucket`, `log2`, `hour`, `weekday`, or a user's vectorised `module:function`."""
    boundaries: tuple[float, ...] = ()
    """`bucket`: ascending upper bounds."""
    dim: Annotated[int, Field(ge=1, le=1024)] = 16
    pooling: Literal["sum", "mean"] = "sum"
    init_scale: Annotated[float, Field(ge=0)] = 0.01
    """New weights are uniform in ± this, drawn from key and seed."""
    optimizer: Optimizer = Adagrad()
    admission: Admission = Admission()
    expiry: Expiry = Expiry()


class DenseConfig(Section):
    """A number handed to the model as it is."""

    name: Name
    column: str
    transform: Literal["value", "log1p"] = "value"
