"""Loads a user's function, `module:function`, from the folder of the configuration file.

A module is loaded anew each time and leaves no trace in `sys.path` and `sys.modules`, so two projects in one process
may both have a `model.py`. Users therefore import their modules at the top of a file, not inside functions.
"""

import hashlib
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.errors import ModelError

_LOADING = threading.RLock()
_SHOWN = 400
"""Characters of an exception's text that are shown; TensorFlow writes pages, with the reason at the end."""


@dataclass(frozen=True)
class UserFunction:
    """A user's function and the digest of its code."""

    reference: str
    """`module:function`"""
    call: Callable[..., Any]
    source_digest: str
    """Hex SHA-256 over the source of the module and of the project's modules that it imports."""


def load_function(root: Path, reference: str) -> UserFunction:
    """The function `module:function` of the project in folder `root`. Raises ModelError."""
    module_name, colon, function_name = reference.partition(":")
    if not (module_name and colon and function_name.isidentifier()):
        raise ModelError(
            f"{reference!r} is not the name of a function. hint: write module:function, for example model:build"
        )
    path = root.joinpath(*module_name.split("."))
    if not (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()):
        raise ModelError(
            f"{reference} needs {path.with_suffix('.py')}, which does not exist. hint: springtide init writes one"
        )
    module, digest = _load_module(root, module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ModelError(f"{path.with_suffix('.py')} defines no function {function_name}, wanted by {reference}")
    return UserFunction(reference, function, digest)


def summary_of(failure: BaseException) -> str:
    """An exception of a user's code in one line.

    >>> summary_of(KeyError("usr")), summary_of(SystemExit(3))
    ("KeyError: 'usr'", 'it called sys.exit(3)')
    """
    if isinstance(failure, SystemExit):
        return f"it called sys.exit({'' if failure.code is None else repr(failure.code)})"
    text = " ".join(str(failure).split())
    if len(text) > _SHOWN:
        text = f"{text[: _SHOWN // 4]} … {text[-_SHOWN:]}"
    return f"{type(failure).__name__}: {text}"


def failing_row(rows: int, call: Callable[[slice], object]) -> int | None:
    """The first row on which a function fails alone; None if it only fails on several together.

    Args:
        rows: number of rows on which it fails.
        call: calls it on some of them; it fails if this raises.

    >>> values = [1] * 42 + [0] + [1] * 957
    >>> failing_row(1000, lambda rows: [1 / value for value in values[rows]])
    42
    """
    low, high = 0, rows
    while high - low > 1:
        middle = (low + high) // 2
        if _fails(call, slice(low, middle)):
            high = middle
        elif _fails(call, slice(middle, high)):
            low = middle
        else:
            return None
    return low if rows else None


def _fails(call: Callable[[slice], object], rows: slice) -> bool:
    try:
        call(rows)
    except (Exception, SystemExit):
        return True
    return False


def _load_module(root: Path, name: str) -> tuple[ModuleType, str]:
    with _LOADING, _imports_from(root) as foreign:
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as failure:
            raise ModelError(f"importing {name} from {root} failed: {summary_of(failure)}") from failure
        return module, _source_digest(_loaded_from(root, foreign))


@contextmanager
def _imports_from(root: Path) -> Iterator[set[str]]:
    """Inside, imports search `root` first; afterwards the modules loaded from there are removed.

    Yields the names of the top-level packages that were loaded before and are not the project's.
    """
    project_names = {path.stem for path in root.glob("*.py")}
    # A copy, made in one step: another thread of the process may import meanwhile.
    loaded = sys.modules.copy()
    shadowed = {name: module for name, module in loaded.items() if name.partition(".")[0] in project_names}
    for name in shadowed:
        del sys.modules[name]
    foreign = {name.partition(".")[0] for name in loaded if name not in shadowed}
    sys.path.insert(0, str(root))
    bytecode_setting, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    importlib.invalidate_caches()
    try:
        yield foreign
    finally:
        sys.dont_write_bytecode = bytecode_setting
        sys.path.remove(str(root))
        for name in _loaded_from(root, foreign):
            del sys.modules[name]
        sys.modules.update(shadowed)


def _loaded_from(root: Path, foreign: set[str]) -> dict[str, Path]:
    """Names and files of the project's modules: those importable from `root`, without `foreign` packages."""
    modules: dict[str, Path] = {}
    for name, module in sys.modules.copy().items():
        top, file = name.partition(".")[0], getattr(module, "__file__", None)
        if top in foreign or not file or not Path(file).is_relative_to(root):
            continue
        if Path(file).relative_to(root).parts[0] in (top, f"{top}.py"):  # not from a virtual environment below
            modules[name] = Path(file)
    return modules


def _source_digest(modules: dict[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(modules.items()):
        source = path.read_bytes()
        digest.update(f"{name} {len(source)}\n".encode())
        digest.update(source)
    return digest.hexdigest()
