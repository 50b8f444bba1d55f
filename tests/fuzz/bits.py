"""Flips one bit of one durable file of a project, and runs everything that reads it.

    .venv/bin/python -m tests.fuzz.bits --trials 10000 --seed 1 [--folder /dev/shm]

A project is made once: events ingested and joined, versions committed, published, rolled back, published again, and a
kill that leaves write-ahead logs. Each trial works on a copy. For every reader the result is the same as without the
flip, or an error of this package that is raised or reported, or a warning about a write-ahead log, or it is silent:
another result, or an exception of another kind. The program ends with 1 if any is.
The list of files that are not flipped is `_CACHES`: they hold nothing, or are written again before they are read.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from structlog.testing import capture_logs

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.errors import SpringtideError
from pipeline.ingest.ingest import ingest
from pipeline.logs.events.sample_block import sample_schema
from pipeline.logs.interface.log import Log, read_to_end
from pipeline.logs.open import open_log
from pipeline.publish.delta_topic import DeltaWriter
from pipeline.publish.levels.level_publisher import publish_level
from pipeline.quarantine.key_set import KeySet
from pipeline.quarantine.predicate import Predicate
from pipeline.quarantine.sample_mask import Choice, SampleMask
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.rollback.reverse import reverse_content
from pipeline.samples.run.in_process import run_samples
from pipeline.samples.run.rounds import Rounds
from pipeline.samples.state.snapshot import take_snapshot
from pipeline.serving.replica import Replica
from pipeline.versions.deltas.delta import decode_delta
from pipeline.versions.ledger.quarantine import ANY_TIME_MS, Quarantine
from pipeline.versions.store.restore_ledger import restore_ledger
from pipeline.versions.store.version_store import VersionStore
from tests.support.manual_clock import ManualClock
from tests.support.synthetic.commits import CONFIG, MODEL, World, rows_of, served_of

_CACHES = ("*.lock", "*-shm")
START_MS = 1_700_000_000_000
_NOW_MS = START_MS + 7_200_000


@dataclass(frozen=True)
class Flip:
    """One flipped bit: the file below the project's folder, the byte, the bit."""

    file: Path
    at: int
    bit: int


@dataclass(frozen=True)
class Silent:
    """A flip that a reader did not notice, or that made it fail unnamed."""

    flip: Flip
    reader: str
    found: str


def make_project(root: Path) -> None:
    """A small project in `root` with every kind of durable file that needs no cluster."""
    root.mkdir(parents=True, exist_ok=True)
    project = _project(root)
    with closing(open_log(project)) as log:
        _ingest_events(project, log)
        run_samples(project, log, until_end=True)
        with closing(VersionStore(project)) as store:
            world, writer = World(store), DeltaWriter(project, log, 0)
            for number in range(6):
                _commit(store, world, writer, full=number == 3)
                if number in (1, 3):
                    publish_level(project, log, store, 0, "full" if number == 1 else "incremental")
            store.ledger.quarantines.add(Quarantine(0, "bots", times_ms=(100, 200)))
            _quarantine_users(project, store)
            store.ledger.halts.set(0, "loss nan", "state/halted/none.parquet")
            store.ledger.halts.clear(0)
        roll_back(project, log, plan_rollback(project, log, before_ms=world.at_ms))
        with closing(VersionStore(project)) as store:
            world.store = store
            world.restart()
            writer = DeltaWriter(project, log, 0)
            for number in range(3):
                _commit(store, world, writer)
                if number == 1:
                    publish_level(project, log, store, 0, "full")
            shutil.copytree(project.state, root / "killed")
    shutil.rmtree(project.state)
    (root / "killed").rename(project.state)


