"""Structural mutations: changes one value, key or list of a JSON document."""

import json
from random import Random
from typing import Any

from tests.fuzz.seals import ContainerParts, parsed

_ODD = (
    None, True, False, 0, 1, -1, 2**31, 2**32, 2**63, -(2**63), 2**64, 10**30, 0.5, 1e308, "", "x", "0", "../x",
    "\ud800", "g0/s0-of-1/1", "<f4", "|O", [], [0], [[]], {}, {"x": 1},
)  # fmt: skip


def whole_text(value: bytes, random: Random) -> bytes:
    """Mutate a JSON file."""
    return _mutated_text(parsed(value), random) or value


def container_header(value: bytes, random: Random) -> bytes:
    """A container, whose header is JSON."""
    if len(value) < 40:
        return value
    parts = ContainerParts.of(value)
    header = _mutated_text(parsed(parts.header), random)
    return value if header is None else parts._replace(header=header).sealed()


def _mutated_text(document: Any, random: Random) -> bytes | None:
    if document is None:
        return None
    return json.dumps(_mutated(document, random), sort_keys=True, separators=(",", ":")).encode()


def _mutated(node: Any, random: Random) -> Any:
    """The node with one descendant, or itself, replaced, removed or duplicated."""
    if not isinstance(node, dict | list) or not node or random.random() < 0.05:
        return random.choice(_ODD)
    place = random.choice(list(node) if isinstance(node, dict) else range(len(node)))
    copy = node.copy()
    choice = random.random()
    if choice < 0.1:
        del copy[place]
    elif choice < 0.2 and isinstance(copy, list):
        copy.insert(place, copy[place])
    elif choice < 0.2:
        copy[str(place) + "x"] = copy[place]
    else:
        copy[place] = _mutated(copy[place], random)
    return copy
