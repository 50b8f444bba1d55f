"""How far a partition is read ahead of the others in event time, where each is read on its own.

Clicks come in far fewer records than impressions; read as fast as they can be they would run hours ahead and wait in
the join by the million. Each reader tells here how far it is, in a small file that the others look at: a hint, which
changes what is held and never what is said, so nothing is lost with it and nothing waits for a disk.
"""

import json
import os
from pathlib import Path

from pipeline.ground.block import Kind


class Lead:
    """What the readers of one project tell each other. Not thread-safe; processes take care of their own files."""

    def __init__(self, folder: Path, lead_ms: int) -> None:
        self._folder, self._lead_ms = folder, lead_ms
        folder.mkdir(parents=True, exist_ok=True)

    def tell(self, kind: Kind, partition: int, mark_ms: int | None, *, more: bool) -> None:
        """This partition was read up to `mark_ms` (None: nothing yet), and has `more` that can be read now."""
        path = self._folder / f"{kind}-{partition}"
        beside = path.with_name(f".{path.name}-{os.getpid()}")
        beside.write_text(json.dumps([mark_ms, more]), encoding="utf-8")
        beside.replace(path)

    def allows(self, kind: Kind, partition: int, mark_ms: int | None) -> bool:
        """Whether a partition read up to `mark_ms` may be read further.

        The one furthest behind always may, and one that is read to its end holds nobody back.
        """
        if mark_ms is None:
            return True
        behind = [at_ms for at_ms, more in self._others(kind, partition) if more and at_ms is not None]
        return not behind or mark_ms <= min(behind) + self._lead_ms

    def others_have_more(self, kind: Kind, partition: int) -> bool:
        """Whether some other partition has something that can be read now."""
        return any(more for _, more in self._others(kind, partition))

    def _others(self, kind: Kind, partition: int) -> list[tuple[int | None, bool]]:
        own = f"{kind}-{partition}"
        return [_told(path) for path in self._folder.iterdir() if path.name != own and path.name[0] != "."]


def _told(path: Path) -> tuple[int | None, bool]:
    try:
        mark_ms, more = json.loads(path.read_text(encoding="utf-8"))
        return mark_ms, more
    except (OSError, ValueError):
        # Of no weight: whoever wrote it writes it again in a moment.
        return None, False
