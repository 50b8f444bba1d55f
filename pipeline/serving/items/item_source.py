"""Where the items come from: a file, then the changes of a topic; and their features.

Changes count in the order of the topic, each by itself: one that is refused leaves the item as the changes before it
have it. So the items follow from the records alone, however they are cut into reads.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from pipeline.configuration.project import Project
from pipeline.errors import InputError, ModelError
from pipeline.logs.interface.log import Log
from pipeline.process.log_limit import LogLimit
from pipeline.recall.item_changes import ItemChange, ItemName, first_problem
from pipeline.serving.instance_reader import InstanceReader
from pipeline.serving.items.attributes import Attributes
from pipeline.serving.items.catalogue import ITEMS_AT_ONCE, Catalogue, CatalogueChange, Described, ItemPiece, ids_of
from pipeline.serving.items.failing_rows import without_failing
from pipeline.serving.items.item_file import Stamp, read_items, stamp_of
from pipeline.serving.items.item_topic import ItemTopic
from pipeline.telemetry import metrics

logger = structlog.get_logger(__name__)


class ItemSource:
    """Not thread-safe."""

    def __init__(self, project: Project, reader: InstanceReader, attributes: Attributes, log: Log) -> None:
        """`project` has `[recall]`, `reader` reads what its items decide, `log` holds the topic. Raises LogError."""
        towers, recall = project.config.towers, project.config.recall
        assert towers is not None, "[recall] requires two towers"
        assert recall is not None, "the project has no [recall]"
        self._attributes = attributes
        self._reader, self._clock, self._column = reader, project.clock, towers.item_column
        self._path = None if recall.items is None else project.root / recall.items
        self._topic = None if recall.topic is None else ItemTopic(log, recall.topic, self._column)
        self._stamp: Stamp | None = None
        self._position = 0
        """The offset of the first record of the topic that is not in the catalogue read last."""
        self._limit = LogLimit(project.clock)

    @property
    def replaced(self) -> bool:
        """Whether the file is another one than at the last `read`. Raises InputError."""
        return self._path is not None and stamp_of(self._path) != self._stamp

    def read(self) -> Catalogue:
        """The items of the file, after all changes of the topic; `changes` then goes on with those that follow.

        Raises, with `changes` as they were:
            InputError: the file is wrong.
            LogError: the topic cannot be read.
        """
        catalogue, stamp = Catalogue(), None
        if self._path is not None:
            stamp = stamp_of(self._path)
            self._put_file(self._path, catalogue)
        position = 0
        if self._topic is not None:
            position = begin = self._topic.begin()
            for change, end in self._changes(self._topic, begin, catalogue):
                catalogue.apply(change)
                position = end
        self._stamp, self._position = stamp, position
        return catalogue

    def changes(self, catalogue: Catalogue) -> Iterator[CatalogueChange]:
        """What follows in the topic, for the catalogue read last; apply each before the next is read. Raises LogError.

        Wrong changes are refused. Records count as read once their changes are applied.
        """
        if self._topic is not None:
            for change, position in self._changes(self._topic, self._position, catalogue):
                yield change
                self._position = position

    def refuse(self, name: ItemName, problem: str) -> None:
        """Count and log a change of an item that is left out."""
        metrics.RECALL_REFUSED.inc()
        self._log(item=name, problem=problem)

    def report(self, name: ItemName, problem: str) -> None:
        """Log an item that is left out."""
        self._log(item=name, problem=problem)

    def _put_file(self, path: Path, catalogue: Catalogue) -> None:
        items = read_items(path, self._column)
        for first in range(0, len(items.names), ITEMS_AT_ONCE):
            some = slice(first, first + ITEMS_AT_ONCE)
            try:
                catalogue.put(items.names[some], self._described(items.columns[some], first))
            except (InputError, ModelError) as failure:
                wrong = first_problem(items.columns[some], self._described)
                if wrong is None:
                    raise InputError(f"{path.name}: {failure}") from failure
                raise InputError(f"{path.name}, line {items.lines[first + wrong[0]]}: {wrong[1]}") from failure

    def _changes(self, topic: ItemTopic, position: int, catalogue: Catalogue) -> Iterator[tuple[CatalogueChange, int]]:
        """The next changes, and the offset before which all records are applied with them."""
        while (read := topic.read(position)) is not None:
            for problem in read.problems:
                metrics.RECALL_REFUSED.inc()
                self._log(problem=problem)
            for first in range(0, max(1, len(read.changes)), ITEMS_AT_ONCE):
                last = first + ITEMS_AT_ONCE >= len(read.changes)
                position = read.end if last else position
                yield self._change_of(read.changes[first : first + ITEMS_AT_ONCE], catalogue), position

    def _change_of(self, changes: Sequence[ItemChange], catalogue: Catalogue) -> CatalogueChange:
        """What becomes of the items of changes: of each what the last change has that is not refused.

        Refused are changes that do not fit the configuration, or have a name with the id of another item.
        """
        described, row_of = self._fitting(changes)
        names: dict[int, ItemName | None] = {}
        rows: dict[int, int] = {}
        ids = ids_of([change.name for change in changes]).tolist()
        for place, (id, change) in enumerate(zip(ids, changes, strict=True)):
            owner = names[id] if id in names else catalogue.names.get(id)
            if change.columns is None:
                if owner == change.name:
                    names[id] = None
            elif place in row_of and owner not in (None, change.name):
                self.refuse(change.name, f"item {owner!r} has the same id. hint: rename one of them")
            elif place in row_of:
                names[id], rows[id] = change.name, row_of[place]
        put = {id: name for id, name in names.items() if name is not None}
        removed = [id for id, name in names.items() if catalogue.names.get(id, name) != name]
        taken = described.take(np.array([rows[id] for id in put], np.int64))
        read = len({change.name for change in changes})
        return CatalogueChange(
            np.array(removed, np.uint64), list(put.values()), ItemPiece(np.array(list(put), np.uint64), taken), read
        )

    def _fitting(self, changes: Sequence[ItemChange]) -> tuple[Described, dict[int, int]]:
        """The items that changes put, and by the place of a change the row of its item.

        Those that do not fit the configuration are refused.
        """
        put = [
            (place, change.name, change.columns) for place, change in enumerate(changes) if change.columns is not None
        ]
        runs = without_failing(
            range(len(put)),
            lambda rows: self._described([columns for _, _, columns in put[rows.start : rows.stop]]),
            (InputError, ModelError),
            lambda row, failure: self.refuse(put[row][1], str(failure)),
        )
        places = [put[row][0] for rows, _ in runs for row in rows]
        described = Described.concatenated([items for _, items in runs] or [self._described([])])
        return described, {place: row for row, place in enumerate(places)}

    def _log(self, **about: Any) -> None:
        """Log what is left out, at a bounded rate."""
        if (suppressed := self._limit.allow()) is not None:
            logger.error("item refused", **about, suppressed=suppressed)

    def _described(self, columns: Sequence[dict[str, Any]], first: int = 0) -> Described:
        batch, at_ms = self._reader.batch_of(columns, self._clock.now_ms(), first)
        return Described(self._reader.features_of(batch, at_ms, first), self._attributes.of(batch))
