"""Finds a user's function, `module:function`, beside the configuration file.

A module is loaded afresh each time, in a namespace of its own: two projects in one process may both have a `model.py`,
and neither `sys.path` nor `sys.modules` remembers them. So users import their own modules at the top of a file, not
inside functions.
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


@dataclass(frozen=True)
class UserFunction:
    """A function of the user's, and what identifies its code."""

    reference: str
    """`module:function`"""
    call: Callable[..., Any]
    source_digest: str
    """Hex SHA-256 over the module's source and that of the project's modules it imports."""


def load_function(root: Path, reference: str) -> UserFunction:
    """The function `module:function` of the project in folder `root`. Raises ModelError."""
    module_name, colon, function_name = reference.partition(":")
    if not (module_name and colon and function_name.isidentifier()):
        raise ModelError(f"{reference!r} names no function. hint: write module:function, for example model:build")
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


def _load_module(root: Path, name: str) -> tuple[ModuleType, str]:
    with _LOADING, _imports_from(root) as foreign:
        try:
            module = importlib.import_module(name)
        except Exception as failure:
            raise ModelError(f"importing {name} from {root} failed: {type(failure).__name__}: {failure}") from failure
        return module, _source_digest(_loaded_from(root, foreign))


@contextmanager
def _imports_from(root: Path) -> Iterator[set[str]]:
    """Inside, imports look into `root` first; afterwards nothing loaded from there is left behind.

    Yields the names of the top-level packages that were there before and are not the project's.
    """
    own_names = {path.stem for path in root.glob("*.py")}
    shadowed = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in own_names}
    for name in shadowed:
        del sys.modules[name]
    foreign = {name.partition(".")[0] for name in sys.modules}
    sys.path.insert(0, str(root))
    kept_bytecode_setting, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    importlib.invalidate_caches()
    try:
        yield foreign
    finally:
        sys.dont_write_bytecode = kept_bytecode_setting
        sys.path.remove(str(root))
        for name in _loaded_from(root, foreign):
            del sys.modules[name]
        sys.modules.update(shadowed)


def _loaded_from(root: Path, foreign: set[str]) -> dict[str, Path]:
    """Names and files of the project's modules: importable from `root` itself, `foreign` packages aside."""
    found: dict[str, Path] = {}
    for name, module in list(sys.modules.items()):
        top, file = name.partition(".")[0], getattr(module, "__file__", None)
        if top in foreign or not file or not Path(file).is_relative_to(root):
            continue
        if Path(file).relative_to(root).parts[0] in (top, f"{top}.py"):  # not from a virtual environment below
            found[name] = Path(file)
    return found


def _source_digest(modules: dict[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(modules.items()):
        source = path.read_bytes()
        digest.update(f"{name} {len(source)}\n".encode())
        digest.update(source)
    return digest.hexdigest()
