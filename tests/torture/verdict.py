"""Compares the results with an undisturbed run over the same events and counts the differences."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline.configuration.project import Project
from pipeline.logs.events.dead_letters import read_dead_letters
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.interface.log import Log, read_to_end
from pipeline.logs.open import open_log
from pipeline.samples.run.in_process import run_samples
from pipeline.trainer.run.in_process import run_train
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.store.version_store import VersionStore
from tests.torture.site import Site

_SAMPLE_KEY = ["impression_partition", "impression_offset", "impression_row", "kind"]
_LETTER_KEY = ["topic", "partition", "offset", "row"]
_WITHIN_S = 300.0
_POLL_EVERY_S = 1.0


def wait_for_samples(site: Site, wanted: int) -> None:
    """Return once the live log has `wanted` samples, or after a timeout."""
    _wait(site, lambda: count_samples(site.project) >= wanted)


def join_reference(live: Project, twin: Project) -> None:
    """Copy the events with their offsets to the twin and join them in process."""
    source, target = open_log(live), open_log(twin)
    for topic in (live.config.topics.impressions, live.config.topics.clicks):
        for partition in range(source.partitions(topic)):
            for records in read_to_end(source, topic, partition):
                first = target.append(topic, partition, [record.value for record in records])
                assert first == records[0].offset, f"{topic}/{partition} has a gap before {records[0].offset}"
    run_samples(twin, target, until_end=True)
    source.close()
    target.close()


def quarantines_of(project: Project) -> list[Quarantine]:
    """The quarantines that the project's rollbacks have created."""
    store = VersionStore(project)
    found = store.ledger.quarantines.all()
    store.close()
    return found


def train_reference(reference: Project, quarantines: Iterable[Quarantine]) -> list[dict[str, Any]]:
    """Learn from the samples log except the quarantined ranges; returns CURRENT of each shard.

    A rollback has no other effect: its targets are from before the quarantine, so everything learned from the range is
    undone.
    """
    store = VersionStore(reference)
    for quarantine in quarantines:
        store.ledger.quarantines.add(quarantine)
    store.close()
    log = open_log(reference)
    run_train(reference, log, until_end=True)
    log.close()
    return currents(reference)


def wait_for_trainer(site: Site, wanted: list[dict[str, Any]]) -> None:
    """Return once the live trainer has reached the positions of `wanted`, or after a timeout."""
    positions = [row["position"] for row in wanted]
    _wait(site, lambda: [row["position"] for row in currents(site.project)] == positions)


def wait_for_replica(site: Site, wanted: list[dict[str, Any]]) -> None:
    """Return once the replica serves the versions of `wanted`, or after a timeout."""
    versions = [row["version"] for row in wanted]
    _wait(site, lambda: [row["version"] for row in served(site)] == versions)


def currents(project: Project) -> list[dict[str, Any]]:
    """CURRENT of each shard that has one."""
    store, rows = VersionStore(project), []
    for shard in range(project.config.logs.shards):
        if (id := store.current(shard)) is not None:
            found = store.ledger.version(id)
            position = [found.offset, found.row]
            row = {"version": str(id), "position": position, "samples_seen": found.samples_seen}
            rows.append({**row, "digest": found.digest, "served": found.served_digest})
    store.close()
    return rows


def served(site: Site) -> list[dict[str, Any]]:
    """Version and digest that the replica serves, by shard."""
    status = site.replica_status()
    shards = [] if status is None else status["shards"]
    return [{"version": shard["version"], "served": shard["digest"]} for shard in shards]


def compare(live: pd.DataFrame, reference: pd.DataFrame, key: list[str]) -> dict[str, int]:
    """Counts of rows: of `reference` missing in `live`, surplus in `live`, and with the same key but other values.

    >>> reference = pd.DataFrame({"id": [1, 2, 3], "label": [0, 1, 0]})
    >>> compare(pd.DataFrame({"id": [3, 1, 1], "label": [1, 0, 0]}), reference, ["id"])
    {'wanted': 3, 'found': 3, 'lost': 1, 'doubled': 1, 'differing': 1}
    """
    places = [pd.MultiIndex.from_frame(rows[key]) for rows in (live, reference)]
    lost = len(places[1].difference(places[0]))
    counted = [pd.Series(1, index=place).groupby(level=list(range(len(key)))).sum() for place in places]
    extra = counted[0].sub(counted[1], fill_value=0)
    doubled = int(extra[extra > 0].sum())
    both = [rows.drop_duplicates(key).set_index(key) for rows in (live, reference)]
    common = both[0].index.intersection(both[1].index)
    pairs = [[rows.loc[common, name] for rows in both] for name in reference.columns.difference(key)]
    differing = int(np.any([_unlike(*pair) for pair in pairs], axis=0).sum())
    return {"wanted": len(reference), "found": len(live), "lost": lost, "doubled": doubled, "differing": differing}


def compare_samples(live: Project, reference: Project) -> dict[str, int]:
    """As `compare`."""
    return compare(samples_of(live), samples_of(reference), _SAMPLE_KEY)


def compare_letters(live: Project, reference: Project) -> dict[str, int]:
    """As `compare`, without the details: they can contain the append time, which differs in a copy."""
    return compare(*(letters_of(project).drop(columns="detail") for project in (live, reference)), _LETTER_KEY)


def count_samples(project: Project) -> int:
    """Number of samples in the log."""
    log, topic = open_log(project), project.config.topics.samples
    found = sum(len(batch) for shard in range(project.config.logs.shards) for batch in _samples(log, topic, shard))
    log.close()
    return found


def samples_of(project: Project) -> pd.DataFrame:
    """All samples."""
    topic = project.config.topics.samples
    return _table(project, lambda log, shard: _samples(log, topic, shard))


def letters_of(project: Project) -> pd.DataFrame:
    """All dead letters."""
    topic = project.config.topics.dead_letters
    return _table(project, lambda log, shard: (read_dead_letters(run).table for run in read_to_end(log, topic, shard)))


def _samples(log: Log, topic: str, shard: int) -> Iterator[pa.RecordBatch]:
    for records in read_to_end(log, topic, shard):
        yield from (decode_sample_block(record.value).batch for record in records)


def _table(project: Project, batches: Any) -> pd.DataFrame:
    log = open_log(project)
    found: list[Iterable[pa.RecordBatch]] = [batches(log, shard) for shard in range(project.config.logs.shards)]
    table = pa.Table.from_batches([batch for shard in found for batch in shard])
    log.close()
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _unlike(one: pd.Series, other: pd.Series) -> npt.NDArray[np.bool_]:
    """[n] bool, where two columns differ; missing values are equal."""
    if one.dtype == other.dtype == object:
        one, other = one.map(_plain), other.map(_plain)
    return np.asarray((one != other) & ~(one.isna() & other.isna()))


def _plain(value: Any) -> Any:
    """A comparable form of the value: lists and missing values become equal to themselves."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return "" if value is None or value != value else str(value)


def _wait(site: Site, reached: Any) -> None:
    clock, ends_s = site.project.clock, site.project.clock.monotonic_s() + _WITHIN_S
    while not reached() and clock.monotonic_s() < ends_s:
        clock.wait(_POLL_EVERY_S)
