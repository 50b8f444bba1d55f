"""Small durable JSON files: an object with the format, a checksum, and the contents.

    {"format": 2, "checksum": "<SHA-256, hex>", "contents": …}

The checksum covers the format, the file's kind and the contents, so one file is never read in the place of another.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError
from pipeline.files.atomic_file import write_atomically


@dataclass(frozen=True)
class SealedJson:
    """The kind of a sealed file.

    Attributes:
        kind: names what such a file holds; part of the checksum.
        form: version of the format.
        fix: what an operator does about a damaged file, for messages.
    """

    kind: str
    form: int
    fix: str

    def write(self, path: Path, contents: Any) -> None:
        """Write the file atomically and durably. Raises VersionError."""
        write_atomically(path, [self.encode(contents)])

    def encode(self, contents: Any) -> bytes:
        """The bytes of a file.

        >>> SealedJson("list", 1, "").encode([1])[:13]
        b'{"format": 1,'
        """
        sealed = {"format": self.form, "checksum": self._checksum(contents), "contents": contents}
        return json.dumps(sealed).encode()

    def read(self, path: Path) -> Any:
        """The contents of the file. Raises FileNotFoundError, DamagedError."""
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as failure:
            raise self.damaged(path, failure.strerror or str(failure)) from None
        return self.decode(content, path)

    def decode(self, encoded: bytes, path: Path) -> Any:
        """The contents of the bytes of a file. Raises DamagedError, which names `path`."""
        try:
            sealed = json.loads(encoded)
            if "format" not in sealed:
                raise self.damaged(path, "it has no format, another release wrote it")
            form, wanted, contents = sealed["format"], sealed["checksum"], sealed["contents"]
            got = self._checksum(contents)
        except (ValueError, LookupError, TypeError, RecursionError) as failure:
            raise self.damaged(path, f"{failure!r}") from None
        if form != self.form:
            raise self.damaged(path, f"it has format {form}, this release reads {self.form}")
        if got != wanted:
            raise self.damaged(path, f"its contents have checksum {got[:12]}, wanted {str(wanted)[:12]}")
        return contents

    def damaged(self, path: Path, problem: str) -> DamagedError:
        """The error for a file whose contents cannot be used."""
        return DamagedError(f"{path} is damaged: {problem}. hint: {self.fix}")

    def _checksum(self, contents: Any) -> str:
        text = json.dumps([self.kind, self.form, contents], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
