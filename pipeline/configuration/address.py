"""Addresses as the configuration spells them: of Kafka's brokers, of Flink's REST interface. Nobody is asked here."""

import re

_HOST = r"(?:[\w.-]+|\[[\da-fA-F:.]+\])"
_BROKER = re.compile(rf"{_HOST}:(\d+)")
_REST = re.compile(rf"(?:https?://)?{_HOST}(?::(\d+))?(?:/\S*)?")
_LAST_PORT = 65_535


def check_brokers(text: str) -> str:
    """The text, `host:port`, several with commas between. Raises ValueError.

    >>> check_brokers("kafka-1:9092, [::1]:9092")
    'kafka-1:9092, [::1]:9092'
    """
    wrong = [repr(broker.strip()) for broker in text.split(",") if not _fits(_BROKER, broker.strip())]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} is no host:port. hint: 'host:9092', several with commas between")
    return text


def check_rest(text: str) -> str:
    """The text, `http://host:port`; without a scheme it is http. Raises ValueError.

    >>> check_rest("https://flink.example.com/live")
    'https://flink.example.com/live'
    """
    if not _fits(_REST, text):
        raise ValueError(f"{text!r} is no address of http or https. hint: 'http://host:8081'")
    return text


def _fits(form: re.Pattern[str], text: str) -> bool:
    found = form.fullmatch(text)
    return found is not None and (found[1] is None or 1 <= int(found[1]) <= _LAST_PORT)
