"""Entries of ingested files: an entry is believed only if it is as written and of the file asked for."""

import pytest

from pipeline.errors import DamagedError
from pipeline.ingest.ledger import IngestEntry, IngestLedger
from pipeline.ingest.times import TimeLimits

FIRST, SECOND = ("a" * 64, "b" * 64)


def entry(digest):
    return IngestEntry("events.csv", digest, 1, {"clicks": "id"}, {"clicks/0": 4}, TimeLimits(0, 0), done=True, rows=3)


@pytest.fixture
def ledger(tmp_path):
    made = IngestLedger(tmp_path, "clicks")
    for digest in (FIRST, SECOND):
        made.put(entry(digest))
    return made


def test_an_entry_is_found_as_it_was_put(ledger):
    assert ledger.find(FIRST) == entry(FIRST)
    assert ledger.find("c" * 64) is None


def test_an_edited_entry_is_named(tmp_path, ledger):
    path = tmp_path / f"clicks-{FIRST[:32]}.json"
    path.write_text(path.read_text().replace('"clicks/0": 4', '"clicks/0": 0'))
    with pytest.raises(DamagedError, match=r"clicks-a+\.json is not an entry of the ingest ledger: it does not match"):
        ledger.find(FIRST)


def test_an_entry_in_the_place_of_another_is_named(tmp_path, ledger):
    one, other = (tmp_path / f"clicks-{digest[:32]}.json" for digest in (FIRST, SECOND))
    other.write_bytes(one.read_bytes())
    with pytest.raises(DamagedError, match="it is the entry of file aaaaaaaaaaaa, wanted bbbbbbbbbbbb"):
        ledger.find(SECOND)
