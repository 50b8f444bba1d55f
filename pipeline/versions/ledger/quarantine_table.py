"""The quarantines of the ledger. Removed ones stay, so that an id is never used again."""

from dataclasses import replace

from pipeline.errors import VersionError
from pipeline.process.clock import Clock
from pipeline.versions.ledger.common_state import CommonState
from pipeline.versions.ledger.quarantine import Quarantine, Quarantines
from pipeline.versions.ledger.records import Quarantined
from pipeline.versions.ledger.topic import LedgerTopic


class QuarantineTable:
    """Thread-safe."""

    def __init__(self, topic: LedgerTopic, clock: Clock) -> None:
        self._topic, self._clock = topic, clock

    def add(self, quarantine: Quarantine) -> int:
        """Store a quarantine, which is in force from now on; returns its id. Raises InputError for an empty range."""
        added: list[Quarantine] = []

        def decide(state: CommonState) -> Quarantined:
            added.append(self.numbered(state, quarantine))
            return Quarantined(quarantine=added[-1])

        self._topic.append_common(decide)
        return added[-1].id

    def numbered(self, state: CommonState, quarantine: Quarantine) -> Quarantine:
        """The quarantine with the next id and its time. Raises InputError for an empty range."""
        quarantine.check()
        return replace(
            quarantine, id=max(state.quarantines, default=0) + 1, added_at_ms=self._clock.now_ms(), removed_at_ms=None
        )

    def remove(self, id: int) -> None:
        """End a quarantine: samples not read yet are read again. Raises VersionError for an id not in force."""

        def decide(state: CommonState) -> Quarantined:
            found = state.quarantines.get(id)
            if found is None or found.removed_at_ms is not None:
                raise VersionError(f"quarantine {id} is not in force. run: springtide quarantine list")
            return Quarantined(quarantine=replace(found, removed_at_ms=self._clock.now_ms()))

        self._topic.append_common(decide)

    def get(self, id: int) -> Quarantine:
        """The quarantine with an id, in force or removed. Raises VersionError."""
        with self._topic.reading_common() as state:
            found = state.quarantines.get(id)
        if found is None:
            raise VersionError(f"quarantine {id} does not exist. run: springtide quarantine list")
        return found

    def all(self) -> list[Quarantine]:
        """Every quarantine ever added, removed ones included, by id."""
        with self._topic.reading_common() as state:
            return sorted(state.quarantines.values(), key=lambda quarantine: quarantine.id)

    def active(self, shard: int) -> Quarantines:
        """The quarantines in force for one shard."""
        return Quarantines([q for q in self.all() if q.removed_at_ms is None and q.shard in (None, shard)])
