"""Parts of the model: outputs that are served apart."""

import hashlib
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

    @property
    def digest(self) -> str:
        """Hex digest of which outputs it has, in any order: what its files hold follows from them."""
        return hashlib.sha256("\n".join(sorted(self.labels)).encode()).hexdigest()[:8]

    @property
    def place(self) -> str:
        """The folder of its files. Another definition under its name has another one."""
        return part_place(self.name, self.digest)


def part_place(name: str, digest: str) -> str:
    """The folder of the files of a part, below that of all parts."""
    return f"{name}/{digest}"


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
