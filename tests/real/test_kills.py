"""`springtide run` on real news impressions, killed with `kill -9` six times: the same samples and the same model.

Each kill follows a new commit; its cost is printed and is at most one round.
"""

import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from pipeline.configuration.project import Project
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.open import open_log
from pipeline.samples.run.status import join_status
from pipeline.samples.state.state_files import read_state_manifest
from pipeline.versions.state import VersionSummary
from pipeline.versions.store.version_store import VersionStore
from tests.real.command import assert_same_samples
from tests.real.test_mind import COLUMNS, SOURCE, WINDOW_MS, clicks_of, impressions, joined, prepare
from tests.support.command.command_line import call, springtide, start

__all__ = ["impressions"]
pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason=f"the MIND impressions are missing: {SOURCE}")

KILLS = 6
ROUND_RECORDS, COMMIT_BATCHES, BATCH_SIZE = 2, 40, 256
TIMEOUT_S = 120
KINDS = ("impression", "click")


class Progress(NamedTuple):
    """The durable progress of a project."""

    rounds: int
    emitted: int
    version: int


class Watched:
    """A running project observed from outside. Read-only."""

    def __init__(self, root: Path) -> None:
        self.project = Project.open(root)
        self.log, self.store = open_log(self.project), VersionStore(self.project)

    def progress(self) -> Progress:
        current, manifest = self.store.current(0), read_state_manifest(self.project.join_state)
        emitted = self.log.end_offset("samples", 0)
        return Progress(manifest.number if manifest else 0, emitted, current.sequence if current else 0)

    def versions(self) -> list[VersionSummary]:
        return self.store.versions(0)

    def unsaved(self) -> pd.DataFrame:
        """Origins of the samples that are in the log and not in the join's saved state: they are decided again."""
        manifest = read_state_manifest(self.project.join_state)
        records = self.log.read("samples", 0, manifest.shards[0].samples_offset if manifest else 0)
        parts = [decode_sample_block(record.value).batch.to_pandas() for record in records]
        return pd.concat(parts) if parts else pd.DataFrame({"impression_offset": [], "click_offset": []})


@pytest.fixture(scope="module")
def mind(tmp_path_factory, impressions):
    """Ingested and ready to run, in small rounds and frequent commits; and what the join should give."""
    rng = np.random.default_rng(41)
    count = int(impressions["click"].sum())
    low, high = np.array([(0, 30), (30, 330), (1_000, 5_000)])[rng.choice(3, count, p=[0.8, 0.15, 0.05])].T * 1000
    clicks = clicks_of(impressions, rng.integers(low, high), seed=42)
    project = prepare(tmp_path_factory.mktemp("mind"), impressions, clicks)
    text = (project / "springtide.toml").read_text()
    text = text.replace("\n[model]\n", f"\nround_records = {ROUND_RECORDS}\n\n[model]\n")
    text = text.replace("batch_size = 64", f"batch_size = {BATCH_SIZE}")  # larger batches end sooner
    commits = f'commit_every_batches = {COMMIT_BATCHES}\ncommit_every_s = 3600\ncommit_every_log_s = "off"'
    (project / "springtide.toml").write_text(text.replace("commit_every_log_s = 3600", commits))
    assert WINDOW_MS == 30_000
    return project, joined(impressions, clicks)[0]


def kill_after_progress(root: Path, number: int) -> None:
    """Run until a new commit and a random delay longer, then `kill -9`; print and check the cost.

    The commit alternates between samples in the log (their round may not be saved yet) and a saved round; in the second
    half it is a version.
    """
    watched = Watched(root)
    before = watched.progress()
    running = start(root, "run", "all")
    awaited = "version" if number > KILLS // 2 else ("emitted", "rounds")[number % 2]
    delay_s = np.random.default_rng(number).uniform(0, 0.15) if awaited != "emitted" else 0
    began_at_s = time.monotonic()
    try:
        while getattr(watched.progress(), awaited) == getattr(before, awaited):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() - began_at_s < TIMEOUT_S, f"nothing was committed since {before}"
            time.sleep(0.002)
        time.sleep(delay_s)
    finally:
        running.kill()
        running.communicate()
    after = watched.progress()
    again = watched.unsaved()
    read_to = {kind: offset_of(watched, kind) for kind in KINDS}
    # Samples beyond the saved state are from the one round in progress.
    reread = {
        kind: max(0, int(again[f"{kind}_offset"].max() + 1) - read_to[kind]) if len(again) else 0 for kind in KINDS
    }
    print(
        f"kill {number}: rounds {before.rounds} → {after.rounds}, sample records {before.emitted} → {after.emitted}, "
        f"version {before.version} → {after.version}; "
        f"{sum(reread.values())} input records to read again for {len(again)} samples"
    )
    assert max(reread.values()) <= ROUND_RECORDS


def offset_of(watched: Watched, kind: str) -> int:
    return join_status(watched.project, watched.log)["inputs"][f"{kind}s/0"]["offset"]


def test_six_kills_leave_the_same_samples_and_the_same_model(mind, tmp_path, capsys):
    prepared, wanted = mind
    disturbed = shutil.copytree(prepared, tmp_path / "disturbed")
    with capsys.disabled():
        print()
        for number in range(1, KILLS + 1):
            kill_after_progress(disturbed, number)
    springtide(disturbed, "run", "all", "--until-end")
    assert_same_samples(samples_of(disturbed), wanted, COLUMNS)
    calm = shutil.copytree(prepared, tmp_path / "calm")
    springtide(calm, "run", "samples", "--until-end")
    pd.testing.assert_frame_equal(sorted_all(disturbed), sorted_all(calm))

    versions = Watched(disturbed).versions()
    learned = np.diff([0, *(version.samples_seen for version in versions)])
    with capsys.disabled():
        print(f"{len(versions)} versions; a kill costs at most the {learned.max()} samples between two of them")
    assert learned.max() <= BATCH_SIZE * COMMIT_BATCHES
    assert digest(disturbed) == digest(retrained(disturbed, tmp_path / "anew"))


def samples_of(project: Path) -> pd.DataFrame:
    springtide(project, "export", "samples", "--out", project / "samples.parquet")
    return pd.read_parquet(project / "samples.parquet")


def sorted_all(project: Path) -> pd.DataFrame:
    """Every column of the samples, in the order of the input."""
    rows = samples_of(project)
    return rows.sort_values(["impression_offset", "impression_row", "kind"], ignore_index=True)


def retrained(project: Path, root: Path) -> Path:
    """A new project with only the samples log of `project`, trained to its end without interruption."""
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("versions", "published", "samples.parquet"))
    opened = Project.open(root)
    log = open_log(opened)
    for topic in ("deltas", "notices", "ledger"):
        log.delete_topic(topic)
    springtide(root, "run", "train", "--until-end")
    return root


def digest(project: Path) -> str:
    done = call("versions", "--project", project, "--json")
    [current] = [version for version in done.result["versions"] if version["current"]]
    return current["digest"]
