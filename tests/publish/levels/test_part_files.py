"""Files of one part of the model: what they hold, what refuses them, and that a replica starts from them alone."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from pipeline.configuration.model.parts import PartConfig
from pipeline.errors import DamagedError, DeltaError, InputError
from pipeline.features.plan import FeaturePlan
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.model.dense import DenseModel
from pipeline.model.identity import serving_digest
from pipeline.model.network.weights import unpack
from pipeline.publish.levels.level_publisher import LevelPublisher, publish_level
from pipeline.publish.levels.part import cut_to_part, find_part
from pipeline.publish.levels.schedule import PublishSchedule
from pipeline.serving.replica import Replica
from pipeline.serving.served_shard import ServedShard
from pipeline.versions.deltas.delta import decode_delta, delta_name, encode_delta
from pipeline.versions.deltas.published_files import (
    delta_manifests,
    published_folder,
    read_published,
)
from tests.support.shop.two_rankers import CASCADE, LABELS
from tests.support.synthetic.trainer import DIMS, SyntheticTrainer, project_at
from tests.support.world.served_model import INSTANCE, commit_rows
from tests.support.world.stored_paths import path_of

PARTS = [{"name": "pre", "labels": ["coarse"]}, {"name": "fine", "labels": ["click"]}]


def declared():
    return [PartConfig(**part) for part in PARTS]


class World:
    """A trainer of a cascade with two commits."""

    def __init__(self, root):
        (root / "model.py").write_text(CASCADE)
        self.project = project_at(root, labels=LABELS, parts=PARTS)
        self.trainer = SyntheticTrainer(self.project)
        self.plan, self.network = FeaturePlan(self.project.config, root), DenseModel(self.project.config, root)
        digest = serving_digest(self.project.config, self.plan, self.network)
        self.trainer.model = {"name": "model", "digest": digest}
        self.commit(1.0)
        self.commit(2.0)

    def commit(self, value):
        commit_rows(self.trainer, self.plan, self.network, value)

    def publish(self, level, part=None):
        return publish_level(self.project, self.trainer.log, self.trainer.store, 0, level, part)

    def folder(self, part):
        return published_folder(self.project.published, part and self.project.config.part(part).place)

    def redefine(self, part, *labels):
        """The part, with other labels."""
        parts = tuple(each if each.name != part else PartConfig(name=part, labels=labels) for each in declared())
        self.project = replace(self.project, config=self.project.config.model_copy(update={"parts": parts}))
        return find_part(self.project.config, self.project.root, part)

    def files(self, part):
        folder = self.folder(part)
        return {path_of(file).stem: (file, manifest) for file, manifest in delta_manifests(folder, 0, 1)}

    def replica(self, part=None, project=None, log=None):
        project = project or self.project
        serving = project.config.serving.model_copy(update={"part": part})
        config = project.config.model_copy(update={"serving": serving})
        made = Replica.for_predictions(replace(project, config=config), log or self.trainer.log)
        made.catch_up()
        return made


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """By name, the parts of the model, whose network does not depend on the project."""
    root = tmp_path_factory.mktemp("parts")
    (root / "model.py").write_text(CASCADE)
    config = project_at(root, labels=LABELS, parts=PARTS).config
    return {name: find_part(config, root, name) for name in ("pre", "fine")}


@pytest.fixture
def world(tmp_path):
    root = tmp_path / "trainer"
    root.mkdir()
    made = World(root)
    yield made
    made.trainer.close()


def test_a_full_of_a_part_holds_its_rows_and_weights_under_the_digest_of_the_version(world, parts):
    whole, part = world.publish("full"), world.publish("full", parts["pre"])
    assert (part.model["part"], whole.model.get("part")) == ("pre", None)
    assert (part.after, part.to_sequence) == (whole.after, whole.to_sequence)
    assert (whole.rows, part.rows) == (2, 1)
    [(file, manifest)] = world.files("pre").values()
    assert manifest == part
    assert path_of(file).parent == path_of(world.project.published) / "parts" / "pre" / "152397e3" / "g0" / "s0-of-1"
    assert part.model["part_digest"] == "152397e3"
    delta, _ = read_published(file, manifest)
    assert {name: len(field) for name, field in delta.fields.items()} == {"item": 1, "user": 0}
    assert {weight.shape for weight in unpack(delta.dense).values()} == {(8, 4), (4,), (4, 1), (1,)}
    assert list(world.files(None)) == ["full-0-2"]


def test_a_replica_of_the_part_starts_from_its_files_alone_and_follows_the_topic(world, parts, tmp_path):
    world.publish("full", parts["pre"])
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "model.py").write_text(CASCADE)
    away = project_at(tmp_path / "away", labels=LABELS, parts=PARTS)
    shutil.copytree(path_of(world.project.published) / "parts" / "pre", path_of(away.published) / "parts" / "pre")
    log = SqliteLog(away.logs, away.clock)
    replica = world.replica("pre", away, log)
    for sequence in (2, 3):
        if sequence == 3:
            world.commit(3.0)
            log.append("deltas", 0, [world.trainer.commits[-1].prepared.encoded])
            replica.catch_up()
        whole = world.replica()
        (shard,) = replica.status()["shards"]
        assert (shard["sequence"], shard["rows"], shard["refused"]) == (sequence, {"item": 1}, {})
        assert replica.digest() == whole.digest()
        wanted, _ = whole.predict([INSTANCE])
        found, _ = replica.predict([INSTANCE])
        assert found.tobytes() == np.ascontiguousarray(wanted[:, 1:]).tobytes()
    log.close()


def test_incrementals_of_a_part_follow_its_own_files(world, parts):
    pre = parts["pre"]
    assert world.publish("incremental", pre).from_sequence == 0
    world.commit(3.0)
    world.publish("full")
    world.commit(4.0)
    schedule = PublishSchedule(world.project.config.publish, world.trainer.store, 0, pre.place)
    assert schedule.on_command("incremental") == "incremental"
    made = world.publish("incremental", pre)
    assert (made.level, made.from_sequence, made.to_sequence) == ("incremental", 2, 4)
    assert schedule.on_command("incremental") is None
    assert world.publish("incremental", pre) is None
    assert world.publish("incremental").from_sequence == 3
    assert list(world.files("pre")) == ["incremental-0-2", "incremental-2-4"]
    assert list(world.files(None)) == ["full-0-3", "incremental-3-4"]


def test_a_part_cut_from_a_published_file_has_the_same_bytes(world, parts):
    direct = world.publish("full", parts["pre"])
    shutil.rmtree(path_of(world.project.published) / "parts")
    whole = world.publish("full")
    levels = LevelPublisher(world.project, world.trainer.store, world.trainer.hooks, 0, parts["pre"])
    assert levels.publish_part_of(whole) == direct


def test_files_of_a_part_are_superseded_by_its_own_fulls(world, parts):
    for value in (3.0, 4.0, 5.0):
        world.publish("full", parts["pre"])
        world.publish("full")
        world.publish("full", parts["fine"])
        world.commit(value)
    for part in (None, "pre", "fine"):
        assert list(world.files(part)) == ["full-0-3", "full-0-4"]
    world.publish("full", parts["pre"])
    assert list(world.files("pre")) == ["full-0-4", "full-0-5"]
    assert list(world.files(None)) == ["full-0-3", "full-0-4"]
    assert world.trainer.store.ledger.published.latest("full", 0).id.sequence == 4
    assert world.trainer.store.ledger.published.latest(f"full/{parts['pre'].place}", 0).id.sequence == 5


def test_a_part_that_is_defined_anew_is_published_at_the_same_version_with_files_of_its_own(world, parts):
    former = world.publish("full", parts["pre"])
    files = world.files("pre")
    wider = world.redefine("pre", "coarse", "click")
    schedule = PublishSchedule(world.project.config.publish, world.trainer.store, 0, wider.place)
    assert (schedule.on_command("incremental"), world.files("pre")) == ("incremental", {})
    made = world.publish("full", wider)
    assert (made.to_sequence, made.after, made.model["part"]) == (former.to_sequence, former.after, "pre")
    assert (former.rows, made.rows) == (1, 2)
    log = SqliteLog(world.project.root / "other", world.project.clock)
    replica, whole = world.replica("pre", log=log), world.replica()
    (shard,) = replica.status()["shards"]
    assert (shard["sequence"], shard["rows"], shard["refused"]) == (2, {"item": 1, "user": 1}, {})
    wanted, _ = whole.predict([INSTANCE])
    found, _ = replica.predict([INSTANCE])
    assert found.tobytes() == np.ascontiguousarray(wanted[:, ::-1]).tobytes()
    log.close()
    world.redefine("pre", "coarse")
    assert world.files("pre") == files
    assert world.publish("full", parts["pre"]) == former


def test_a_part_with_its_labels_in_another_order_has_the_same_files(world):
    first, second = (world.redefine("pre", *labels) for labels in (("coarse", "click"), ("click", "coarse")))
    assert world.publish("full", first) == world.publish("full", second)


def test_files_of_a_former_definition_go_with_those_of_the_present_one(world, parts):
    world.publish("full", parts["pre"])
    former = world.folder("pre")
    wider = world.redefine("pre", "coarse", "click")
    for value in (3.0, 4.0):
        world.publish("full", wider)
        assert list(delta_manifests(former, 0, 1))
        world.commit(value)
    world.publish("full", parts["fine"])
    assert list(delta_manifests(former, 0, 1))
    world.publish("full", wider)
    assert not list(delta_manifests(former, 0, 1))
    assert list(world.files("pre")) == ["full-0-3", "full-0-4"]
    assert list(world.files("fine")) == ["full-0-4"]


def test_a_replica_of_the_whole_model_or_of_another_part_refuses_the_file_of_a_part(world, parts):
    world.publish("full", parts["pre"])
    file, manifest = world.files("pre")["full-0-2"]
    delta, encoded = read_published(file, manifest)
    for part, serves in ((None, "the whole model"), ("fine", "part fine")):
        shard = ServedShard(0, 1, DIMS, held=part and {"item", "user"}, part=part)
        with pytest.raises(DeltaError, match=f"is of part pre, this replica serves {serves}"):
            shard.check(delta, delta_name(encoded))
    other = path_of(world.folder("fine")) / "g0" / "s0-of-1"
    shutil.copytree(path_of(file).parent, other)
    (shard,) = world.replica("fine").status()["shards"]
    assert shard["refused"] == {"file": 1}
    assert shard["sequence"] == 2  # from the topic


@pytest.mark.parametrize("table", ["item", "user"])
def test_a_file_of_a_part_with_a_wrong_row_or_digest_is_refused(world, parts, table):
    world.publish("full", parts["pre"])
    delta, _ = read_published(*world.files("pre")["full-0-2"])
    if table == "item":
        field = delta.fields["item"]
        wrong = replace(delta, fields={**delta.fields, "item": replace(field, payload=field.payload ^ 1)})
    else:
        wrong = replace(delta, digests={**delta.digests, "user": delta.digests["user"] ^ 1})
    shard = ServedShard(0, 1, DIMS, held={"item"}, part="pre")
    shard.stage(delta, "right")
    with pytest.raises(DeltaError, match="would result in served digest"):
        shard.stage(decode_delta(encode_delta(wrong)), "wrong")


@pytest.mark.parametrize("digest", [None, "not hex"])
def test_a_file_of_a_part_without_the_digest_of_all_dense_weights_is_damaged(world, parts, digest):
    cut = cut_to_part(world.trainer.commits[-1].prepared.delta, parts["pre"])
    model = {name: text for name, text in cut.model.items() if name != "dense_digest"}
    with pytest.raises(DamagedError, match="publish part pre again"):
        _ = replace(cut, model=model if digest is None else model | {"dense_digest": digest}).dense_digest


def test_a_part_that_does_not_exist_is_refused(world):
    with pytest.raises(InputError, match="part coarse does not exist"):
        find_part(world.project.config, world.project.root, "coarse")
