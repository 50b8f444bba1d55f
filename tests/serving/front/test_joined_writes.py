"""Parts of a response leave in one system call, and in order."""

import asyncio

import pytest

from pipeline.serving.front.joined_writes import JoinedWrites


class Recorded(asyncio.Transport):
    """A transport that keeps what is called."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def write(self, data):
        self.calls.append(bytes(data))

    def write_eof(self):
        self.calls.append("write_eof")

    def close(self):
        self.calls.append("close")

    def abort(self):
        self.calls.append("abort")

    def get_write_buffer_size(self):
        return 3


def calls_of(use):
    """The calls of a transport while `use` runs and in the next turn of the loop."""

    async def run():
        transport = Recorded()
        use(JoinedWrites(transport))
        now = list(transport.calls)
        await asyncio.sleep(0)
        return now, transport.calls

    return asyncio.run(run())


def test_parts_are_sent_together_when_flushed_and_never_twice():
    def use(joined):
        joined.write(b"head")
        joined.write(b"body")
        assert joined.get_write_buffer_size() == 3 + 8
        joined.flush()
        joined.flush()

    assert calls_of(use) == ([b"headbody"], [b"headbody"])


def test_parts_that_are_not_flushed_are_sent_in_the_next_turn_of_the_loop():
    def use(joined):
        joined.write(b"a")
        joined.write(b"b")

    assert calls_of(use) == ([], [b"ab"])


@pytest.mark.parametrize("end", ["close", "write_eof"])
def test_what_was_written_is_sent_before_the_end(end):
    def use(joined):
        joined.write(b"a")
        getattr(joined, end)()

    assert calls_of(use) == ([b"a", end], [b"a", end])


def test_a_transport_that_is_aborted_sends_nothing_more():
    def use(joined):
        joined.write(b"a")
        joined.abort()

    assert calls_of(use) == (["abort"], ["abort"])
