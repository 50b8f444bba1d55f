"""The configuration of the model's inputs: fields with their optimizer, admission and expiry, and dense inputs."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, Tag, model_validator

from pipeline.configuration.section import Count, Fraction, Name, Number, Seconds, Section, Setting, by_kind

Penalty = Annotated[float, Field(ge=0, le=1e6)]


def _check_quantise(given: Any) -> Any:
    """Refuse what only equals a number of bits, such as `true`."""
    if type(given) not in (int, str):
        raise ValueError("wanted 8, 4, 2, 1 or 'ternary'")
    return given


Quantise = Annotated[Literal[8, 4, 2, 1, "ternary"], BeforeValidator(_check_quantise)]
Importance = Annotated[float, Field(gt=0, le=1e16)]


class Sgd(Section):
    """Stochastic gradient descent, without state."""

    kind: Literal["sgd"]
    """The optimizer."""
    learning_rate: Setting = 0.05
    """Step size."""


class Adagrad(Section):
    """Adagrad, with a sum of squared gradients per weight, or one per row (`rowwise_adagrad`)."""

    kind: Literal["adagrad", "rowwise_adagrad"] = "rowwise_adagrad"
    """The optimizer."""
    learning_rate: Setting = 0.05
    """Step size, divided by the root of the accumulated squared gradients."""
    initial_accumulator: Setting = 0.1
    """What the accumulator of a new row starts at."""


class Adam(Section):
    """Lazy Adam: steps are counted per row, and rows without a gradient are not updated."""

    kind: Literal["adam"]
    """The optimizer."""
    learning_rate: Setting = 0.001
    """Step size."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the second moment."""
    epsilon: Setting = 1e-8
    """Added to the root of the second moment."""


class Ftrl(Section):
    """FTRL-proximal; L1 sets single weights to zero."""

    kind: Literal["ftrl"]
    """The optimizer."""
    learning_rate: Setting = 0.1
    """α in McMahan et al. 2013."""
    beta: Setting = 1.0
    """β there."""
    l1: Penalty = 0.0
    """λ₁ there."""
    l2: Penalty = 0.0
    """λ₂ there."""


class GroupFtrl(Section):
    """FTRL-proximal with group lasso, which sets complete rows to zero."""

    kind: Literal["group_ftrl"]
    """The optimizer."""
    learning_rate: Setting = 0.1
    """α in McMahan et al. 2013."""
    beta: Setting = 1.0
    """β there."""
    l1: Penalty = 0.0
    """λ₁ there, per weight."""
    l2: Penalty = 0.0
    """λ₂ there."""
    l21: Penalty = 0.001
    """Weight of the group lasso, multiplied by √dim."""


Optimizer = Annotated[
    Annotated[Sgd, Tag("<sgd>")]
    | Annotated[Adagrad, Tag("<adagrad>")]
    | Annotated[Adam, Tag("<adam>")]
    | Annotated[Ftrl, Tag("<ftrl>")]
    | Annotated[GroupFtrl, Tag("<group_ftrl>")],
    by_kind(
        "optimizer",
        ("sgd", "adagrad", "rowwise_adagrad", "adam", "ftrl", "group_ftrl"),
        "rowwise_adagrad",
        {"rowwise_adagrad": "adagrad"},
    ),
]


class Admission(Section):
    """When a key is admitted: gets a row."""

    kind: Literal["off", "count", "probability"] = "off"
    """`off`: every key at its first occurrence. `count`, `probability`: by the settings below."""
    threshold: Count = 2
    """`count`: a key is admitted at this occurrence."""
    probability: Fraction = 0.1
    """`probability`: probability that an occurrence admits its key."""
    sketch_width: Annotated[int, Field(ge=1, le=1 << 28)] = 65_536
    """`count`: counters per row of the count-min sketch; more counters overestimate less."""
    sketch_depth: Annotated[int, Field(ge=1, le=64)] = 4
    """`count`: rows of the sketch."""
    halve_every_s: Seconds | None = 86_400.0
    """`count`: all counts are halved once per this log time; `"off"`: never."""


class Expiry(Section):
    """When a row expires: is removed."""

    ttl_s: Seconds | None = None
    """A row expires when its key was not seen for this log time."""
    budget_bytes: Annotated[int, Field(ge=1, le=1 << 50)] | None = None
    """Limit of the table's rows × row bytes; the least important rows expire first."""
    sweep_every_s: Seconds = 600.0
    """Log time between checks."""


def problems_of_quantise(quantise: Quantise | None, below: float | None) -> list[str]:
    """What is wrong with two settings of a table together."""
    if quantise is None and below is not None:
        return [f"quantise_below {below:g} has no effect without quantise. hint: set quantise, or remove it"]
    return []


