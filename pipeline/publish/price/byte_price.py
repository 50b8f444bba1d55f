"""The price of a byte: how much loss serving keeps for each byte that is not sent. Pure functions of numbers.

`[publish] loss` allows serving a share of the trainer's own loss. The price follows from that (`loss_sample`): rows are
sent if that takes more off the loss than their bytes are worth, and the steps of rows follow from the same price.
Losses of rows are estimates from curvatures; how much predictions of serving and trainer really differ corrects them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

_LEARNING = 1 / 8
"""Weight of the newest measurement in the correction."""
_RISING, _FALLING = 1 / 16, 1 / 4
"""How fast the price rises and falls: rows that are sent reduce the loss at once, others raise it as they move."""
_LARGEST_RATIO = 4.0
_LARGEST_CORRECTION, _LARGEST_FIT, _LARGEST_SCALE = 32.0, 16.0, 65_536.0
_LEAST_PREDICTED = 1 / 4
"""Measurements count from this share of the allowed loss on: after a full, little is withheld."""
_HYSTERESIS = 2.0
_STEP_SQUARE = 12.0
"""Square of a step times curvature, in prices of a byte."""


@dataclass(frozen=True)
class Price:
    """The price as of a commit, a part of its version.

    Attributes:
        per_byte: summed loss per byte above which a row is sent; 0 before there is a loss.
        for_steps: the price that fixes the steps of rows, an earlier one until it is off by more than a factor of two.
        correction: measured over estimated loss, averaged over commits.
        estimate: loss of serving relative to the trainer's, before the correction.
        fit: estimated loss over the one expected at the price.
        halvings: the estimate is made from one row in 2^halvings.
        dense_scale: loss that an error as large as the dense weights would cost, relative to the trainer's; measured.
        dense_estimate: part of `estimate`, by dense weights.

    >>> Price(for_steps=2.0).at(8.0).for_steps, Price(for_steps=2.0).at(3.0).for_steps
    (8.0, 2.0)
    """

    per_byte: float = 0.0
    for_steps: float = 0.0
    correction: float = 1.0
    estimate: float = 0.0
    fit: float = 1.0
    halvings: int = 0
    dense_scale: float = 4.0
    dense_estimate: float = 0.0

    @classmethod
    def of(cls, numbers: Mapping[str, float]) -> "Price":
        """That of a version, `Commit.price`; the first one of nothing."""
        return cls(**{name: type(default)(numbers.get(name, default)) for name, default in vars(cls()).items()})

    def numbers(self) -> dict[str, float]:
        """As `Commit.price`."""
        return dict(vars(self))

    @property
    def predicted(self) -> float:
        """Loss of serving by what is withheld and rounded, relative to the trainer's."""
        return self.correction * self.estimate

    @property
    def unit(self) -> float:
        """The square of a row's step times its curvature."""
        return _STEP_SQUARE * self.for_steps

    def allowed(self, share: float, loss: float) -> float:
        """The loss to expect of serving: `share` of the trainer's summed `loss`, none of a negative one."""
        return max(share * loss / (self.correction * self.fit), 0.0)

    def at(self, per_byte: float) -> "Price":
        """The same at another price, with its steps if those are off by more than a factor of two."""
        fits = self.for_steps <= _HYSTERESIS * per_byte and per_byte <= _HYSTERESIS * self.for_steps
        return replace(self, per_byte=per_byte, for_steps=self.for_steps if fits else per_byte)

    def estimated(self, estimate: float, share: float | None, dense: float = 0.0) -> "Price":
        """With the loss of serving after a commit, `dense` of it by dense weights; it was to be `share`, unless None.

        >>> Price().estimated(0.0001, share=0.0002).fit, Price().estimated(0.0004, share=0.0002).fit
        (0.96875, 1.25)
        """
        price = replace(self, estimate=estimate, dense_estimate=dense)
        if share is None:
            return price
        ratio = min(price.predicted / share, _LARGEST_RATIO)
        fit = self.fit * (1 + (_FALLING if ratio > 1 else _RISING) * (ratio - 1))
        return replace(price, fit=_bounded(fit, _LARGEST_FIT))

    def corrected(self, measured: float, share: float, dense: float | None = None) -> "Price":
        """After the loss of serving was measured, relative to the trainer's; `share` is the one that is allowed.

        `dense`: what serving loses by its dense weights alone; None if that was not measured.

        >>> Price(estimate=0.0002).corrected(0.0004, share=0.0002).correction
        1.125
        """
        price = self if dense is None else self._dense_corrected(dense)
        if not self.predicted > _LEAST_PREDICTED * share:
            return price
        correction = _learned(self.correction, measured / self.predicted)
        return replace(price, correction=_bounded(correction, _LARGEST_CORRECTION))

    def _dense_corrected(self, measured: float) -> "Price":
        estimate = self.correction * self.dense_estimate
        if not estimate > 0:
            return self
        return replace(self, dense_scale=_bounded(_learned(self.dense_scale, measured / estimate), _LARGEST_SCALE))


def _learned(factor: float, ratio: float) -> float:
    """A factor after one measurement, `ratio` times what was expected by it."""
    return factor * (1 + _LEARNING * (min(ratio, _LARGEST_RATIO) - 1))


def _bounded(factor: float, largest: float) -> float:
    return min(max(factor, 1 / largest), largest)
