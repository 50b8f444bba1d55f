"""Standard streams of a process that must go on: full pipes, closed pipes."""

import logging
import os
import sys

from pipeline.cli.terminal.unblocked_stream import UnblockedStream, without_blocking

PIPE_BYTES = 1 << 20


def test_a_full_pipe_drops_lines_and_their_number_follows():
    reader, writer = os.pipe()
    stream, line = UnblockedStream(writer), "x" * 999 + "\n"
    for _ in range(PIPE_BYTES // len(line) + 500):
        stream.write(line)
    written = os.read(reader, PIPE_BYTES)
    stream.write("again\n")
    rest = os.read(reader, PIPE_BYTES)
    assert len(written) >= 4_096
    assert b" messages were dropped]\nagain\n" in rest
    os.close(reader)
    os.close(writer)


def test_a_closed_pipe_drops_everything():
    reader, writer = os.pipe()
    os.close(reader)
    stream = UnblockedStream(writer)
    assert stream.write("lost\n") == 5
    os.close(writer)
    assert stream.write("lost, too\n") == 10


def test_a_text_arrives_in_full():
    reader, writer = os.pipe()
    text = "snø \udc80 " * 3_000
    UnblockedStream(writer).write(text)
    assert os.read(reader, PIPE_BYTES) == text.encode("utf-8", "backslashreplace")
    os.close(reader)
    os.close(writer)


def test_the_streams_and_handlers_are_replaced_and_restored(capfd):
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    before = sys.stdout, sys.stderr
    try:
        with without_blocking():
            assert isinstance(sys.stderr, UnblockedStream)
            assert handler.stream is sys.stderr
            print("out")
            logging.getLogger("x").error("err")
        assert (sys.stdout, sys.stderr) == before
        assert handler.stream is before[1]
    finally:
        logging.getLogger().removeHandler(handler)
    out, err = capfd.readouterr()
    assert "out\n" in out
    assert "err\n" in err
