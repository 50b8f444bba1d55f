"""Files in a local folder: the contract, and what only a folder has."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import DamagedError
from pipeline.files.folder import FolderFiles
from pipeline.files.interface import StoredFile
from tests.support.world.files_contract import FilesContract


@pytest.fixture
def files(tmp_path):
    return FolderFiles(tmp_path)


class TestFolder(FilesContract):
    def test_a_copy_on_this_machine_is_the_file_itself(self, files, tmp_path):
        file = StoredFile(files, "a/b")
        file.write([b"x"])
        assert file.local() == tmp_path / "a" / "b"

    def test_a_file_that_is_open_can_be_read_after_it_was_deleted(self, files):
        file = StoredFile(files, "a/b")
        file.write([b"still here"])
        with file.open() as opened:
            file.delete()
            assert bytes(opened.read(0, 100)) == b"still here"

    def test_a_folder_in_the_place_of_a_file_is_named(self, files, tmp_path):
        (tmp_path / "a" / "b").mkdir(parents=True)
        with pytest.raises(DamagedError, match="a/b is a folder, wanted a file"):
            StoredFile(files, "a/b").read()

    def test_threads_that_put_the_same_file_leave_one_of_their_contents(self, files):
        contents = [bytes([number]) * 100_000 for number in range(8)]
        with ThreadPoolExecutor(len(contents)) as threads:
            for _ in range(20):
                list(threads.map(lambda content: StoredFile(files, "a/b").write([content]), contents))
        assert StoredFile(files, "a/b").read() in contents
