"""Labels that are predicted as the product of a given label and a conditional probability."""

from collections.abc import Sequence

from pipeline.configuration.model.labels import LabelConfig


def given_problems(labels: Sequence[LabelConfig]) -> list[str]:
    """What is wrong with `given` and `conditional` of the labels, which are in the order of the file.

    >>> given_problems([LabelConfig(name="ctr"), LabelConfig(name="bought", given="ctr", conditional="cvr")])
    []
    """
    problems, before = [], dict[str, LabelConfig]()
    for label in labels:
        if label.given is not None:
            problems += _problems_of(label, label.given, before.get(label.given))
        before[label.name] = label
    used = set(before)
    for label in labels:
        if label.conditional in used:
            problems.append(
                f"label {label.name} has conditional {label.conditional}, which is the name of another output. "
                "hint: rename it"
            )
        used |= {label.conditional} if label.conditional else set()
    return problems


def names_served(labels: Sequence[LabelConfig], chosen: Sequence[str]) -> tuple[str, ...]:
    """The columns of predictions of the labels `chosen`: these, then their conditional probabilities that are served.

    >>> names_served([LabelConfig(name="ctr"), LabelConfig(name="bought", given="ctr", conditional="cvr")], ["bought"])
    ('bought', 'cvr')
    """
    conditional = {label.name: label.conditional for label in labels}
    return (*chosen, *(name for label in chosen if (name := conditional[label])))


def served_name(names: Sequence[str], vectors: Sequence[str], column: int, columns: int) -> str:
    """The name that a column of predictions belongs to: `names`, a column each, then `vectors`, all of one dim.

    >>> [served_name(["label"], ["user", "item"], column, 5) for column in (0, 2, 3)]
    ['label', 'user', 'item']
    """
    if column < len(names):
        return names[column]
    return vectors[(column - len(names)) * len(vectors) // (columns - len(names))]


def with_given(labels: Sequence[LabelConfig], chosen: Sequence[str]) -> tuple[str, ...]:
    """The labels whose outputs predictions of the labels `chosen` depend on, in the order of `labels`.

    >>> labels = [LabelConfig(name="ctr"), LabelConfig(name="like"), LabelConfig(name="bought", given="ctr")]
    >>> with_given(labels, ["bought"])
    ('ctr', 'bought')
    """
    given, needed = {label.name: label.given for label in labels}, set[str]()
    for label in chosen:
        name: str | None = label
        while name is not None:
            needed.add(name)
            name = given[name]
    return tuple(label.name for label in labels if label.name in needed)


def _problems_of(label: LabelConfig, name: str, given: LabelConfig | None) -> list[str]:
    if given is None:
        return [
            f"label {label.name} is given {name}, which is not a label before it. "
            f"hint: declare {name} in [[labels]] above {label.name}"
        ]
    problems = [
        f'label {each.name} has loss {each.loss}, but {label.name} is given {name}. hint: loss = "logistic" for both'
        for each in (label, given)
        if not each.logistic
    ]
    # Of fake negatives as they are, the shares of two labels have no product.
    return problems + [
        f"label {each.name} has correction calibration, but {label.name} is given {name}. "
        'hint: correction = "reversal" or "importance"'
        for each in (label, given)
        if each.correction == "calibration"
    ]