def trials(base: Path, scratch: Path, count: int, seed: int) -> Iterator[tuple[Flip, list[Silent], int]]:
    """Flip `count` bits, one after another; yields each with what was silent, and how many readers named it."""
    wanted = results(shutil.copytree(base, scratch / "wanted"))
    files, random = durable_files(base), Random(seed)
    for number in range(count):
        # Small files and large ones are equally likely: most kinds of files are small.
        file = random.choice(files)
        flip = Flip(file, random.randrange((base / file).stat().st_size), random.randrange(8))
        root = shutil.copytree(base, scratch / str(number))
        content = bytearray((root / file).read_bytes())
        content[flip.at] ^= 1 << flip.bit
        (root / file).write_bytes(content)
        found = results(root)
        silent = [Silent(flip, name, found[name][1]) for name in wanted if _is_silent(found[name], wanted[name])]
        yield flip, silent, sum(kind == "named" for kind, _ in found.values())
        shutil.rmtree(root)


def durable_files(root: Path) -> list[Path]:
    """The files of the state folder that hold something, relative to `root`."""
    files = (path for path in sorted((root / "state").rglob("*")) if path.is_file() and path.stat().st_size)
    return [path.relative_to(root) for path in files if not any(path.match(cache) for cache in _CACHES)]


def results(root: Path) -> dict[str, tuple[str, str]]:
    """By reader, in order: `same` with its result, or `named` or `unnamed` with its error."""
    project, found, warned = _project(root), {}, ""
    for name, reader in _READERS.items():
        with capture_logs() as logged:
            try:
                found[name] = ("same", repr(reader(project)))
            except SpringtideError as failure:
                found[name] = ("named", str(failure))
            except Exception as failure:
                found[name] = ("unnamed", f"{type(failure).__name__}: {failure}")
        # The first reader that opens the file removes its log; those after it find what is left.
        warned = next((each["event"] for each in logged if "write-ahead log" in each["event"]), warned)
        if warned and found[name][0] == "same":
            found[name] = ("named", warned)
    return found


def _is_silent(found: tuple[str, str], wanted: tuple[str, str]) -> bool:
    return found[0] == "unnamed" or (found[0] == "same" and found != wanted)


def _quarantine_users(project: Project, store: VersionStore) -> None:
    keys = KeySet("user", "string", np.arange(3, dtype=np.uint64))
    choice = Choice(Predicate("id != 'i3'", sample_schema(project.config)), keys)
    choice.store(project)
    store.ledger.quarantines.add(Quarantine(0, "bots", ANY_TIME_MS, selection=choice.selection))


def _project(root: Path) -> Project:
    samples = {"window_s": 60, "horizon_s": 120, "key_retention_s": 30}
    config = parse_config({**CONFIG, "logs": {"shards": 1, "partitions": 1}, "samples": samples})
    return Project(root, config, ManualClock(_NOW_MS))


def _ingest_events(project: Project, log: Log) -> None:
    impressions, clicks = project.root / "impressions.csv", project.root / "clicks.csv"
    shown = [f"i{n},{START_MS + n * 1000},u{n % 7}" for n in range(300)]
    impressions.write_text("\n".join(["id,at,user", *shown, ""]))
    clicks.write_text("\n".join(["id,at", *(f"i{n},{START_MS + n * 1000 + 500}" for n in range(0, 300, 9)), ""]))
    ingest(project, log, "impressions", [impressions])
    ingest(project, log, "clicks", [clicks])


def _commit(store: VersionStore, world: World, writer: DeltaWriter, full: bool = False) -> None:
    encoded = store.delta(world.commit(full))
    writer.append(decode_delta(encoded), encoded)


def _status(project: Project) -> Any:
    with closing(VersionStore(project)) as store, closing(open_log(project)) as log:
        ledger = store.ledger
        published = [ledger.published.latest(level, 0) for level in ("full", "incremental")]
        topics = {t: (log.partitions(t), log.begin_offset(t, 0), log.end_offset(t, 0)) for t in log.topics()}
        return ledger.versions(0), ledger.rollbacks(), ledger.quarantines.all(), ledger.halts.get(0), published, topics


