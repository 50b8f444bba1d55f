"""Where the items come from: a file, then the changes of a topic; and their features."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.configuration.project import Project
from pipeline.errors import InputError, ModelError
from pipeline.logs.interface.log import Log
from pipeline.recall.item_changes import ItemChange, ItemName
from pipeline.serving.instance_reader import InstanceReader
from pipeline.serving.items.attributes import Attributes
from pipeline.serving.items.catalogue import ITEMS_AT_ONCE, Catalogue, Described
from pipeline.serving.items.item_file import Stamp, read_items, stamp_of
from pipeline.serving.items.item_topic import ItemTopic


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
        self._topic = None if recall.topic is None else ItemTopic(log, recall.topic, self._column, project.clock)
        self._stamp: Stamp | None = None

    @property
    def replaced(self) -> bool:
        """Whether the file is another one than at the last `read`. Raises InputError."""
        return self._path is not None and stamp_of(self._path) != self._stamp

    def read(self) -> Catalogue:
        """The items of the file, after all changes of the topic.

        Raises:
            InputError: the file is wrong.
            LogError: the topic cannot be read.
        """
        catalogue, stamp = Catalogue(), None
        if self._path is not None:
            stamp, items = stamp_of(self._path), read_items(self._path, self._column)
            for first in range(0, len(items.names), ITEMS_AT_ONCE):
                some = slice(first, first + ITEMS_AT_ONCE)
                catalogue.put(items.names[some], self._described(items.columns[some], first))
        if self._topic is not None:
            self._topic.rewind()
        for changes in self.changes():
            catalogue.put(*self.put_by(changes, catalogue))
            catalogue.remove(removed_by(changes))
        self._stamp = stamp
        return catalogue

    def changes(self) -> Iterator[list[ItemChange]]:
        """The changes that follow in the topic, up to ITEMS_AT_ONCE at a time; each item once in a list."""
        while self._topic is not None and (found := self._topic.read()):
            yield from (found[first : first + ITEMS_AT_ONCE] for first in range(0, len(found), ITEMS_AT_ONCE))

    def put_by(self, changes: Sequence[ItemChange], catalogue: Catalogue) -> tuple[list[ItemName], Described]:
        """Names and description of the items that changes put into a catalogue.

        Items that do not fit the configuration, or have the id of another item, are refused.
        """
        put = [(change.name, change.columns) for change in changes if change.columns is not None]
        for place, other in reversed(catalogue.clashes([name for name, _ in put]).items()):
            self.refuse(put.pop(place)[0], f"item {other!r} has the same id. hint: rename one of them")
        try:
            return [name for name, _ in put], self._described([columns for _, columns in put])
        except (InputError, ModelError):
            fitting = [each for each in put if self._fits(*each)]
            return [name for name, _ in fitting], self._described([columns for _, columns in fitting])

    def refuse(self, name: ItemName, problem: str) -> None:
        """Count and log a change that is left out."""
        if self._topic is not None:
            self._topic.refuse(f"item {name!r}: {problem}")

    def _fits(self, name: ItemName, columns: dict[str, Any]) -> bool:
        try:
            self._described([columns])
        except (InputError, ModelError) as failure:
            self.refuse(name, str(failure))
            return False
        return True

    def _described(self, columns: Sequence[dict[str, Any]], first: int = 0) -> Described:
        batch, at_ms = self._reader.batch_of(columns, self._clock.now_ms(), first)
        return Described(self._reader.features_of(batch, at_ms, first), self._attributes.of(batch))


def removed_by(changes: Sequence[ItemChange]) -> list[ItemName]:
    """The items that changes remove."""
    return [change.name for change in changes if change.columns is None]