class FieldConfig(Section):
    """`[[fields]]`: a named input of the model."""

    name: Name
    """Name of the input of the Keras model."""
    table: Name | None = None
    """The table of `[[tables]]` that it reads, with its `dim`, `init_scale`, `quantise`, `optimizer`, `admission`
    and `expiry`. Not set: a table of its own with the field's name. The table's name seeds the hash of the keys."""
    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    """Impression columns (`at` is the impression's time). Several are crossed."""
    transform: str = "value"
    """`value`, `cross`, `bucket`, `log2`, `hour`, `weekday`, or the user's vectorised `module:function`."""
    boundaries: tuple[Number, ...] = ()
    """`bucket`: ascending upper bounds."""
    dim: Annotated[int, Field(ge=1, le=1024)] = 16
    """Weights per row."""
    pooling: Literal["sum", "mean", "sqrtn", "max", "none"] = "sum"
    """How the rows of a list column become one: `sqrtn` divides the sum by the square root of the number of elements,
    `max` takes the largest value of each weight. With `none` they stay apart: the model reads a sequence [batch,
    max_length, dim], and `NAME_mask` [batch, max_length], true for elements and false after the last."""
    max_length: Annotated[int, Field(ge=1, le=4096)] | None = None
    """`none`: the elements of a list that the model reads; the others are not counted and get no row."""
    keep: Literal["last", "first"] = "last"
    """`none`: which elements of a list longer than `max_length` the model reads, in the order of the list."""
    weights: str | None = None
    """`sum`, `mean`, `sqrtn`: impression column with a list of numbers, one weight for each element, of either sign:
    Σ w·row, by Σ w with `mean`, by √Σ w² with `sqrtn`. Null counts as 1; an impression whose list has another length,
    or a number that is not finite in 32 bits, is a dead letter."""
    init_scale: Annotated[float, Field(ge=0, le=100)] = 0.01
    """New weights are uniform in ± this; they depend on the key and the seed only."""
    quantise: Quantise | None = None
    """Rows are trained for so many bits: training reads each row rounded to integers × 2^exponent, updates it in full
    precision, and serving holds exactly what training read. `8` and `4` are the steps of published rows of these
    precisions, `2` has about four levels, `"ternary"` is −1, 0 or 1 times a scale, `1` plus or minus a scale."""
    quantise_below: Importance | None = None
    """Only rows whose importance is below this are rounded; the others are published at the price of a byte."""
    optimizer: Optimizer = Adagrad()
    admission: Admission = Admission()
    expiry: Expiry = Expiry()

    @property
    def table_name(self) -> str:
        """The table whose rows it reads."""
        return self.table or self.name

    @model_validator(mode="after")
    def _check_pooling(self) -> Self:
        problems = problems_of_quantise(self.quantise, self.quantise_below) if self.table is None else []
        if self.pooling == "none" and self.max_length is None:
            problems.append("pooling none needs max_length. hint: the number of elements that the model reads")
        if self.pooling != "none" and self.max_length is not None:
            problems.append(f"max_length {self.max_length} has no effect with pooling {self.pooling}, only with none")
        if self.pooling != "none" and "keep" in self.model_fields_set:
            problems.append(f"keep {self.keep} has no effect with pooling {self.pooling}, only with none")
        if self.weights is not None and self.pooling in ("max", "none"):
            problems.append(f"weights have no effect with pooling {self.pooling}, only with sum, mean and sqrtn")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class DenseConfig(Section):
    """`[[dense]]`: a number, or a vector of numbers, that the model reads without an embedding. Order of operations:
    `transform`, `normalise`, `clip`.
    """

    name: Name
    """Name of the input of the Keras model."""
    column: str
    """Column of the impression: int, float or bool, or `at`; floats with `size`. Null is 0."""
    size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Numbers per sample of a `floats` column, which the model gets as [batch, size]. An impression with another number
    of them is a dead letter; null is all zeros."""
    range: tuple[Number, Number] | None = None
    """Smallest and largest value of the column. An impression with another value, or one that is not finite in 32 bits
    after the transform, is a dead letter."""
    transform: Literal["value", "log1p"] = "value"
    """`log1p`: sign(x) × log(1 + |x|)."""
    normalise: bool = False
    """(x − mean) / deviation over all samples before the batch, in log order; the two are part of the version. Before
    the first sample, and as long as the input has had one value only, it is 0."""
    clip: tuple[Number, Number] | None = None
    """Smallest and largest value that the model gets; others become the nearer of the two."""

    @property
    def width(self) -> int:
        """Columns of the model's input."""
        return self.size or 1


def dense_problems(number: DenseConfig, types: Mapping[str, str]) -> list[str]:
    """What is wrong with the column of a dense input; `types` are those of impressions, by column."""
    kind = "int" if number.column == "at" else types[number.column]
    if number.size is not None:
        wanted = f"dense {number.name} has a size and reads column {number.column} of type {kind}, wanted floats"
        return [] if kind == "floats" else [wanted]
    if kind == "floats":
        return [f"dense {number.name} reads column {number.column} of type floats. hint: set its size"]
    if kind in ("int", "uint", "float", "bool"):
        return []
    return [f"dense {number.name} reads column {number.column} of type {kind}, wanted int, uint, float or bool"]
