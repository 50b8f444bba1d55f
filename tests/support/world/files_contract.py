"""The contract of files; run by `tests/files/test_folder.py` and `tests/live/files/test_object_store.py`."""

import threading

import pytest

from pipeline.errors import DamagedError
from pipeline.files.interface import StoredFile, StoredFolder


class FilesContract:
    """Subclasses have the fixture `files`, empty and anew for each test."""

    def test_a_file_is_what_was_put_last(self, files):
        file = StoredFile(files, "versions/g0/one.version")
        file.write([b"first", b" draft"])
        file.write([b"second"])
        assert (file.read(), file.describe().size_bytes) == (b"second", 6)
        assert file.describe().name == file.name

    def test_a_file_appears_when_it_is_complete(self, files):
        file = StoredFile(files, "versions/new")
        new = file.create()
        new.write(b"half of it ")
        new.sync()
        with pytest.raises(FileNotFoundError):
            file.read()
        new.write(memoryview(b"and the rest"))
        new.complete()
        new.discard()
        assert file.read() == b"half of it and the rest"

    def test_a_discarded_file_leaves_nothing_and_keeps_the_one_before(self, files):
        file = StoredFile(files, "versions/kept")
        file.write([b"before"])
        new = file.create()
        new.write(b"after" * 1000)
        new.discard()
        del new
        assert file.read() == b"before"
        assert [name for name, _ in StoredFolder(files, "versions").list()] == ["kept"]

    def test_an_empty_file_is_a_file(self, files):
        file = StoredFile(files, "versions/empty")
        file.write([])
        assert (file.read(), file.describe().size_bytes) == (b"", 0)

    def test_a_large_file_comes_back_whole_and_in_ranges(self, files):
        pieces = [bytes([number]) * (3 << 20) for number in range(8)]
        file = StoredFile(files, "versions/large")
        file.write(pieces)
        assert file.read() == b"".join(pieces)
        with file.open() as opened:
            assert bytes(opened.read((3 << 20) - 2, 4)) == b"\0\0\1\1"
            assert bytes(opened.read((24 << 20) - 2, 100)) == b"\7\7"
            assert bytes(opened.read(24 << 20, 5)) == b""
        assert file.local().read_bytes() == b"".join(pieces)

    def test_a_missing_file_is_named(self, files):
        file = StoredFile(files, "versions/missing")
        for attempt in (file.read, file.describe, lambda: file.local().read_bytes()):
            with pytest.raises(FileNotFoundError) as failure:
                attempt()
            assert str(failure.value.filename) == str(file)

    def test_deleting_is_final_and_may_be_repeated(self, files):
        file = StoredFile(files, "versions/gone")
        file.write([b"x"])
        file.local()
        file.delete()
        file.delete()
        for attempt in (file.read, lambda: file.local().read_bytes()):
            with pytest.raises(FileNotFoundError):
                attempt()

    def test_a_folder_lists_the_files_below_it(self, files):
        names = ["g0/s0/1.version", "g0/s1/1.version", "g10/2.version"]
        for name in (*names, "../published/other", "../versions2/other"):
            StoredFile(files, f"versions/{name}".replace("versions/../", "")).write([b"x"])
        versions = StoredFolder(files, "versions")
        assert sorted(name for name, _ in versions.list()) == names
        assert sorted(name for name, _ in versions.folder("g0").list()) == ["s0/1.version", "s1/1.version"]
        assert sorted(file.name for _, file in versions.folder("g10").list()) == ["versions/g10/2.version"]
        assert list(versions.folder("g1").list()) == []

    def test_more_bytes_than_wanted_are_refused(self, files):
        file = StoredFile(files, "versions/long")
        file.write([b"x" * 11])
        assert file.read(limit=11) == b"x" * 11
        with pytest.raises(DamagedError, match=r"long has 11 bytes, wanted at most 10\. hint: remove it"):
            file.read(limit=10)

    def test_threads_put_and_read_side_by_side(self, files):
        wanted = {f"versions/{number}": bytes([number]) * (number << 18) for number in range(8)}

        def put(name):
            StoredFile(files, name).write([wanted[name]])
            assert StoredFile(files, name).local().read_bytes() == wanted[name]

        threads = [threading.Thread(target=put, args=(name,)) for name in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {name: StoredFile(files, name).read() for name in wanted} == wanted
