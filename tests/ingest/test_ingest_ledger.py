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


def test_a_deleted_entry_is_named_unless_the_file_is_to_be_ingested_again(tmp_path, ledger):
    (tmp_path / f"clicks-{FIRST[:32]}.json").unlink()
    with pytest.raises(DamagedError, match=r"clicks-a+\.json, the entry of a file that was ingested, is missing"):
        ledger.find(FIRST)
    assert ledger.find(FIRST, again=True) is None
    assert ledger.next_run(FIRST, None) == 2
    assert ledger.find(SECOND) == entry(SECOND)


def test_a_folder_without_a_list_of_entries_is_read_as_before(tmp_path, ledger):
    (tmp_path / "clicks.index").unlink()
    assert ledger.find(FIRST) == entry(FIRST)
    assert ledger.find("c" * 64) is None
    ledger.put(entry("c" * 64))
    (tmp_path / f"clicks-{'c' * 32}.json").unlink()
    with pytest.raises(DamagedError):
        ledger.find("c" * 64)


def test_an_interrupted_line_of_the_list_does_not_count_and_is_replaced(tmp_path, ledger):
    path = tmp_path / "clicks.index"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert ledger.next_run(SECOND, None) == 1
    ledger.put(entry(SECOND))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("at", [0, 63, 64, 65, 66, 67, 74])
def test_a_damaged_line_of_the_list_is_named(tmp_path, ledger, at):
    path = tmp_path / "clicks.index"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"clicks\.index has a damaged line"):
        ledger.find("c" * 64)
