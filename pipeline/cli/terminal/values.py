"""How values are shown: plain values for JSON that scripts read without loss, and text that controls no terminal.

Times are shown in one form everywhere, RFC 3339 in UTC: `2026-01-31T14:00:00Z`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.filesize import pick_unit_and_suffix

from pipeline.process.clock import LATEST_MS
from pipeline.process.instant import format_instant

_IN_SECONDS, _IN_MINUTES = 120, 7_200
_DIGEST = re.compile("(?:.*_)?(digest|sha256)")
"""Names of digests, which text shortens; a value of the user that looks like a digest is shown in full."""
_EXACT = 1 << 53
"""Integers up to this size are exact in every reader of JSON; larger ones become strings."""
_INSTANT = re.compile("(?:.*_)?(at|log_time|watermark|start)_ms")
"""Names of times in milliseconds since 1970; all other names that end in `_ms` are durations."""
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move the cursor, reorder text or cannot be encoded."""


def to_plain(value: Any) -> Any:
    """The value in types of JSON.

    A time in milliseconds loses the unit in its name and is shown in RFC 3339. Integers that a reader with 64-bit
    floats would round, and floats that JSON does not have, become strings.

    >>> to_plain({"log_time_ms": 1_573_257_673_000, "retention_ms": 5, "size": 2**60, "loss": float("nan")})
    {'log_time': '2019-11-09T00:01:13Z', 'retention_ms': 5, 'size': '1152921504606846976', 'loss': 'NaN'}
    """
    if isinstance(value, Mapping):
        return dict(_plain_item(str(name), item) for name, item in value.items())
    if hasattr(value, "tolist"):
        return to_plain(value.tolist())
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, datetime):
        return format_time(round(value.timestamp() * 1000))
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and abs(value) > _EXACT:
        return str(value)
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def printable(text: str) -> str:
    r"""The text on one line, with control characters as escape sequences.

    >>> printable("\x1b[2Jgelöscht\r\n")
    '\\x1b[2Jgelöscht\\r\\n'
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def text_of(value: Any, name: str = "") -> str:
    """Text of a plain value. Digests are shortened; --json prints them in full."""
    if value is None or value == [] or value == () or value == {}:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and _DIGEST.fullmatch(name):
        return value[:12] + "…"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(text_of(item) for item in value)
    return printable(str(value))


def format_time(at_ms: int | None) -> str | None:
    """RFC 3339 in UTC of milliseconds since 1970; None for a negative time, which means that nothing was seen yet.

    >>> format_time(1_573_257_673_000), format_time(1_573_257_673_250)
    ('2019-11-09T00:01:13Z', '2019-11-09T00:01:13.250Z')
    """
    return None if at_ms is None or at_ms < 0 else format_instant(at_ms)


def format_range(from_ms: int, to_ms: int) -> dict[str, str | None]:
    """A range of times, end exclusive; None for an end that excludes no time.

    >>> format_range(0, LATEST_MS + 1), format_range(1, 1000)
    ({'from': None, 'to': None}, {'from': '1970-01-01T00:00:00.001Z', 'to': '1970-01-01T00:00:01Z'})
    """
    ends = {"from": from_ms if from_ms > 0 else None, "to": to_ms if to_ms <= LATEST_MS else None}
    return {name: format_time(at_ms) for name, at_ms in ends.items()}


def format_size(count: int) -> str:
    """A number of bytes with a unit.

    >>> format_size(0), format_size(1_023), format_size(100_264), format_size(3 << 30)
    ('0 B', '1023 B', '98 KiB', '3 GiB')
    """
    unit, suffix = pick_unit_and_suffix(count, ["B", "KiB", "MiB", "GiB", "TiB"], 1024)
    return f"{count / unit:.0f} {suffix}"


def format_age(at_ms: int | None, now_ms: int) -> str:
    """The age of an event at `at_ms`.

    >>> format_age(1_000, 4_500), format_age(0, 600_000), format_age(0, 8_000_000), format_age(None, 0)
    ('3 s ago', '10 min ago', '2 h ago', 'never')
    """
    if at_ms is None:
        return "never"
    seconds = max(0, now_ms - at_ms) // 1000
    if seconds < _IN_SECONDS:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < _IN_MINUTES else f"{seconds // 3600} h ago"


def _plain_item(name: str, value: Any) -> tuple[str, Any]:
    if name == "quarantine_ms":
        return "quarantine", format_range(*value)
    if _INSTANT.fullmatch(name) and (value is None or isinstance(value, int)):
        return name.removesuffix("_ms"), format_time(value)
    return name, to_plain(value)
