"""The configuration of the dense network's optimizer: its kind, its schedule of learning rates, its clipping."""

from typing import Annotated, Literal, Self

from pydantic import Field, Tag, model_validator

from pipeline.configuration.section import Fraction, Section, Setting, by_kind

_Decay = Annotated[float, Field(ge=0, lt=1)]
_Samples = Annotated[int, Field(ge=1, le=1 << 53)]
_WeightDecay = Annotated[float, Field(ge=0, le=1)]


class _Schedule(Section):
    """What every schedule has."""

    warm_up_samples: _Samples | None = None
    """The learning rate grows in proportion to the samples seen until there are so many (Goyal et al. 2017)."""


class Constant(_Schedule):
    """The learning rate stays as it is."""

    kind: Literal["constant"] = "constant"
    """The schedule."""


class Cosine(_Schedule):
    """The learning rate falls by half a cosine wave (Loshchilov and Hutter 2017, "SGDR", without restarts)."""

    kind: Literal["cosine"]
    """The schedule."""
    decay_samples: _Samples
    """Samples after which the lowest rate is reached, warm-up included."""
    lowest: Fraction = 0.01
    """Share of the learning rate that remains."""


class Exponential(_Schedule):
    """The learning rate is halved again and again."""

    kind: Literal["exponential"]
    """The schedule."""
    halve_samples: _Samples
    """Samples in which it halves, continuously."""
    lowest: Fraction = 0.01
    """Share of the learning rate below which it does not fall."""


class Piecewise(_Schedule):
    """The learning rate changes at given numbers of samples."""

    kind: Literal["piecewise"]
    """The schedule."""
    boundaries: Annotated[tuple[_Samples, ...], Field(min_length=1)]
    """Ascending numbers of samples seen."""
    factors: Annotated[tuple[Fraction, ...], Field(min_length=1)]
    """Share of the learning rate from each boundary on; before the first it is 1."""

    @model_validator(mode="after")
    def _check_boundaries(self) -> Self:
        if len(self.boundaries) != len(self.factors):
            counts = f"{len(self.boundaries)} boundaries and {len(self.factors)} factors"
            raise ValueError(f"the schedule has {counts}. hint: one factor for each boundary")
        if any(later <= earlier for earlier, later in zip(self.boundaries, self.boundaries[1:], strict=False)):
            raise ValueError(f"boundaries {list(self.boundaries)} do not ascend. hint: sort them")
        return self


Schedule = Annotated[
    Annotated[Constant, Tag("<constant>")]
    | Annotated[Cosine, Tag("<cosine>")]
    | Annotated[Exponential, Tag("<exponential>")]
    | Annotated[Piecewise, Tag("<piecewise>")],
    by_kind("schedule", ("constant", "cosine", "exponential", "piecewise"), "constant"),
]


class _DenseOptimizer(Section):
    """What every optimizer has."""

    clip_norm: Setting | None = None
    """The gradient of all weights together is scaled down to this norm (Pascanu et al. 2013)."""
    clip_value: Setting | None = None
    """Every element of the gradient is limited to plus or minus this."""
    schedule: Schedule = Constant()

    @model_validator(mode="after")
    def _check_clipping(self) -> Self:
        if self.clip_norm is not None and self.clip_value is not None:
            raise ValueError("clip_norm and clip_value exclude each other. hint: leave one out")
        return self


class DenseAdagrad(_DenseOptimizer):
    """Adagrad (Duchi et al. 2011)."""

    kind: Literal["adagrad"] = "adagrad"
    """The optimizer."""
    learning_rate: Setting | None = None
    """Step size; default: `model.learning_rate`."""
    initial_accumulator: Setting = 0.1
    """What the sum of squared gradients starts at."""


class DenseSgd(_DenseOptimizer):
    """Stochastic gradient descent, with momentum if set."""

    kind: Literal["sgd"]
    """The optimizer."""
    learning_rate: Setting = 0.01
    """Step size."""
    momentum: _Decay = 0.0
    """Share of the last step that is taken again."""
    nesterov: bool = False
    """Nesterov's momentum."""
    weight_decay: _WeightDecay | None = None
    """Share of a weight, times the learning rate, that is taken away at every step."""

    @model_validator(mode="after")
    def _check_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov has no effect without momentum. hint: set momentum, for example 0.9")
        return self


class DenseAdam(_DenseOptimizer):
    """Adam (Kingma and Ba 2015), its variants by the largest gradient (`adamax`) and with Nesterov's momentum
    (`nadam`, Dozat 2016).
    """

    kind: Literal["adam", "adamax", "nadam"]
    """The optimizer."""
    learning_rate: Setting = 0.001
    """Step size."""
    beta1: _Decay = 0.9
    """Decay of the first moment."""
    beta2: _Decay = 0.999
    """Decay of the second moment, or of the largest gradient."""
    epsilon: Setting = 1e-7
    """Added to the root of the second moment."""


class DenseAdamW(_DenseOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"]
    """The optimizer."""
    learning_rate: Setting = 0.001
    """Step size."""
    beta1: _Decay = 0.9
    """Decay of the first moment."""
    beta2: _Decay = 0.999
    """Decay of the second moment."""
    epsilon: Setting = 1e-7
    """Added to the root of the second moment."""
    weight_decay: _WeightDecay = 0.004
    """Share of a weight, times the learning rate, that is taken away at every step."""


class DenseLion(_DenseOptimizer):
    """Lion (Chen et al. 2023): the sign of the momentum."""

    kind: Literal["lion"]
    """The optimizer."""
    learning_rate: Setting = 0.0001
    """Step size."""
    beta1: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Share of the momentum in the step."""
    beta2: _Decay = 0.99
    """Decay of the momentum."""
    weight_decay: _WeightDecay | None = None
    """Share of a weight, times the learning rate, that is taken away at every step."""


class DenseRmsprop(_DenseOptimizer):
    """RMSprop (Tieleman and Hinton 2012)."""

    kind: Literal["rmsprop"]
    """The optimizer."""
    learning_rate: Setting = 0.001
    """Step size."""
    rho: _Decay = 0.9
    """Decay of the mean of squared gradients."""
    momentum: _Decay = 0.0
    """Share of the last step that is taken again."""
    centered: bool = False
    """Divide by the variance of the gradient in place of its square."""
    epsilon: Setting = 1e-7
    """Added to the mean square."""


class DenseFtrl(_DenseOptimizer):
    """FTRL-proximal (McMahan et al. 2013)."""

    kind: Literal["ftrl"]
    """The optimizer."""
    learning_rate: Setting = 0.05
    """Step size."""
    initial_accumulator: Setting = 0.1
    """What the sum of squared gradients starts at."""
    beta: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """β there."""
    l1: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """λ₁ there."""
    l2: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """λ₂ there."""


DenseOptimizer = Annotated[
    Annotated[DenseAdagrad, Tag("<adagrad>")]
    | Annotated[DenseSgd, Tag("<sgd>")]
    | Annotated[DenseAdam, Tag("<adam>")]
    | Annotated[DenseAdamW, Tag("<adamw>")]
    | Annotated[DenseLion, Tag("<lion>")]
    | Annotated[DenseRmsprop, Tag("<rmsprop>")]
    | Annotated[DenseFtrl, Tag("<ftrl>")],
    by_kind(
        "optimizer",
        ("adagrad", "sgd", "adam", "adamax", "nadam", "adamw", "lion", "rmsprop", "ftrl"),
        "adagrad",
        {"adamax": "adam", "nadam": "adam"},
    ),
]
