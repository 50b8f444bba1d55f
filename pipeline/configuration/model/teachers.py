"""Labels that learn from the prediction of another label, beside their own value."""

from collections.abc import Sequence

from pipeline.configuration.model.labels import LabelConfig


def teacher_problems(labels: Sequence[LabelConfig]) -> list[str]:
    """What is wrong with `teacher` and `distill` of the labels.

    >>> teacher_problems([LabelConfig(name="fine"), LabelConfig(name="coarse", teacher="fin")])
    ['label coarse has teacher fin, which does not exist. known: fine, coarse']
    """
    known = {label.name: label for label in labels}
    return [problem for label in labels for problem in _problems_of(label, known.get(label.teacher or ""), list(known))]


def _problems_of(label: LabelConfig, teacher: LabelConfig | None, known: Sequence[str]) -> list[str]:
    if label.teacher is None:
        of_teacher = {
            "distill": label.distill,
            "listwise_target teacher": label.listwise_target == "teacher" or None,
            "candidates": label.candidates or None,
        }
        return [
            f"label {label.name} has {name} without teacher. hint: name a teacher"
            for name, value in of_teacher.items()
            if value is not None
        ]
    if teacher is None:
        return [f"label {label.name} has teacher {label.teacher}, which does not exist. known: {', '.join(known)}"]
    if teacher is label:
        return [f"label {label.name} is its own teacher. hint: name another label"]
    problems = [
        f'label {each.name} has loss {each.loss}, but {label.name} has teacher {teacher.name}. hint: loss = "logistic" '
        "for both"
        for each in (label, teacher)
        if not each.logistic
    ]
    if not problems and label.link != teacher.link:
        problems.append(
            f"label {label.name} has correction {label.correction}, its teacher {teacher.name} {teacher.correction}: "
            "their outputs are not the same probability. hint: correction = calibration for both or none"
        )
    return problems