def _logs(project: Project) -> Any:
    with closing(open_log(project)) as log:
        return [(topic, record) for topic in log.topics() for run in read_to_end(log, topic, 0) for record in run]


def _join(project: Project) -> Any:
    with closing(open_log(project)) as log:
        rounds = Rounds(project, log)
        snapshot = take_snapshot(rounds.shards[0].join)
        ends = rounds.ends()
        return snapshot.header, sorted(snapshot.sections.items()), ends, rounds.unread(ends)


def _ingest_again(project: Project) -> Any:
    with closing(open_log(project)) as log:
        files = [project.root / "impressions.csv", project.root / "clicks.csv"]
        reports = [ingest(project, log, "impressions", files[:1]), ingest(project, log, "clicks", files[1:])]
        return [(report.rows, len(report.skipped_files)) for report in reports]


def _train(project: Project) -> Any:
    with closing(VersionStore(project)) as store, closing(open_log(project)) as log:
        current, epoch = store.current(0), store.raise_epoch(0)
        writer = DeltaWriter(project, log, 0)
        writer.refuse_later(current, MODEL)
        state, mask = store.restore(current), SampleMask.of(project, store.ledger.quarantines.active(0))
        keys = {id: choice.keys.hashes.tolist() for id, choice in mask.choices.items() if choice.keys}
        masked = mask.quarantines, keys
        missing = writer.append_missing([store.delta(current)])
        return current, epoch, rows_of(state), served_of(state), state.training_state, state.dense, masked, missing


def _replica(project: Project) -> Any:
    with closing(open_log(project)) as log:
        replica = Replica(project, log)
        replica.catch_up()
        (shard,) = replica.status()["shards"]
        if shard["problem"]:
            raise SpringtideError(shard["problem"])
        return replica.version, replica.digest(), shard["rows"]


def _rollback(project: Project) -> Any:
    with closing(open_log(project)) as log, closing(VersionStore(project)) as store:
        plan = plan_rollback(project, log, before_ms=store.lineage(0)[-1].last_at_ms)
        (shard,) = plan.shards
        store.check(shard.target)
        return plan, reverse_content(project, log, store, shard.target, shard.current).next_handles


def _publish(project: Project) -> Any:
    with closing(VersionStore(project)) as store, closing(open_log(project)) as log:
        return publish_level(project, log, store, 0, "incremental"), publish_level(project, log, store, 0, "full")


def _restore(project: Project) -> Any:
    """The ledger, lost and restored from its backup."""
    shutil.rmtree(project.logs / project.config.topics.ledger, ignore_errors=True)
    restored = restore_ledger(project)
    # How many versions the backup lacked depends on the readers before, which may have stopped at the flip.
    return restored.generation, restored.current, restored.quarantines


_READERS: Mapping[str, Callable[[Project], Any]] = {
    "status": _status,
    "logs": _logs,
    "join": _join,
    "ingest": _ingest_again,
    "train": _train,
    "replica": _replica,
    "rollback": _rollback,
    "publish": _publish,
    "restore": _restore,
}


def main() -> int:
    """Run the trials and print counts; returns the exit code."""
    parser = argparse.ArgumentParser(description="Flip bits of a project's durable files.")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None, help="Where to make the copies; one in memory is faster.")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        base = Path(scratch) / "base"
        make_project(base)
        for flip, silent, named in trials(base, Path(scratch), options.trials, options.seed):
            counts["silent" if silent else "named" if named else "harmless"] += 1
            for each in silent:
                sys.stdout.write(
                    f"SILENT {flip.file} byte {flip.at} bit {flip.bit}: {each.reader}: {each.found[:200]}\n"
                )
    sys.stdout.write(f"{options.trials} trials, seed {options.seed}: {dict(sorted(counts.items()))}\n")
    return 1 if counts["silent"] else 0


if __name__ == "__main__":
    sys.exit(main())
