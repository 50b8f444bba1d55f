"""Compaction: keeps the number of files small that a version is restored from, and each row written only a few times.

Files of changes are merged when there are enough of about one size, as in a size-tiered log-structured store: what a
merge writes is several times its largest input, so that a row is rewritten a number of times that grows with the
logarithm of the table. The file with everything is rewritten once the changes after it are as large as it is. Nothing a
version needs is deleted here (`store/retention.py`), and a commit never waits for a merge.
"""

from collections.abc import Sequence

from pipeline.files.interface import StoredFolder
from pipeline.process.crash_point import reach_crash_point
from pipeline.telemetry import metrics
from pipeline.versions.ledger.change_files import ChangeFile
from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.state import range_path
from pipeline.versions.store.merged_file import write_merged

LEAST_FILES = 8
"""A merge takes at least so many files …"""
_GROWTH = 4
"""… of which the others together have at least so many times the size of the oldest."""


def plan_merge(chain: Sequence[ChangeFile]) -> Sequence[ChangeFile]:
    """The newest files of a chain that are to be merged; none if there is nothing to gain. Pure.

    Args:
        chain: the files of CURRENT, oldest first.

    >>> from pipeline.formats.container import WrittenFile
    >>> from pipeline.versions.state import VersionId
    >>> ids = [VersionId(0, 0, 1, n) for n in range(1, 20)]
    >>> def chain(*sizes):
    ...     return [ChangeFile(a, b, "", WrittenFile(s, "")) for a, b, s in zip([None, *ids], ids, sizes)]
    >>> [len(plan_merge(chain(*sizes))) for sizes in ([9] * 7, [9] * 8, [900, *[9] * 8], [72, *[9] * 8])]
    [0, 8, 8, 9]
    """
    best, newer = 0, 0
    for count, file in enumerate(reversed(chain), 1):
        limit = newer if file.after is None else newer // _GROWTH
        if count >= LEAST_FILES and file.file.size_bytes <= limit:
            best = count
        newer += file.file.size_bytes
    return chain[len(chain) - best :]


class Compaction:
    """Merges the files of a versions folder. One process at a time."""

    def __init__(self, folder: StoredFolder, ledger: Ledger) -> None:
        self._folder, self._ledger = folder, ledger

    def act(self, shard: int) -> list[ChangeFile]:
        """Merge files of CURRENT until nothing is to be merged; returns the merged files.

        Raises VersionError and DamagedError. A merge that was interrupted leaves a file that retention deletes.
        """
        merged: list[ChangeFile] = []
        while (current := self._ledger.current(shard)) is not None:
            files = plan_merge(self._ledger.chain(current))
            if not files:
                break
            path = range_path(files[0].after, files[-1].upto, "merged")
            file = write_merged(self._folder, path, files)
            reach_crash_point("compaction.after_merge")
            self._ledger.merged(file)
            metrics.MERGED_BYTES.labels(str(shard)).inc(file.file.size_bytes)
            merged.append(file)
        return merged
