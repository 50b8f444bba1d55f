"""Bounds of the rows of a delta, checked before they are decoded: a few bytes can announce many rows."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import DamagedError
from pipeline.versions.deltas.coded_rows import AnnouncedRows


@dataclass(frozen=True)
class RowBounds:
    """What the rows of all tables of a delta may be together; None for any.

    Attributes:
        max_bytes: of the decoded rows and removed keys.
        rows: their number, as in a manifest.
        removed: the number of removed keys, as in a manifest.
    """

    max_bytes: int | None = None
    rows: int | None = None
    removed: int | None = None

    def check(self, announced: Mapping[str, AnnouncedRows], dims: Mapping[str, int]) -> None:
        """Raise DamagedError for rows that are out of bounds.

        Args:
            announced: by table, what its stream announces.
            dims: by table, weights per row.
        """
        size = sum(counts.decoded_bytes(dims[table]) for table, counts in announced.items())
        if self.max_bytes is not None and size > self.max_bytes:
            raise DamagedError(
                f"delta announces rows of {size} bytes, allowed are {self.max_bytes}. hint: serving.max_delta_bytes"
            )
        rows = sum(int(counts.by_precision.sum()) for counts in announced.values())
        removed = sum(counts.removed for counts in announced.values())
        for what, found, wanted in (("rows", rows, self.rows), ("removed keys", removed, self.removed)):
            if wanted is not None and found != wanted:
                raise DamagedError(
                    f"delta announces {found} {what}, its manifest has {wanted}. run: springtide publish --level full"
                )


UNBOUNDED = RowBounds()
