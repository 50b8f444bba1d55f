"""Training and serving feed the network the same bytes: equal rows, equal samples, equal inputs, to the bit."""

import copy

import numpy as np
import pyarrow as pa
import pytest

from pipeline.features.plan import FeaturePlan
from pipeline.logs.open import open_log
from pipeline.serving.predictor import Predictor
from pipeline.trainer.batch.batches import BatchReader, Excluded, SamplePosition
from pipeline.trainer.batch.prefetch import Prefetcher
from pipeline.trainer.tables.tables import Tables
from tests.support.shop.shop import WRITTEN, append_samples, make_project, make_samples

ROWS = 64
WORDS = [f"w{i}" for i in range(20)]
UNSEEN = "without a row"
WEIGHTS = np.float32([3e38, -3e38, 1e-45, -1e-45, 1.1754944e-38, -1e-40, 0.0, -0.0, 1 / 3, -7.1, 1e-20, 16777217.0])


def field(name, column, dim, pooling):
    never = {"kind": "count", "threshold": 1_000_000}
    return {"name": name, "columns": [column], "dim": dim, "pooling": pooling, "admission": never}


MODEL = """
import keras

def build(inputs):
    return keras.Model(inputs, keras.layers.Dense(1)(inputs["user_sum"]))
"""
LINEAR = ("sum", "mean", "sqrtn")

FIELDS = [
    *(field(f"{pooling}{dim}", "tags", dim, pooling) for pooling in ("mean", "sum") for dim in (1, 3, 4, 16)),
    field("user_mean", "user", 4, "mean"),
    field("user_sum", "user", 5, "sum"),
    *(field(f"{pooling}{dim}", "tags", dim, pooling) for pooling in ("sqrtn", "max") for dim in (3, 16)),
    *(
        field(f"none{dim}", "tags", dim, "none") | {"max_length": length, "keep": keep}
        for dim, length, keep in ((1, 1, "first"), (3, 7, "last"), (16, 40, "last"))
    ),
    *(field(f"weighted_{pooling}", "tags", 4, pooling) | {"weights": "strengths"} for pooling in LINEAR),
    *({**field(f"shared_{column}", column, 4, "mean"), "table": "words"} for column in ("user", "tags")),
]
WORDS_TABLE = {name: FIELDS[-1][name] for name in ("dim", "admission")} | {"name": "words"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    document = copy.deepcopy(WRITTEN) | {"tables": [WORDS_TABLE], "fields": FIELDS}
    document["dense"] = [{"name": "number", "column": "id"}]
    document["events"]["impressions"]["columns"]["strengths"] = "floats"
    project = make_project(tmp_path_factory.mktemp("identity"), document, MODEL)
    return project, Predictor(project.config, project.root)


def ragged(random):
    """Lists of none, one or many words, some of them several times; some lists are null."""
    lengths = random.choice([0, 1, 1, 2, 3, 7, 40], ROWS)
    words = [*WORDS, UNSEEN]
    return [random.choice(words, length).tolist() if random.random() < 0.95 else None for length in lengths]


def samples_of(random):
    samples = make_samples(int(random.integers(2**32)), ROWS)
    users = random.choice([*WORDS, UNSEEN], ROWS)
    tags, strengths = pa.array(ragged(random), pa.list_(pa.string())), []
    for words in tags.to_pylist():
        given = words is not None and random.random() < 0.8
        strengths.append(random.choice([0.0, 0.25, 1.0, None], len(words)).tolist() if given else None)
    samples = samples.append_column("strengths", pa.array(strengths, pa.list_(pa.float64())))
    for name, column in (("tags", tags), ("user", pa.array(users))):
        samples = samples.set_column(samples.schema.get_field_index(name), name, column)
    return samples


def tables_of(project, plan, random):
    """Every word has a row of extreme weights in every field."""
    tables = Tables(project.config)
    for config in project.config.fields:
        table = tables.by_name[config.table_name].table
        keys = np.array([plan.key_of(config.name, {config.columns[0]: word}) for word in WORDS], np.uint64)
        rows = np.zeros(len(keys), table.row_dtype)
        rows["weights"], rows["unsettled"] = random.choice(WEIGHTS, rows["weights"].shape), 1
        table.import_rows(keys, rows)
    return tables


def trained_on(project, plan, tables, samples):
    """[n, columns] what the trainer's network sees of the samples, read from a samples log."""
    log = open_log(project)
    first = log.end_offset("samples", 0)
    append_samples(log, project, samples)
    everything = Excluded(lambda samples, at_ms, offset: np.zeros(len(at_ms), bool))
    reader = BatchReader(log, "samples", 0, SamplePosition(first, 0), ROWS, everything)
    prefetcher = Prefetcher(reader, plan, project.config.outputs)
    prepared = prefetcher.next(log.end_offset("samples", 0))
    prefetcher.close()
    return tables.gather(tables.admit(prepared, 0, SamplePosition(first, 0)))[:ROWS].copy()


def predicted_from(predictor, tables, samples):
    """[n, columns] what the replica's network sees of the same samples, sent as JSON instances."""
    instances = samples.select(["id", "user", "item", "tags", "strengths"]).to_pylist()
    features = predictor.features(instances, 0)
    return predictor.inputs(features, lambda name, keys: tables.by_name[name].table.lookup(keys))


@pytest.mark.parametrize("seed", range(10))
def test_training_and_serving_pool_ragged_rows_to_the_same_bytes(shop, seed):
    project, predictor = shop
    random, plan = np.random.default_rng(seed), FeaturePlan(project.config, project.root)
    tables, samples = tables_of(project, plan, random), samples_of(random)
    trained, predicted = trained_on(project, plan, tables, samples), predicted_from(predictor, tables, samples)
    assert not np.isnan(trained).any()
    assert np.isinf(trained).any()
    np.testing.assert_array_equal(trained.view(np.uint32), predicted.view(np.uint32))
