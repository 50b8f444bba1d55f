"""The body of a prediction request, parsed in pieces: a large body does not occupy the interpreter, and is
never all objects at once.

A scan in NumPy finds the brackets and commas outside strings, some kilobytes at a time, because a cumulative sum does
not release the interpreter. Every bound is checked before anything is parsed. The array of instances is cut at its
commas. The pieces, and the body without them, are each parsed strictly; together
they are the body, so what is accepted is JSON.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic_core import from_json

from pipeline.arrays.types import Int32s, UInt8s
from pipeline.configuration.deployment.serving import Serving
from pipeline.errors import InputError
from pipeline.serving.link.response import Refusal

_PIECE_INSTANCES = 128
_PIECE_VALUES = 2_048
_SCANNED_AT_ONCE = 32 << 10
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

    places: Int32s
    """[k] byte offsets."""
    codes: UInt8s
    """[k] the bytes there."""
    depths: Int32s
    """[k] nesting after each."""
    values: Int32s
    """[k] commas and opening brackets up to each: at least the number of values."""


def parse_instances(body: bytes, bounds: Serving, pause: Callable[[], None]) -> Iterator[list[Any]]:
    """Pieces of the instances of a body, in order; `pause` is called between two steps of some milliseconds.

    Raises:
        InputError: the body is not JSON, or has no instances.
        Refusal: the body has more instances, values or levels than `bounds` allow.
    """
    body = body.removeprefix(_BOM)
    structure = _scan(body, pause)
    depth = int(structure.depths.max(initial=0))
    if depth > bounds.max_depth:
        raise Refusal(400, f"body is nested {depth} deep, at most {bounds.max_depth} levels are accepted")
    found = _array_of_instances(body, structure)
    if found is None:
        yield _parse_whole(body, structure)
        return
    begin, end = found
    _check_rest(body, structure, begin, end)
    for number, piece in enumerate(_parse_pieces(body, structure, begin, end, bounds)):
        if number:
            pause()
        yield piece


def _scan(body: bytes, pause: Callable[[], None]) -> _Structure:
    none = np.empty(0, np.int32)
    parts = [(none, np.empty(0, np.uint8), none, none)]
    escaped, inside, depth, values = False, 0, 0, 0
    for start in range(0, len(body), _SCANNED_AT_ONCE):
        if start:
            pause()
        plain, escaped = _without_escaped_quotes(body[start : start + _SCANNED_AT_ONCE], escaped)
        codes = np.frombuffer(plain, np.uint8)
        in_string = (np.cumsum(codes == ord('"'), dtype=np.uint8) + np.uint8(inside)) & 1
        places = np.flatnonzero(_STRUCTURAL[codes] & (in_string == 0))
        found = codes[places]
        steps = _STEPS[found]
        depths = np.cumsum(steps, dtype=np.int32) + np.int32(depth)
        counts = np.cumsum((found == ord(",")) | (steps > 0), dtype=np.int32) + np.int32(values)
        parts.append(((places + start).astype(np.int32), found, depths, counts))
        inside = int(in_string[-1])
        if len(found):
            depth, values = int(depths[-1]), int(counts[-1])
    return _Structure(*map(np.concatenate, zip(*parts, strict=True)))


def _without_escaped_quotes(part: bytes, escaped: bool) -> tuple[bytes, bool]:
    """A part of a body in which every quote begins or ends a string; `escaped`: its first byte is.

    Returns also whether the first byte of the next part is escaped.
    """
    if escaped and part[:1] in (b'"', b"\\"):
        part = b" " + part[1:]
    if b"\\" not in part:
        return part, False
    part = part.replace(rb"\\", b"  ")
    return part.replace(rb"\"", b"  "), part.endswith(b"\\")


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
    values = structure.values[edges]
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
