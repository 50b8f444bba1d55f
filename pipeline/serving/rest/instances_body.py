"""The body of a prediction request, parsed in pieces: a large body does not occupy the interpreter, and is
never all objects at once.

A scan in NumPy finds the brackets and commas outside strings. It checks every bound before anything is parsed, and
cuts the array of instances at its commas. The pieces, and the body without them, are each parsed strictly; together
they are the body, so what is accepted is JSON.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json

from pipeline.arrays.types import Int64s
from pipeline.configuration.deployment.serving import Serving
from pipeline.errors import InputError
from pipeline.serving.rest.response import Refusal

_PIECE_INSTANCES = 128
_PIECE_VALUES = 2_048
_OTHER_VALUES = 10_000
"""Values of a body outside its instances."""
_BOM = b"\xef\xbb\xbf"
_KEY_OF_INSTANCES = re.compile(rb'"instances"\s{0,64}:\s{0,64}$')
_LONGEST_KEY = 160
_HINT = 'hint: {"instances": [{"column": value}]}'

_STEPS = np.zeros(256, np.int8)
_STEPS[[ord("["), ord("{")]], _STEPS[[ord("]"), ord("}")]] = 1, -1
_STRUCTURAL = _STEPS != 0
_STRUCTURAL[ord(",")] = True


@dataclass(frozen=True)
class _Structure:
    """The k brackets and commas of a body outside its strings."""

    places: Int64s
    """[k] byte offsets."""
    codes: npt.NDArray[np.uint8]
    """[k] the bytes there."""
    depths: npt.NDArray[np.int32]
    """[k] nesting after each."""

    def values(self) -> Int64s:
        """[k] commas and opening brackets up to each: at least the number of values."""
        return np.cumsum((self.codes == ord(",")) | (_STEPS[self.codes] > 0))


def parse_instances(body: bytes, bounds: Serving) -> Iterator[list[Any]]:
    """Pieces of the instances of a body, in order.

    Raises:
        InputError: the body is not JSON, or has no instances.
        Refusal: the body has more instances, values or levels than `bounds` allow.
    """
    body = body.removeprefix(_BOM)
    structure = _scan(body)
    depth = int(structure.depths.max(initial=0))
    if depth > bounds.max_depth:
        raise Refusal(400, f"body is nested {depth} deep, at most {bounds.max_depth} levels are accepted")
    found = _array_of_instances(body, structure)
    if found is None:
        yield _parse_whole(body, structure)
        return
    begin, end = found
    _check_rest(body, structure, begin, end)
    yield from _parse_pieces(body, structure, begin, end, bounds)


def _scan(body: bytes) -> _Structure:
    # Without escaped quotes, every quote begins or ends a string.
    plain = body.replace(rb"\\", b"  ").replace(rb"\"", b"  ") if b"\\" in body else body
    codes = np.frombuffer(plain, np.uint8)
    inside = np.cumsum(codes == ord('"'), dtype=np.uint8) & 1
    places = np.flatnonzero(_STRUCTURAL[codes] & (inside == 0))
    found = codes[places]
    return _Structure(places, found, np.cumsum(_STEPS[found], dtype=np.int32))


def _array_of_instances(body: bytes, structure: _Structure) -> tuple[int, int] | None:
    """Indices in `structure` of the brackets of the array `instances`; None if there is not exactly one."""
    opened = np.flatnonzero((structure.codes == ord("[")) & (structure.depths == 2))
    if len(opened) > _OTHER_VALUES:
        return None
    places = structure.places
    named = [i for i in opened if _KEY_OF_INSTANCES.search(body, max(0, places[i] - _LONGEST_KEY), places[i])]
    if len(named) != 1:
        return None
    closed = np.flatnonzero(structure.depths[named[0] :] < 2)
    return (int(named[0]), int(named[0] + closed[0])) if len(closed) else None


def _parse_whole(body: bytes, structure: _Structure) -> list[Any]:
    """The instances of a body whose array was not found by its name, for example because the name is escaped."""
    if len(structure.places) > _OTHER_VALUES:
        raise InputError(f"body has no instances, or several times. {_HINT}")
    return _instances(_parse(body, "body"))


def _check_rest(body: bytes, structure: _Structure, begin: int, end: int) -> None:
    """Raise InputError if the body without its instances is not an object with an empty array of instances."""
    if len(structure.places) - (end - begin) > _OTHER_VALUES:
        raise InputError(f"body has more than {_OTHER_VALUES} values outside its instances. {_HINT}")
    request = _parse(body[: structure.places[begin] + 1] + body[structure.places[end] :], "body")
    if not isinstance(request, dict) or request.get("instances") != []:
        raise InputError(f"body has no instances. {_HINT}")


def _parse_pieces(body: bytes, structure: _Structure, begin: int, end: int, bounds: Serving) -> Iterator[list[Any]]:
    places = structure.places
    inner = np.arange(begin + 1, end)
    commas = inner[(structure.codes[inner] == ord(",")) & (structure.depths[inner] == 2)]
    count = len(commas) + 1
    if count > bounds.max_instances:
        raise Refusal(413, f"request has {count} instances, at most {bounds.max_instances} are accepted")
    # Instance i lies between the structural bytes edges[i] and edges[i + 1].
    edges = np.concatenate([[begin], commas, [end]])
    values = structure.values()[edges]
    largest = int(np.diff(values).max())
    if largest > bounds.max_instance_values:
        number = int(np.diff(values).argmax())
        at_most = f"at most {bounds.max_instance_values} are accepted"
        raise Refusal(413, f"instance {number} has about {largest} values, {at_most}")
    first = 0
    while first < count:
        filled = int(np.searchsorted(values, values[first] + _PIECE_VALUES, "right")) - 1
        last = min(count, first + _PIECE_INSTANCES, max(first + 1, filled))
        piece = body[places[edges[first]] + 1 : places[edges[last]]]
        if not piece.strip() and count == 1:
            raise InputError(f"body has no instances. {_HINT}")
        instances = _parse(b"[" + piece + b"]", f"body, instances {first} to {last - 1}")
        if len(instances) != last - first:
            raise InputError(f"body is not json: a value is missing in instances {first} to {last - 1}")
        yield instances
        first = last


def _parse(text: bytes, what: str) -> Any:
    try:
        return from_json(text)
    except ValueError as failure:
        raise InputError(f"{what} is not json: {failure}") from None


def _instances(request: Any) -> list[Any]:
    instances = request.get("instances") if isinstance(request, dict) else None
    if not isinstance(instances, list) or not instances:
        raise InputError(f"body has no instances. {_HINT}")
    return instances
