"""The event time each stage has reached, and whether that is the head of the log.

A stage counts as being at the head if its delay is at most BEHIND_S.
"""

from collections.abc import Callable

from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.interface.log import last_record
from pipeline.logs.open import open_log
from pipeline.versions.store.version_store import VersionStore
from tests.torture.load import Load
from tests.torture.site import Site

BEHIND_S = {"samples": 2.0, "trainer": 5.0, "replica": 5.0}
"""Largest delay behind the latest click at the head: batches and commits take time."""
_POLL_EVERY_S = 0.2
_WITHIN_S = 300.0


class Head:
    """Observes the stages from outside. Read-only."""

    def __init__(self, site: Site, load: Load) -> None:
        self._site, self._load = site, load
        self._log, self._store = open_log(site.project), VersionStore(site.project)

    def close(self) -> None:
        self._store.close()
        self._log.close()

    def wait(self, since_s: float) -> dict[str, float]:
        """Seconds from `since_s` until each stage was at the head with a later event. Raises AssertionError."""
        clock, found = self._site.project.clock, dict[str, float]()
        stages: dict[str, Callable[[], int]] = {
            "samples": self._samples_ms,
            "trainer": self._trainer_ms,
            "replica": self._replica_ms,
        }
        produced_ms, ends_s = self._load.clicked_at_ms(since_s), clock.monotonic_s() + _WITHIN_S
        while len(found) < len(stages):
            self._load.check()
            for stage, reached in stages.items():
                now_s = clock.monotonic_s()
                wanted_ms = max(produced_ms + 1, self._load.clicked_at_ms(now_s - BEHIND_S[stage]))
                if stage not in found and reached() >= wanted_ms:
                    found[stage] = round(clock.monotonic_s() - since_s, 1)
            if clock.monotonic_s() > ends_s and len(found) < len(stages):
                raise AssertionError(f"not at the head after {_WITHIN_S:.0f} s, reached {found}: {self._site.jobs()}")
            clock.wait(_POLL_EVERY_S)
        return found

    def wait_until_learned(self, at_ms: int) -> None:
        """Return once every shard has learned from samples of that event time or later. Raises AssertionError."""
        clock = self._site.project.clock
        ends_s = clock.monotonic_s() + _WITHIN_S
        while self._trainer_ms() < at_ms:
            self._load.check()
            assert clock.monotonic_s() < ends_s, f"no sample of {at_ms} ms or later was learned: {self._site.jobs()}"
            clock.wait(_POLL_EVERY_S)

    def _samples_ms(self) -> int:
        config = self._site.project.config
        watermarks_ms = []
        for shard in range(config.logs.shards):
            record = last_record(self._log, config.topics.samples, shard)
            watermarks_ms.append(0 if record is None else decode_sample_block(record.value).watermark_ms)
        return min(watermarks_ms) + round(config.events.disorder_s * 1000)

    def _trainer_ms(self) -> int:
        versions = [self._store.current(shard) for shard in range(self._site.project.config.logs.shards)]
        return min(0 if id is None else self._store.ledger.version(id).last_at_ms for id in versions)

    def _replica_ms(self) -> int:
        status = self._site.replica_status()
        return 0 if status is None else min(shard["last_at_ms"] or 0 for shard in status["shards"])
