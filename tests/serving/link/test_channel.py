"""Messages between the front and the process that predicts."""

import socket
import threading

import pytest

from pipeline.serving.link.channel import (
    Channel,
    Decoder,
    Kind,
    Message,
    decode_response,
    encode_message,
    encode_response,
)
from pipeline.serving.link.response import Response

MESSAGES = [
    Message(Kind.STARTED),
    Message(Kind.PREDICT, 1, b'{"instances": []}'),
    Message(Kind.PREDICT_LARGE, 2**64 - 1, bytes(range(256)) * 1_000),
    Message(Kind.READ, 3, b"/metrics"),
]


def test_a_message_has_a_fixed_layout():
    assert encode_message(Message(Kind.READ, 258, b"/x")) == b"\x03" + b"\x02\x01" + b"\0" * 6 + b"\x02\0\0\0/x"


@pytest.mark.parametrize("size", [1, 12, 13, 14, 1_000, 10**9])
def test_messages_are_the_same_however_their_bytes_are_cut(size):
    sent = b"".join(map(encode_message, MESSAGES))
    decoder, found = Decoder(), []
    for start in range(0, len(sent), size):
        found += decoder.feed(sent[start : start + size])
    assert found == MESSAGES


@pytest.mark.parametrize("headers", [(), (("retry-after", "1"), ("x", "ü"))])
def test_a_response_is_decoded_as_it_was_encoded(headers):
    response = Response(503, "application/json", b'{"error": "x"}', headers)
    assert decode_response(encode_response(response)) == response


def test_long_and_short_messages_arrive_in_order_until_the_other_end_closes():
    ours, theirs = socket.socketpair()
    large = Message(Kind.PREDICT_LARGE, 9, b"x" * 3_000_000)

    def send():
        channel = Channel(theirs)
        for message in (*MESSAGES, large, *MESSAGES):
            channel.send(message)
        theirs.close()

    sender = threading.Thread(target=send)
    sender.start()
    assert list(Channel(ours).messages()) == [*MESSAGES, large, *MESSAGES]
    sender.join()
    Channel(ours).send(large)  # dropped
    ours.close()


def test_a_channel_that_is_closed_ends_its_reader():
    ours, theirs = socket.socketpair()
    found = []
    reader = threading.Thread(target=lambda: found.extend(Channel(ours).messages()))
    reader.start()
    Channel(ours).close()
    reader.join(20)
    assert found == []
    assert not reader.is_alive()
    ours.close()
    theirs.close()
