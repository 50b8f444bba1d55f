"""Times as text: the one form in which they are shown, RFC 3339 in UTC, and how they are read."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def format_instant(at_ms: int) -> str:
    """A time in milliseconds since 1970; in ms if its year does not have four digits.

    >>> format_instant(1_573_257_673_000), format_instant(1_573_257_673_250), format_instant(10**15)
    ('2019-11-09T00:01:13Z', '2019-11-09T00:01:13.250Z', '1000000000000000 ms')
    """
    try:
        time = _EPOCH + timedelta(milliseconds=at_ms)
    except OverflowError:
        return f"{at_ms} ms"
    return time.isoformat(timespec="milliseconds" if at_ms % 1000 else "seconds").replace("+00:00", "Z")


def parse_instant(text: str) -> int:
    """Milliseconds since 1970 of a time in ISO 8601, UTC unless it has a zone.

    Raises ValueError, and TypeError for what is no text.

    >>> parse_instant("2019-11-09T00:01:13"), parse_instant("2019-11-09T01:01:13.250+01:00")
    (1573257673000, 1573257673250)
    """
    time = datetime.fromisoformat(text)
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
