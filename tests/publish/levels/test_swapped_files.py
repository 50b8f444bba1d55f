"""Published files in each other's place, or of another model: named, and never served as what their name says."""

import shutil
from contextlib import closing

import pytest

from pipeline.errors import DamagedError
from pipeline.files.folder import local_file
from pipeline.logs.open import open_log
from pipeline.publish.delta_topic import DeltaWriter
from pipeline.publish.levels.level_publisher import publish_level
from pipeline.serving.replica import Replica
from pipeline.versions.deltas.delta import decode_delta
from pipeline.versions.deltas.published_files import read_delta_manifest, read_published
from pipeline.versions.store.version_store import VersionStore
from tests.support.synthetic.commits import World, project_in
from tests.support.world.stored_paths import path_of


def publish_versions(root, seed=1):
    """A project with fulls of versions 1 and 2 and an incremental of version 3; returns it with its folder of files."""
    project = project_in(root)
    with closing(open_log(project)) as log, closing(VersionStore(project)) as store:
        world, writer = World(store, seed=seed), DeltaWriter(project, log, 0)
        for level in ("full", "full", "incremental"):
            encoded = store.delta(world.commit())
            writer.append(decode_delta(encoded), encoded)
            publish_level(project, log, store, 0, level)
    return project, path_of(project.published) / "g0" / "s0-of-1"


def test_a_manifest_in_the_place_of_another_is_named(tmp_path):
    _, folder = publish_versions(tmp_path)
    for suffix in ("json", "delta"):
        shutil.copy(folder / f"full-0-1.{suffix}", folder / f"full-0-2.{suffix}")
    with pytest.raises(DamagedError, match=r"full-0-2\.json cannot be read: it is the manifest of g0/s0-of-1/full-0-1"):
        read_delta_manifest(local_file(folder / "full-0-2.json"))


@pytest.mark.parametrize("place", ["g1/s0-of-1", "g0/s1-of-2", "g0/s0-of-2"])
def test_a_manifest_in_the_folder_of_another_shard_or_generation_is_named(tmp_path, place):
    project, folder = publish_versions(tmp_path)
    other = path_of(project.published) / place
    shutil.copytree(folder, other)
    with pytest.raises(DamagedError, match=r"it is the manifest of g0/s0-of-1/full-0-1"):
        read_delta_manifest(local_file(other / "full-0-1.json"))


def test_a_delta_file_in_the_place_of_another_is_named(tmp_path):
    _, folder = publish_versions(tmp_path)
    shutil.copy(folder / "full-0-1.delta", folder / "full-0-2.delta")
    file = local_file(folder / "full-0-2.json")
    with pytest.raises(DamagedError, match=r"full-0-2\.delta has .* its manifest has"):
        read_published(file, read_delta_manifest(file))


def test_a_full_of_another_project_is_reported_by_the_replica(tmp_path):
    project, folder = publish_versions(tmp_path / "own")
    _, foreign = publish_versions(tmp_path / "foreign", seed=9)
    shutil.rmtree(folder)
    shutil.copytree(foreign, folder)
    with closing(open_log(project)) as log:
        replica = Replica(project, log)
        replica.catch_up()
        (shard,) = replica.status()["shards"]
    assert "results in served digest" in shard["problem"]
    assert shard["refused"] == {"unfit": 1}
