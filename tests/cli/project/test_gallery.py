"""Every model of `springtide init --model`: it learns a small shop and serves the bits of its forward pass."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.cli.commands.jobs.create import GalleryModel
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.model.dense import DenseModel
from pipeline.serving.predictor import Predictor
from tests.support.command.command_line import call, feed, make_events, springtide
from tests.support.shop.shop import make_samples
from tests.support.world.in_memory_trainer import InMemoryTrainer

ROWS, ITEMS, USERS, GROUPS = 8_000, 30, 50, 3
LEAST_RECALL = 0.41
"""Of two towers, at a third of the items: a third by chance."""


def samples(rows: int, seed: int, labels: Sequence[str] = ("label",)) -> pa.RecordBatch:
    """Users and items that differ, a position that hides items, and histories that show the group a user likes.

    Of `labels`, the first is the click, and the second a purchase after a click, by the user.
    """
    random = np.random.default_rng(seed)
    user, item, position = (random.integers(0, n, rows) for n in (USERS, ITEMS, 5))
    liked = (np.arange(USERS) % GROUPS)[user]
    lengths = random.integers(0, 5, rows)
    picked = [random.integers(0, ITEMS // GROUPS, length) for length in lengths]
    history = [(each * GROUPS + group).tolist() for each, group in zip(picked, liked, strict=True)]
    worth = np.random.default_rng(0).normal(0, 0.7, USERS)[user] + np.random.default_rng(1).normal(0, 0.7, ITEMS)[item]
    logit = worth - 1.5 - 0.4 * position + 1.5 * (item % GROUPS == liked)
    clicked = random.random(rows) < 1 / (1 + np.exp(-logit))
    bought = clicked & (random.random(rows) < 0.1 + 0.6 * (user % 2))
    made = make_samples(seed, rows).drop_columns(["tags", "label"])
    for name, happened in zip(labels, (clicked, bought), strict=False):
        made = made.append_column(name, pa.array(happened.astype(np.float32)))
    for name, column in {
        "user": pa.array([f"user-{u}" for u in user]),
        "item": pa.array([f"item-{i}" for i in item]),
        "kind": pa.array(np.where(clicked, "positive", "negative")),
    }.items():
        made = made.set_column(made.schema.get_field_index(name), name, column)
    made = made.append_column("position", pa.array(position))
    lists = pa.array([[f"item-{i}" for i in each] for each in history], pa.list_(pa.string()))
    return made.append_column("history", lists).append_column("impression_id", pa.array(map(str, range(rows))))


@pytest.fixture(params=list(GalleryModel))
def folder(request, tmp_path) -> Path:
    done = call("init", tmp_path / "shop", "--model", request.param)
    assert done.code == 0
    return tmp_path / "shop"


def test_published_model_learns_a_shop_and_serves_its_forward_pass(folder):
    trainer = InMemoryTrainer(Project.open(folder))
    trainer.model.try_step()  # as config check does
    trainer = InMemoryTrainer(Project.open(folder))
    config, labels = trainer.project.config, trainer.project.config.label_names
    stream = samples(ROWS, 3, labels)
    trainer.learn(stream)
    if config.towers is not None:
        clicked = stream.column(labels[0]).to_numpy()[ROWS // 2 :] > 0
        # A third of the items is liked: ten of thirty.
        assert (np.concatenate(trainer.ranks)[ROWS // 2 :][clicked] < ITEMS // GROUPS).mean() > LEAST_RECALL
        assert_serves_the_same_bits(trainer, samples(64, 4, labels))
        return
    outputs = trainer.project.config.outputs
    rates = np.array([stream.column(label.source).to_numpy()[ROWS // 2 :].mean() for label in outputs])
    terms = [1 + (label.distill or 0) for label in outputs]  # a teacher adds a log loss
    entropy = (-(rates * np.log(rates) + (1 - rates) * np.log(1 - rates)) * terms).sum()
    assert np.mean(trainer.losses[len(trainer.losses) // 2 :]) < 0.97 * entropy
    assert_serves_the_same_bits(trainer, samples(64, 4, labels))


def assert_serves_the_same_bits(trainer: InMemoryTrainer, stream: pa.RecordBatch) -> None:
    predictor = Predictor(trainer.project.config, trainer.project.root)
    predictor.load(trainer.model.serving_bytes())
    names = trainer.project.config.events.impressions.columns
    rows = stream.select(list(names)).to_pylist()
    at_ms = stream.column("impression_at").to_pylist()
    features = predictor.features([row | {"at": at} for row, at in zip(rows, at_ms, strict=True)], 0)
    inputs, served = predictor.inputs(features, trainer.lookup), predictor.predict(features, trainer.lookup)
    np.testing.assert_array_equal(served, trainer.model.predict(inputs))
    trainer.learn(stream)
    np.testing.assert_array_equal(inputs, trainer.inputs[-1])  # -0.0 is equal to 0.0: a row may be new and empty


def test_the_coarse_ranker_of_the_cascade_is_served_alone(tmp_path):
    folder = tmp_path / "shop"
    call("init", folder, "--model", "cascade")
    config, network = Project.open(folder).config, DenseModel(Project.open(folder).config, folder)
    whole, part = Predictor(config, folder), Predictor(config, folder, config.part("pre").labels)
    assert part.tables == ("user", "item")
    assert part.columns == ("user", "item")
    assert part.model_digest == whole.model_digest
    rows = [{"user": f"user-{i}", "item": f"item-{i % 7}", "position": i} for i in range(50)]
    found = []
    for predictor in (whole, part):
        predictor.load(network.serving_bytes())
        features = predictor.features(rows, 0)
        found.append(
            predictor.predict(features, lambda table, keys: np.sin(keys % 97)[:, None].repeat(8, 1).astype("f4"))
        )
    assert np.ascontiguousarray(found[0][:, 1:]).tobytes() == found[1].tobytes()
    assert len(np.unique(found[1])) > 10


def test_the_two_towers_recall_items_once_recall_is_declared(tmp_path):
    folder = tmp_path / "shop"
    call("init", folder, "--model", "two_tower")
    settings = (folder / "springtide.toml").read_text()
    assert "# [recall] " in settings
    settings = settings.replace("# [recall] ", "[recall] ").replace('# items = "items.jsonl"', 'items = "items.jsonl"')
    (folder / "springtide.toml").write_text(settings)
    (folder / "items.jsonl").write_text("".join(f'{{"item": "i{i}"}}\n' for i in range(20)))
    impressions, clicks = make_events(1, 2_000)
    feed(folder, (impressions.drop(columns="position").assign(history=[["i1"]] * len(impressions)), clicks))
    springtide(folder, "run", "all", "--until-end")
    shown = springtide(folder, "recall", "user=u1", "history=i3|i4", "-k", "20")
    assert {row["item"] for row in shown["items"]} == {f"i{i}" for i in range(20)}
    scores = [row["score"] for row in shown["items"]]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 20
    assert max(map(abs, scores)) < 1.001  # both vectors have length 1


def test_an_unknown_part_is_refused_with_the_known_ones(tmp_path):
    call("init", tmp_path / "shop", "--model", "cascade")
    done = call("replica", "--project", tmp_path / "shop", "--part", "fine")
    assert done.code == InputError.exit_code
    assert "part fine does not exist. known: pre" in done.err


def test_published_models_are_short_and_cite_their_paper():
    for name in GalleryModel:
        text = (resources.files("pipeline.cli") / "gallery" / name / "model.py").read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 60
        assert "et al. 20" in text or "Rendle 2010" in text
