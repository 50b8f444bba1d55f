"""Paths of stored files, for tests that look at a local folder or damage it."""

from pathlib import Path

from pipeline.files.interface import StoredFile, StoredFolder


def path_of(stored: StoredFile | StoredFolder) -> Path:
    """The path of a file or folder in a local folder."""
    path = Path(str(stored))
    assert path.is_absolute(), f"{stored} is no local file"
    return path
