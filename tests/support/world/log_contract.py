"""The contract of every log engine; run by `tests/logs/test_logs.py` and `tests/live/kafka/test_kafka_log.py`."""

import os

import pytest

from pipeline.errors import InputError, LogError, OffsetError
from pipeline.logs.interface.log import ReadLimits


class LogContract:
    """Subclasses have the fixtures `log` (topic t with 2 partitions), `clock`, and `reading` (returns the log to read
    from, after everything was written to `log`).
    """

    def test_records_come_back_in_order_with_offsets_times_and_headers(self, log, clock, reading):
        assert log.append("t", 0, [b"a", b"b"], headers={"who": "me"}) == 0
        clock.wait(1)
        assert log.append("t", 0, [b"c", b""]) == 2
        found = reading().read("t", 0, 0)
        assert [(r.offset, r.value, dict(r.headers)) for r in found] == [
            (0, b"a", {"who": "me"}),
            (1, b"b", {"who": "me"}),
            (2, b"c", {}),
            (3, b"", {}),
        ]
        first, second, third, fourth = [r.appended_at_ms for r in found]
        assert first == second < third == fourth

    def test_records_of_one_append_may_have_different_headers(self, log, reading):
        log.append("t", 0, [b"a", b"b"], headers=[{"who": "me"}, {}])
        assert [dict(r.headers) for r in reading().read("t", 0, 0)] == [{"who": "me"}, {}]
        with pytest.raises(InputError, match="headers: got 1 for 2 values"):
            log.append("t", 0, [b"a", b"b"], headers=[{}])

    def test_records_may_have_keys_and_an_empty_value_with_a_key_comes_back(self, log, reading):
        log.append("t", 0, [b"a", b"", b"c"], keys=[b"k", b"k", b"\xff"], headers=[{"who": "me"}, {}, {}])
        log.append("t", 0, [b"", b"d"])
        found = [(r.key, r.value, dict(r.headers)) for r in reading().read("t", 0, 0)]
        assert found == [
            (b"k", b"a", {"who": "me"}), (b"k", b"", {}), (b"\xff", b"c", {}), (None, b"", {}), (None, b"d", {})
        ]  # fmt: skip

    def test_keys_of_another_number_and_empty_ones_are_refused(self, log, reading):
        with pytest.raises(InputError, match="keys: got 1 for 2 values, wanted one for each value"):
            log.append("t", 0, [b"a", b"b"], keys=[b"k"])
        with pytest.raises(InputError, match="keys: value 1 has an empty one"):
            log.append("t", 0, [b"a", b"b"], keys=[b"k", b""])
        assert reading().end_offset("t", 0) == 0

    def test_partitions_are_independent(self, log, reading):
        log.append("t", 0, [b"a"])
        log.append("t", 1, [b"b", b"c"])
        read = reading()
        assert [read.end_offset("t", p) for p in (0, 1)] == [1, 2]
        assert [r.value for r in read.read("t", 1, 0)] == [b"b", b"c"]

    def test_an_empty_partition_reads_as_nothing(self, reading):
        read = reading()
        assert (read.begin_offset("t", 0), read.end_offset("t", 0)) == (0, 0)
        assert read.read("t", 0, 0) == []
        assert read.offset_at("t", 0, 1_700_000_000_000) == 0

    def test_several_small_reads_return_the_same_records_as_one_read(self, log, reading):
        log.append("t", 0, [bytes([n]) * n for n in range(11)])
        read = reading()
        found = []
        while records := read.read("t", 0, len(found), ReadLimits(records=3)):
            assert len(records) <= 3
            found += records
        assert found == read.read("t", 0, 0)
        assert len(found) == 11

    def test_reads_may_start_at_any_offset_in_any_order(self, log, reading):
        log.append("t", 0, [bytes([n]) for n in range(7)])
        read = reading()
        one = ReadLimits(records=1)
        assert [read.read("t", 0, n, one)[0].value[0] for n in (3, 4, 0, 6, 5, 6, 1)] == [3, 4, 0, 6, 5, 6, 1]

    def test_a_read_at_the_end_is_empty_and_a_read_beyond_it_is_refused(self, log, reading):
        log.append("t", 0, [b"a", b"b"])
        read = reading()
        assert read.read("t", 0, 2) == []
        with pytest.raises(OffsetError, match="t/0 ends at offset 2, offset 3"):
            read.read("t", 0, 3)

    def test_trimmed_offsets_are_refused_and_the_first_remaining_one_is_read(self, log, reading):
        log.append("t", 0, [b"a", b"b", b"c"])
        log.trim("t", 0, 2)
        read = reading()
        assert (read.begin_offset("t", 0), read.end_offset("t", 0)) == (2, 3)
        assert [r.value for r in read.read("t", 0, 2)] == [b"c"]
        assert read.offset_at("t", 0, 0) == 2
        with pytest.raises(OffsetError, match="begins at offset 2, offset 1 was removed"):
            read.read("t", 0, 1)

    def test_a_completely_trimmed_partition_keeps_its_end_offset(self, log, reading):
        log.append("t", 0, [b"a", b"b"])
        log.trim("t", 0, 2)
        read = reading()
        assert (read.begin_offset("t", 0), read.end_offset("t", 0), read.read("t", 0, 2)) == (2, 2, [])

    def test_one_read_stops_before_it_exceeds_the_bytes(self, log, reading):
        log.append("t", 0, [b"1234", b"1234", b"1234"])
        read = reading()
        assert len(read.read("t", 0, 0, ReadLimits(max_bytes=8))) == 2
        assert len(read.read("t", 0, 0, ReadLimits(max_bytes=7))) == 1
        assert [r.offset for r in read.read("t", 0, 1)] == [1, 2]

    def test_one_record_of_any_size_is_returned(self, log, reading):
        log.append("t", 0, [os.urandom(3 << 20), b"b"])
        assert [len(r.value) for r in reading().read("t", 0, 0, ReadLimits(max_bytes=1))] == [3 << 20]

    def test_offset_at_finds_the_first_append_at_or_after_a_time(self, log, clock, reading):
        for _ in range(5):
            log.append("t", 0, [b"x", b"y", b"z"])
            clock.wait(0.02)
        read = reading()
        times = [r.appended_at_ms for r in read.read("t", 0, 0)]
        assert len(set(times)) == 5
        requested = [times[0] - 1, times[0], times[0] + 1, times[3], times[3] + 1, times[12], times[12] + 1]
        assert [read.offset_at("t", 0, at_ms) for at_ms in requested] == [0, 0, 3, 3, 6, 12, 15]

    def test_the_log_id_identifies_a_topic(self, log, reading):
        log.create_topic("other", 1)
        read = reading()
        assert read.log_id("t") == log.log_id("t")
        assert read.log_id("t") != read.log_id("other")
        assert (read.topics(), read.partitions("t"), read.partitions("other")) == (["other", "t"], 2, 1)

    def test_a_missing_topic_is_named_in_the_error(self, reading):
        read = reading()
        for call in (read.partitions, read.log_id, lambda t: read.read(t, 0, 0), lambda t: read.end_offset(t, 0)):
            with pytest.raises(LogError, match="topic nosuch does not exist"):
                call("nosuch")

    def test_a_missing_partition_is_named_in_the_error(self, reading):
        for number in (2, -1):
            with pytest.raises(LogError, match=f"topic t has partitions 0..1, there is no partition {number}"):
                reading().read("t", number, 0)

    def test_a_closed_log_refuses_reads(self, reading):
        read = reading()
        read.close()
        with pytest.raises(LogError, match="closed"):
            read.read("t", 0, 0)
