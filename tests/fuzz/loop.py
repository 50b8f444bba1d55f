"""Runs one target in this process: `python -m tests.fuzz.loop TARGET [libFuzzer's options] [FILE …]`.

With a file, only that input is run, to reproduce a finding.
"""

import inspect
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import atheris

from pipeline.errors import SpringtideError
from tests.fuzz.targets import TARGETS, Target

_MOST_MEMORY_BYTES = 6 << 30
"""Address space limit: allocations for a damaged length fail."""

_SLOW_S = 2.0
"""Processor time: wall time is meaningless on a busy machine."""


def main(name: str, options: list[str]) -> None:
    """Fuzz until the limit in the options; libFuzzer then ends the process."""
    target = TARGETS[name]
    for function in _own_functions():
        atheris.instrument_func(function)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    seeds = target.seeds()
    target.decode(seeds[0])
    if not any(Path(option).is_file() for option in options):
        options = [*options, _corpus(seeds)]
    atheris.Setup([sys.argv[0], *options], _checked(target), custom_mutator=_mutator(target))
    atheris.Fuzz()


def _own_functions() -> Iterator[Callable[..., Any]]:
    """Every loaded function of springtide: Atheris cannot instrument imports through an editable install's hook."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "pipeline":
            classes = [held for held in vars(module).values() if inspect.isclass(held) and held.__module__ == name]
            for holder in (module, *classes):
                for held in vars(holder).values():
                    function = getattr(held, "__func__", getattr(held, "fget", held))
                    if inspect.isfunction(function) and function.__module__ == name:
                        yield function


def _checked(target: Target) -> Callable[[bytes], None]:
    def run(value: bytes) -> None:
        began_s = time.process_time()
        with suppress(SpringtideError):
            target.decode(value)
        spent_s = time.process_time() - began_s
        assert spent_s < _SLOW_S, f"an input of {len(value)} bytes took {spent_s:.1f} s"

    return run


def _mutator(target: Target) -> Callable[[bytes, int, int], bytes]:
    """Mutations by libFuzzer and structural ones; the checksums are corrected in seven of eight cases."""

    def mutate(value: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        if target.reshape is not None and random.random() < 0.5:
            changed = target.reshape(value, random)
        else:
            changed = bytes(atheris.Mutate(value, most))
        return (target.seal(changed) if random.random() < 0.875 else changed)[:most]

    return mutate


def _corpus(seeds: list[bytes]) -> str:
    folder = Path(tempfile.mkdtemp(prefix="springtide-corpus-"))
    for number, seed in enumerate(seeds):
        (folder / f"seed-{number}").write_bytes(seed)
    return str(folder)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
