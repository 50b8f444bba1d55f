"""The configuration of the model's outputs: labels with their losses."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.configuration.model.towers import TowersConfig
from pipeline.configuration.section import Count, Fraction, Name, Number, Section, Setting
from pipeline.configuration.streams.events import EVENT_TIME, SAMPLE_COLUMNS, Samples

LOSSES = ("logistic", "squared", "huber", "poisson", "softmax", "in_batch")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_LARGEST = 1e15
"""The square of a larger value would not fit 32 bits."""
_DOMAINS = {"logistic": (0.0, 1.0), "poisson": (0.0, _LARGEST), "softmax": (0.0, _LARGEST), "in_batch": (0.0, _LARGEST)}
Link = Literal["sigmoid", "odds", "exp", "identity"]
_LINKS: dict[str, Link] = {"logistic": "sigmoid", "poisson": "exp"}


def _check_loss(loss: str) -> str:
    if loss in LOSSES or _FUNCTION.fullmatch(loss):
        return loss
    raise ValueError(f"loss {loss!r} is unknown. known: {', '.join(LOSSES)}, or your own module:function")


class TopLists(Section):
    """`top` of `[[labels]]`: metrics of the order of each list, by progressive validation. Of lists longer than `k` the
    hit rate HR@k: the share of clicks that are in the label's own top `k`. Of lists longer than `m`, for a label with a
    teacher, the top share: how much of the teacher's top `k` is in the label's own top `m`. Both by outputs before a
    sample is learned, of impressions and candidates; late events do not count.
    """

    k: Count = 10
    """Size of the top that is wanted; at most `m`."""
    m: Count = 100
    """How many samples of a list pass."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.k > self.m:
            raise ValueError(f"k is {self.k}, m {self.m}. hint: k is at most m")
        return self


