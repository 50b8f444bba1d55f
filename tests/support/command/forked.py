"""Runs a function in a new process that is forked from one which has imported TensorFlow: the import takes seconds."""

from collections.abc import Callable
from multiprocessing import get_context

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.support.shop.shop"])


def exit_code_of(function: Callable[..., object], *arguments: object) -> int | None:
    """The exit code after `function(*arguments)`, which must be importable; negative for a signal."""
    process = _CONTEXT.Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode
