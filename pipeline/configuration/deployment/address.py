"""Syntax of addresses in the configuration: Kafka's brokers, Flink's REST, webhooks, registries. No network."""

import re
from urllib.parse import urlsplit

_HOST = r"(?:[\w.-]+|\[[\da-fA-F:.]+\])"
_BROKER = re.compile(rf"{_HOST}:(\d+)")
_REST = re.compile(rf"(?:https?://)?{_HOST}(?::(\d+))?(?:/\S*)?")
_MAX_PORT = 65_535


def check_brokers(text: str) -> str:
    """Return `text` if it is `host:port` or a comma-separated list of these; else raise ValueError.

    >>> check_brokers("kafka-1:9092, [::1]:9092")
    'kafka-1:9092, [::1]:9092'
    """
    wrong = [repr(broker.strip()) for broker in text.split(",") if not _matches(_BROKER, broker.strip())]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} is not host:port. hint: 'host:9092', several separated by commas")
    return text


def check_rest(text: str) -> str:
    """Return `text` if it is an HTTP address; the scheme defaults to http. Else raise ValueError.

    >>> check_rest("https://flink.example.com/live")
    'https://flink.example.com/live'
    """
    if not _matches(_REST, text):
        raise ValueError(f"{text!r} is not an http or https address. hint: 'http://host:8081'")
    return text


def check_webhook(text: str) -> str:
    """Return `text` if it is an http or https URL with a host; else raise ValueError, which does not show the text.

    >>> check_webhook("https://hooks.example.com/T0/B0")
    'https://hooks.example.com/T0/B0'
    """
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not text.isprintable() or " " in text:
        raise ValueError("not an http or https URL. hint: 'https://host/path'; spaces as %20")
    return text


def check_registry(text: str) -> str:
    """Return `text` if it is an http or https URL without user and password; else raise ValueError.

    >>> check_registry("https://schemas.example.com:8081")
    'https://schemas.example.com:8081'
    """
    check_webhook(text)
    parts = urlsplit(text)
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL holds a user or password. hint: move them to user and password")
    if parts.query or parts.fragment:
        raise ValueError("the URL has a query or fragment. hint: write scheme, host, port and path only")
    return text


def shown_url(url: str) -> str:
    """Scheme, host and port of a URL, for messages: user, password, path and query may be secrets.

    >>> shown_url("https://user:password@example.com:8443/T0/B0?token=x")
    'https://example.com:8443/…'
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" + ("/…" if parts.path not in ("", "/") or parts.query else "")


def url_of(host: str, port: int) -> str:
    """The HTTP address of a server; an IPv6 address is put in brackets.

    >>> url_of("localhost", 8501), url_of("::1", 8501)
    ('http://localhost:8501', 'http://[::1]:8501')
    """
    return f"http://{host_and_port(host, port)}"


def host_and_port(host: str, port: int) -> str:
    """`host:port`; an IPv6 address is put in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _matches(pattern: re.Pattern[str], text: str) -> bool:
    match = pattern.fullmatch(text)
    return match is not None and (match[1] is None or 1 <= int(match[1]) <= _MAX_PORT)