class LabelConfig(Section):
    """`[[labels]]`: an output of the model: what it predicts, and its loss. In place of `samples.labels`, whose labels
    are all logistic. A label without `event` is that of the further feedback with its name; of the others, the
    first is the click, and each further one is a numeric column of the click event.
    """

    name: Annotated[str, Field(min_length=1)]
    """Name of the label in samples and of the output in serving."""
    event: Name | None = None
    """The feedback that decides it: `clicks` or the NAME of an `[events.NAME]`; default: that with the label's name,
    else clicks."""
    column: str | None = None
    """Numeric column of that event that holds its value; default: with `event`, it is 1 if there is an event."""
    target: str | None = None
    """Another label whose value it learns, with an output of its own and without a column in samples. What is left out
    of `loss` and `correction` is as for that label; so are `delta` and `towers` if the loss is the same, `late_share`
    if its correction has one, and `list_column` if the loss is over lists; with `listwise` or `top` it needs its own.
    The outputs of such labels come after those of all others."""
    loss: Annotated[str, AfterValidator(_check_loss)] = "logistic"
    """`logistic`: log loss of a value from 0 to 1; serving returns a probability. `squared`: (output − value)².
    `huber`: ½(output − value)² up to `delta`, linear beyond. `poisson`: exp(output) − value × output; serving returns
    exp(output). `softmax`: −Σ value × log softmax(output) over a list of samples: ListNet (Cao et al. 2007); serving
    returns the output. `in_batch`: value × softmax over the items of the batch, with two towers (`[labels.towers]`);
    serving returns output and vectors. Or your own `module:function`: a TensorFlow function (target [n], output [n]) →
    loss [n]."""
    list_column: str | None = None
    """`softmax`, `listwise` and `top`: the impression's column whose value the samples of one list share, such as the
    id of a request: those of one batch, which the log decides. The policy of its feedback must be `close`. A sample
    without a value is in no list. A late event is in none either: its list was learned."""
    towers: TowersConfig | None = None
    delta: Setting | None = None
    """`huber`: where the loss becomes linear; default: 1."""
    weight: Setting = 1.0
    """Weight of the label's loss in the objective."""
    teacher: str | None = None
    """A logistic label that teaches this one, also logistic: to its loss is added the log loss against the teacher's
    probability, through which no gradient flows: soft targets (Hinton et al. 2015, "Distilling the Knowledge in a
    Neural Network"), for rankers Tang and Wang 2018, "Ranking Distillation"."""
    distill: Setting | None = None
    """`teacher`: weight of that loss beside the label's own; default: 1."""
    listwise: Setting | None = None
    """`logistic` with `list_column`: weight of a term over the list, beside the label's own loss: the cross entropy of
    each sample's share in the summed probability of its list. Like the log loss, it is smallest at the true
    probabilities: ListCE (Bai et al. 2023, "Regression Compatible Listwise Objectives for Calibrated Ranking with
    Binary Relevance"). Default: none."""
    listwise_target: Literal["teacher", "value"] | None = None
    """`listwise`: whose shares are learned. `teacher`: those of the teacher's probabilities, through which no gradient
    flows. `value`: those of the label's values; a list without a click has none. Default: `teacher` if there is one."""
    top: TopLists | None = None
    """With `list_column`: metrics of the order of each list. Default: none."""
    candidates: bool = False
    """With a `teacher`: it learns the scores of `[events.candidates]` as soft targets too, in place of the teacher's
    probability. They are samples of no other label; of one with two towers they are items."""
    given: Name | None = None
    """Name of a logistic label above this one, without which this one cannot occur, such as the click for a purchase:
    the network's output is the logit of the conditional probability, and the label's prediction is the product of both
    probabilities, learned and served over all impressions: ESMM (Ma et al. 2018)."""
    conditional: Name | None = None
    """With `given`: the name under which that conditional probability is served too. Predictions are then objects with
    a value for each name. Default: it is not served."""
    correction: Literal["reversal", "importance", "calibration"] = "reversal"
    """What a late event does to the negative that was learned for its impression. `reversal`: it takes it back, for any
    loss. `importance`, for `logistic`: it does not; all samples are weighted by the model's own prediction, so that the
    expected gradient is that of the true label, with less variance: ES-DFM (Yang et al. 2021), and for the policy
    `fake_negative` FNW (Ktena et al. 2019). `calibration`, for `logistic` and `fake_negative`: the model learns the
    samples as they are, and its output becomes the true probability b / (1 − b) when it is served and scored: FNC
    (Ktena et al. 2019)."""
    late_share: Fraction | None = None
    """`importance` with the policy `wait` or `close`: share of the positives that come after their window, unless two
    labels estimate it (`estimates`). With `fake_negative` all do."""
    estimates: Literal["delayed_positive", "fake_negative"] | None = None
    """With `target`, a label that has `importance` and no `late_share`: this label does not learn the value, but the
    probability that the event comes after its window (`delayed_positive`), or that a negative is followed by one
    (`fake_negative`). Both are needed; they take the place of the late share in the weights: the two classifiers of
    ES-DFM (Yang et al. 2021), p_dp and 1 − p_rn, learned from the stream."""
    range: tuple[Number, Number] | None = None
    """Smallest and largest value of the event's column; default: all that the loss allows: 0 to 1 for `logistic`, 0 and
    above for `poisson`, numbers up to 10¹⁵ for the others. An event with another value is a dead letter; null counts as
    0."""

    @property
    def source(self) -> str:
        """The label of samples whose value it learns."""
        return self.target or self.name

    @property
    def domain(self) -> tuple[float, float]:
        """Smallest and largest value that the loss allows."""
        return _DOMAINS.get(self.loss, (-_LARGEST, _LARGEST))

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value of the event's column."""
        return self.range or self.domain

    @property
    def corrected_late_share(self) -> float:
        """The share of late positives that weights correct; 0 without such a correction."""
        if self.correction != "importance":
            return 0.0
        return 1.0 if self.late_share is None else self.late_share

    @property
    def logistic(self) -> bool:
        return self.loss == "logistic"

    @property
    def over_lists(self) -> bool:
        """Whether its loss is one over lists, and no other."""
        return self.loss == "softmax"

    @property
    def learns_lists(self) -> bool:
        """Whether what it learns of a sample depends on the others of its list."""
        return self.over_lists or self.listwise is not None

    @property
    def has_lists(self) -> bool:
        """Whether it reads which samples are in one list."""
        return self.learns_lists or self.top is not None

    @property
    def lists_candidates(self) -> bool:
        """Whether candidates that were not shown are in its lists: they have a score and no value."""
        return self.candidates and self.listwise_target != "value"

    @property
    def any_rate(self) -> bool:
        """Whether it may learn from down-sampled negatives."""
        return self.loss in ("logistic", "in_batch")

    @property
    def link(self) -> Link:
        """The function of the output that serving returns."""
        if self.correction == "calibration":
            return "odds"
        return _LINKS.get(self.loss, "identity")

    @property
    def problems(self) -> list[str]:
        """What is wrong with the settings of its loss."""
        problems = self._list_problems
        if self.delta is not None and self.loss != "huber":
            problems.append(f'label {self.name} has delta and loss {self.loss}. hint: delta belongs to loss = "huber"')
        if (self.towers is None) == (self.loss == "in_batch"):
            got = "no towers" if self.towers is None else "towers"
            problems.append(f"label {self.name} has {got} and loss {self.loss}. hint: only in_batch has them")
        if self.correction != "reversal" and not self.logistic:
            problems.append(
                f"label {self.name} has correction {self.correction} and loss {self.loss}. "
                'hint: only loss = "logistic" has it'
            )
        if self.correction != "importance" and self.late_share is not None:
            problems.append(f'label {self.name} has late_share without correction = "importance". hint: leave it out')
        if self.conditional is not None and self.given is None:
            problems.append(f"label {self.name} has conditional {self.conditional} without given. hint: leave it out")
        if self.range:
            (low, high), (least, most) = self.range, self.domain
            if low > high:
                problems.append(
                    f"label {self.name} has range {low:g} to {high:g}. hint: the smallest value comes first"
                )
            elif low < least or high > most:
                allowed = f"{least:g} to {most:g}"
                problems.append(f"label {self.name} has range {low:g} to {high:g}, loss {self.loss} allows {allowed}")
        return problems

    @property
    def _list_problems(self) -> list[str]:
        problems = []
        if (self.list_column is None) == self.has_lists:
            got = "no list_column" if self.list_column is None else f"list_column {self.list_column}"
            reader = next((name for name in ("listwise", "top") if getattr(self, name) is not None), None)
            got += f" and {reader or f'loss {self.loss}'}"
            problems.append(f"label {self.name} has {got}. hint: softmax needs one, and so do listwise and top")
        if self.listwise is not None and not self.logistic:
            problems.append(
                f'label {self.name} has listwise and loss {self.loss}. hint: only loss = "logistic" has a second term'
            )
        if self.listwise is None and self.listwise_target is not None:
            problems.append(f"label {self.name} has listwise_target without listwise. hint: set the weight listwise")
        return problems

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        problems = self.problems
        if self.name in (*SAMPLE_COLUMNS, EVENT_TIME):
            problems.insert(0, f"label {self.name} has the name of a column of samples. hint: rename it")
        problems += [
            f"label {self.name} has target {self.target} and {name}. hint: {name} belongs to {self.target}"
            for name in ("event", "column", "range")
            if self.target is not None and getattr(self, name) is not None
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def with_targets(labels: Sequence[LabelConfig]) -> tuple[LabelConfig, ...]:
    """The labels; those with a target have its settings in place of what they leave out.

    Raises ValueError for a target that does not exist or has one itself, or settings that do not fit its values.
    """
    own = {label.name: label for label in labels if label.target is None}
    problems, resolved = [], []
    for label in labels:
        target = None if label.target is None else own.get(label.target)
        if label.target is not None and target is None:
            problems.append(f"label {label.name} has target {label.target}, wanted one of {', '.join(own) or 'none'}")
        if target is None:
            resolved.append(label)
            continue
        if label.estimates is not None:
            resolved.append(label)
            continue
        resolved.append(_with_settings_of(target, label))
        (least, most), (low, high) = resolved[-1].domain, target.limits
        if low >= least and high <= most:
            problems += [problem + _origin(label) for problem in resolved[-1].problems]
        if low < least or high > most:
            problems.append(
                f"label {label.name} has loss {resolved[-1].loss}, which allows {least:g} to {most:g}; its target "
                f"{target.name} has values from {low:g} to {high:g}. hint: set the range of {target.name}"
            )
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(resolved)


def _with_settings_of(target: LabelConfig, label: LabelConfig) -> LabelConfig:
    """The label with the settings of its target in place of those that it leaves out and that apply to it."""
    given = label.model_fields_set
    taken: dict[str, Any] = {name: getattr(target, name) for name in ("loss", "correction") if name not in given}
    found = label.model_copy(update={**taken, "range": target.range})
    applies = {
        "delta": found.loss == target.loss,
        "towers": found.loss == target.loss,
        "late_share": found.correction == "importance",
        "list_column": found.over_lists,
    }
    names = [name for name, needed in applies.items() if needed and name not in given]
    return found.model_copy(update={name: getattr(target, name) for name in names})


def _origin(label: LabelConfig) -> str:
    """Which settings of a label with a target stand at the target, for a message about them."""
    names = [name for name in ("loss", "correction") if name not in label.model_fields_set]
    return f"; its {' and '.join(names)} {'is' if len(names) == 1 else 'are'} of {label.target}" if names else ""


def label_problems(labels: tuple[LabelConfig, ...], samples: Samples, feedbacks: tuple[Any, ...]) -> list[str]:
    """What is wrong with the labels declared in `[[labels]]` together; `feedbacks` are those of the configuration."""
    if not labels:
        return []
    rate = samples.negative_rate
    problems = [
        f"samples.negative_rate is {rate:g}, but label {label.name} needs whole lists. hint: set negative_rate = 1"
        for label in labels
        if rate < 1 and label.logistic and label.list_column is not None
    ]
    problems += [
        f"samples.{old} and [[labels]] both declare labels. hint: leave samples.{old} out"
        for old in ("labels", "label_ranges")
        if old in samples.model_fields_set
    ]
    columns = {label.name: label.column for feedback in feedbacks for label in feedback.labels}
    problems += [
        f"label {label.name} is of no feedback. hint: declare [events.{label.event or 'clicks'}]"
        if label.name not in columns
        else f"label {label.name} has a range, but it is whether there is an event. hint: leave range out"
        for label in labels
        if label.target is None and (label.name not in columns or (label.range and columns[label.name] is None))
    ]
    problems += [
        f"samples.negative_rate is {rate:g}, but label {label.name} has loss {label.loss}: only logistic "
        "predictions can be corrected for left out negatives. hint: set negative_rate = 1"
        for label in labels
        if rate < 1 and not label.any_rate
    ]
    return problems
