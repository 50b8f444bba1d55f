"""Parts of the model: outputs that are served apart."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from pipeline.configuration.section import Name, Section, declared_twice


class PartConfig(Section):
    """`[[parts]]`: outputs of the model that a replica may serve apart. It then holds the rows and dense
    weights that these outputs depend on, and no others. `model.build` returns its outputs by name.
    """

    name: Name
    """Name of the part: `springtide replica --part NAME`."""
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    """The labels whose outputs it serves, in this order."""


def part_problems(parts: Sequence[PartConfig], labels: Sequence[str], served: str | None) -> list[str]:
    """What is wrong with the parts of a model with outputs for `labels`, and with `serving.part`."""
    names = [part.name for part in parts]
    problems = declared_twice("part", names)
    for part in parts:
        problems += [f"part {part.name}: {problem}" for problem in declared_twice("label", part.labels)]
        problems += [
            f"part {part.name} has label {label}, which does not exist. known: {', '.join(labels)}"
            for label in part.labels
            if label not in labels
        ]
    if served is not None and served not in names:
        known = f"known: {', '.join(names)}" if names else "hint: declare it in [[parts]]"
        problems.append(f"serving.part {served} does not exist. {known}")
    return problems
