"""How far readers of one project run ahead of each other, whoever begins first and whatever stood there before."""

import os

import pytest

from pipeline.logs.beam.alignment import EventTimeAlignment
from tests.support.manual_clock import ManualClock

LEAD_MS = 1_000
ALL = [("impressions", 0), ("clicks", 0)]


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def reader(tmp_path, clock):
    return lambda kind: EventTimeAlignment(tmp_path / "alignment", (kind, 0), ALL, LEAD_MS, clock)


def test_one_block_is_read_before_anything_is_known(reader):
    assert reader("impressions").allows_reading(None)


def test_one_that_began_first_waits_for_what_the_other_tells(reader):
    impressions = reader("impressions")
    assert not impressions.allows_reading(0)
    clicks = reader("clicks")
    assert not impressions.allows_reading(0)
    clicks.publish(5_000, more=True)
    assert impressions.allows_reading(5_000 + LEAD_MS)
    assert not impressions.allows_reading(5_000 + LEAD_MS + 1)


def test_one_that_is_read_to_its_end_holds_nobody_back(reader):
    impressions, clicks = reader("impressions"), reader("clicks")
    clicks.publish(5_000, more=False)
    assert impressions.allows_reading(10**9)
    assert not impressions.others_have_more()


def test_what_readers_told_that_are_no_more_counts_for_nothing(reader, tmp_path, clock):
    reader("clicks").publish(5_000, more=False)
    report = tmp_path / "alignment" / "clicks-0"
    os.utime(report, ns=(1, 1))
    impressions = reader("impressions")
    assert not impressions.allows_reading(10**9)
    reader("clicks").publish(5_000, more=False)
    assert impressions.allows_reading(10**9)


def test_one_that_never_tells_is_not_waited_for_without_end(reader, clock):
    impressions = reader("impressions")
    assert not impressions.allows_reading(0)
    clock.wait(60)
    assert impressions.allows_reading(10**9)
