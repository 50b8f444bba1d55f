"""Files in an object store: S3 and compatible services, Google Cloud Storage, Azure.

Files are uploaded in parallel parts while they are written, and appear when the last part is complete: a torn upload is
never visible. Requests that fail or are throttled are repeated with growing pauses until the deadline has passed.
Credentials come from the environment or the role of the machine, never from the configuration.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from pipeline.errors import FilesError
from pipeline.files.interface import ListedFile, NewFile, OpenFile
from pipeline.files.local_copies import LocalCopies

if TYPE_CHECKING:  # obstore has these types for checkers only
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config

SCHEMES = ("s3", "gs", "abfs", "abfss", "az")
_PART_BYTES = 8 << 20
"""Of an upload; stores take parts of at least 5 MiB and at most 10,000 of them, so files are at most 80 GB."""
_PARTS_AT_ONCE = 4
_REQUEST_TIMEOUT_S = 30.0
_MAX_PAUSE_S = 5.0
_REFUSALS = (PermissionDeniedError, UnauthenticatedError, PermissionError)
_REFUSAL_WORDS = ("403 Forbidden", "401 Unauthorized", "ExpiredToken")
_RETRIES = 1_000
"""The deadline ends them first."""


class ObjectStoreFiles:
    """The files below a URL such as `s3://bucket/prefix`; as `Files`. Do not fork after its first use."""

    def __init__(self, url: str, copies: LocalCopies, deadline_s: float, options: dict[str, str]) -> None:
        """`deadline_s`: how long a request is repeated. `options`: those of obstore, such as `endpoint`.

        Raises FilesError for a URL or an option that is not known.
        """
        self._url, self._copies = url.rstrip("/"), copies
        client: ClientConfig = {"timeout": timedelta(seconds=_REQUEST_TIMEOUT_S)}
        if options.get("endpoint", "").startswith("http://"):
            client["allow_http"] = True
        retry: RetryConfig = {
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=deadline_s),
            "backoff": {"max_backoff": timedelta(seconds=_MAX_PAUSE_S)},
        }
        with self._errors(""):
            if url.startswith("s3://"):  # not every service has it, and files are deleted one by one
                options = {"disable_bulk_delete": "true"} | options
            config = cast("S3Config", options)  # or those of another service: obstore refuses what it does not know
            self._store: ObjectStore = from_url(self._url, config=config, client_options=client, retry_config=retry)

    def create(self, name: str) -> NewFile:
        return Upload(self, name)

    def open(self, name: str) -> OpenFile:
        with self._errors(name):
            return RemoteFile(self, name, obstore.head(self._store, name)["size"])

    def describe(self, name: str) -> ListedFile:
        with self._errors(name):
            return _described(obstore.head(self._store, name))

    def list(self, folder: str) -> Iterator[ListedFile]:
        with self._errors(folder):
            for page in obstore.list(self._store, f"{folder}/"):
                yield from map(_described, page)

    def delete(self, name: str) -> None:
        self._copies.remove(name)
        with suppress(FileNotFoundError), self._errors(name):
            obstore.delete(self._store, name)

    def local(self, name: str) -> Path:
        """Fetched once, in pieces that are read side by side, and kept within the budget of local copies."""
        return self._copies.get(name, lambda: self.open(name))

    def address(self, name: str) -> str:
        return f"{self._url}/{name}" if name else self._url

    def _read(self, name: str, offset: int, length: int) -> memoryview:
        with self._errors(name):
            return memoryview(obstore.get_range(self._store, name, start=offset, length=length))

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as failure:
            self._raise(name, failure)

    def _raise(self, name: str, failure: Exception) -> NoReturn:
        """Raise what an exception of obstore means; others as they are."""
        if "NoSuchBucket" in str(failure):
            self._refuse(name, "the bucket does not exist", "create it, or change files.url")
        if isinstance(failure, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.address(name)) from None
        if isinstance(failure, _REFUSALS) or any(word in str(failure) for word in _REFUSAL_WORDS):
            self._refuse(name, f"access is refused ({_first_line(failure)})", "check the credentials and their rights")
        if isinstance(failure, BaseError | ValueError | OSError):
            self._refuse(name, _first_line(failure), "is the store reachable? see [files]")
        raise failure

    def _refuse(self, name: str, reason: str, hint: str) -> NoReturn:
        raise FilesError(f"{self.address(name)} cannot be read or written: {reason}. hint: {hint}") from None


class RemoteFile:
    """A file in an object store; see `OpenFile`. Each read is a request of its own."""

    descriptor: int | None = None

    def __init__(self, files: ObjectStoreFiles, name: str, size_bytes: int) -> None:
        self._files, self._name, self.size_bytes = files, name, size_bytes

    def read(self, offset: int, length: int) -> memoryview:
        length = min(length, self.size_bytes - offset)
        return self._files._read(self._name, offset, length) if length > 0 else memoryview(b"")

    def close(self) -> None:
        pass


class Upload:
    """A file that is being uploaded; see `NewFile`."""

    def __init__(self, files: ObjectStoreFiles, name: str) -> None:
        self._files, self._name = files, name
        with files._errors(name):
            self._writer = obstore.open_writer(
                files._store, name, buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
            )

    def write(self, chunk: bytes | memoryview) -> None:
        with self._files._errors(self._name):
            self._writer.write(chunk)

    def sync(self) -> None:
        pass  # parts are on their way already

    def complete(self) -> None:
        with self._files._errors(self._name):
            self._writer.close()

    def discard(self) -> None:
        pass  # parts without an end are no file; the store removes them by its rule for incomplete uploads


def _described(found: "ObjectMeta") -> ListedFile:
    return ListedFile(found["path"], found["size"], int(found["last_modified"].timestamp() * 1000) * 1_000_000)


def is_url(text: str) -> bool:
    """Whether a URL has one of the schemes that are known."""
    return urlsplit(text).scheme in SCHEMES


def _first_line(failure: Exception) -> str:
    return str(failure).strip().splitlines()[0]
