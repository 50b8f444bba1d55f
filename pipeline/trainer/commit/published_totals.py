"""What a trainer has published, for the summaries of TensorBoard."""

from collections import Counter

from pipeline.versions.deltas.published_files import DeltaManifest


class PublishedTotals:
    """Bytes and rows of the deltas and files of one shard since the process began. Not thread-safe."""

    def __init__(self) -> None:
        self._bytes: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()
        self.withheld: dict[str, int] = {}
        """By table, rows that the last delta withholds."""

    def count(self, manifest: DeltaManifest) -> None:
        """Add a delta or file; rows are counted of deltas only."""
        self._bytes[manifest.level] += manifest.size_bytes
        if manifest.level == "realtime":
            self._rows.update(manifest.precisions)
            self.withheld = manifest.quality.withheld if manifest.quality else {}

    def scalars(self) -> dict[str, float]:
        """By name of the curve."""
        scalars: dict[str, float] = {f"published_bytes/{level}": size for level, size in self._bytes.items()}
        scalars |= {f"published_rows/{bits}_bits": rows for bits, rows in self._rows.items() if rows}
        return scalars | {f"withheld_rows/{table}": rows for table, rows in self.withheld.items()}
