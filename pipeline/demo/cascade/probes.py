"""How long a click takes to change each stage of the cascade.

A probe appends impressions of now and their clicks, as many as a batch of the trainer, and asks the stages again and
again, over HTTP, until each answers otherwise than before. Nothing else is appended meanwhile, so the change is that of
these clicks: they are joined, learned and committed, the delta is published and applied, and for recall all items are
embedded anew. Recall has changed once it names another version.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pipeline.configuration.project import Project
from pipeline.demo.cascade.stages import Columns, Stages
from pipeline.errors import InputError
from pipeline.ingest.event_writer import EventWriter
from pipeline.logs.interface.log import Log

STAGES = ("recall", "coarse", "fine")
_ASKED_ITEMS = 20
_WITHIN_S = 60.0
_POLL_S = 0.002


class Probes:
    """Not thread-safe."""

    def __init__(self, project: Project, log: Log, stages: Stages, shown: pa.RecordBatch) -> None:
        """`shown`: impressions of items that are served; they are sent as new ones, all of them clicked."""
        self._clock, self._stages, self._shown = project.clock, stages, shown
        self._writers = [EventWriter(project, log, kind) for kind in ("impressions", "clicks")]
        self._next = 0
        self._size = project.config.model.batch_size
        self.most = len(shown) // self._size
        """How many probes there are."""

    def probe(self) -> dict[str, float]:
        """By stage, the seconds from the append of the clicks to another answer. Raises InputError after a minute."""
        rows = self._take()
        user: Columns = rows.select(["user", "interests"]).slice(0, 1).to_pylist()[0]
        items = rows.column("item").to_pylist()[:_ASKED_ITEMS]
        questions: dict[str, Callable[[], Any]] = {
            "recall": lambda: self._stages.recall(user, _ASKED_ITEMS)["version"],
            "coarse": lambda: self._stages.coarse(user, items),
            "fine": lambda: self._stages.fine(user, items),
        }
        before = {name: ask() for name, ask in questions.items()}
        began_s, found = self._clock.monotonic_s(), dict[str, float]()
        for writer in self._writers:
            writer.append(rows.select(["at", *writer.columns.columns]))
        while len(found) < len(questions):
            for name in questions.keys() - found.keys():
                if questions[name]() != before[name]:
                    found[name] = self._clock.monotonic_s() - began_s
            if self._clock.monotonic_s() - began_s > _WITHIN_S:
                raise InputError(
                    f"{', '.join(questions.keys() - found.keys())} did not change within {_WITHIN_S:.0f} s of a click. "
                    "hint: read the logs beside the project"
                )
            self._clock.wait(_POLL_S)
        return {name: found[name] for name in STAGES}

    def _take(self) -> pa.RecordBatch:
        """The impressions of the next probe, at the present time."""
        rows = self._shown.slice(self._next * self._size, self._size)
        self._next += 1
        return rows.set_column(0, "at", pa.array([self._clock.now_ms()] * len(rows), pa.int64()))
