"""Bad data and failing user code halt a shard: the sample is named, the batch kept, and the named way out works."""

import copy
import re

import numpy as np
import pyarrow as pa
import pytest

from pipeline.cli.terminal.options import read_range
from pipeline.errors import HaltedError
from pipeline.logs.open import open_log
from pipeline.trainer.commit.halt import kept_file
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import MODEL, WRITTEN, append_samples, make_project, make_samples, train

ROWS, BAD = 200, 77

SHELF = """
def shelf(item, at_ms):
    import pyarrow as pa
    return pa.array([FAIL(text) for text in item.to_pylist()])

def raising(text):
    return int(text[1:]) // 2

def exiting(text):
    import sys
    return sys.exit(3) if text == "gift" else text
"""

EMBEDDED = """
import keras
from keras import layers

def build(inputs):
    x = layers.Flatten()(layers.Embedding(10, 2)(inputs["stock"]))
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()([x, inputs["user"]])))
"""

AVERAGE = 'layers.GlobalAveragePooling1D()(inputs["tags"], mask=inputs["tags_mask"])'
HIDDEN = "ops.where(count > 0, layers.Dense(2)(total / count), 0.0)"
"""Finite, and its gradient by the weights is not."""
AVERAGED = """
import keras
from keras import layers, ops

def build(inputs):
    mask = ops.cast(inputs["tags_mask"], "float32")[:, :, None]
    count, total = ops.sum(mask, axis=1), ops.sum(inputs["tags"] * mask, axis=1)
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()([inputs["user"], inputs["item"], AVERAGE])))
"""


def with_item(text: str) -> pa.RecordBatch:
    """The samples, with another item at row BAD."""
    samples = make_samples(1, ROWS)
    items = samples.column("item").to_pylist()
    items[BAD] = text
    return samples.set_column(samples.schema.get_field_index("item"), "item", pa.array(items))


def with_stock(bad: float, bad_row: int = BAD) -> pa.RecordBatch:
    stock = np.ones(ROWS)
    stock[bad_row] = bad
    return make_samples(1, ROWS).append_column("stock", pa.array(stock))


def document(**sections) -> dict:
    written = copy.deepcopy(WRITTEN)
    for name, value in sections.items():
        written[name] = {**written[name], **value} if isinstance(value, dict) else value
    return written


def with_dense() -> dict:
    written = document(dense=[{"name": "stock", "column": "stock"}])
    written["events"]["impressions"]["columns"]["stock"] = "float"
    return written


def halted(project, log) -> str:
    """Train until it halts; a second run halts in the same way. Returns the error."""
    with pytest.raises(HaltedError) as first:
        train(project, log)
    with pytest.raises(HaltedError) as second:
        train(project, log)
    assert str(first.value) == str(second.value)
    halt = VersionStore(project).ledger.halts.get(0)
    assert (project.root / halt.batch_file).exists()
    return str(first.value)


def go_on(project, error: str) -> None:
    """What the error names: exclude the sample, then resume."""
    [times] = re.findall(r"springtide quarantine add (20\S+)", error)
    ledger = VersionStore(project).ledger
    ledger.quarantines.add(Quarantine(0, "bad", times_ms=read_range(times.rstrip(";"))))
    ledger.halts.clear(0)


def without_bad(samples: pa.RecordBatch) -> pa.RecordBatch:
    return samples.take(pa.array([i for i in range(ROWS) if i != BAD]))


@pytest.mark.parametrize("fail", ["raising", "exiting"])
def test_transform_that_fails_on_one_sample_halts_and_goes_on_without_it(tmp_path, fail):
    written = document()
    written["fields"][1] |= {"transform": "model:shelf"}
    model = MODEL + SHELF.replace("FAIL", fail)
    project = make_project(tmp_path / "bad", written, model)
    log = open_log(project)
    append_samples(log, project, with_item("gift"))
    error = halted(project, log)
    assert "field item: model:shelf failed" in error
    assert f"by sample {BAD - 64} of the batch, id {BAD}" in error
    go_on(project, error)
    clean = make_project(tmp_path / "clean", written, model)
    clean_log = open_log(clean)
    append_samples(clean_log, clean, without_bad(make_samples(1, ROWS)))
    train(clean, clean_log)
    train(project, log)
    assert rows_of(project) == rows_of(clean)


def rows_of(project) -> dict:
    store = VersionStore(project)
    fields = store.restore(store.current(0)).fields
    return {name: (change.keys.tolist(), change.rows.tobytes()) for name, change in fields.items()}


def test_network_that_fails_on_one_sample_halts_and_names_it(tmp_path):
    project = make_project(tmp_path, with_dense(), EMBEDDED)
    log = open_log(project)
    append_samples(log, project, with_stock(11, ROWS - 2))  # in the last batch, which is short and not compiled by XLA
    error = halted(project, log)
    assert "the model of model:build failed: InvalidArgumentError" in error
    assert f"id {ROWS - 2}" in error
    go_on(project, error)
    train(project, log)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_sample_whose_number_makes_the_loss_explode_is_named(tmp_path, bad):
    project = make_project(tmp_path, with_dense())
    log = open_log(project)
    append_samples(log, project, with_stock(bad))
    error = halted(project, log)
    assert f"by sample {BAD - 64} of the batch, id {BAD}" in error
    go_on(project, error)
    train(project, log)


@pytest.mark.parametrize("average", [AVERAGE, HIDDEN])
def test_sample_whose_empty_list_the_model_divides_by_is_named_with_its_column(tmp_path, average):
    written = document()
    written["fields"][2] |= {"pooling": "none", "max_length": 2}
    project = make_project(tmp_path, written, AVERAGED.replace("AVERAGE", average))
    log = open_log(project)
    samples = make_samples(1, ROWS)
    tags = [None if row == BAD else each for row, each in enumerate(samples.column("tags").to_pylist())]
    place = samples.schema.get_field_index("tags")
    append_samples(log, project, samples.set_column(place, "tags", pa.array(tags, pa.list_(pa.string()))))
    error = halted(project, log)
    assert f"by sample {BAD - 64} of the batch, id {BAD}, without elements in tags; to skip it" in error
    go_on(project, error)
    train(project, log)


def test_strong_regulariser_is_no_reason_to_halt(tmp_path):
    model = MODEL.replace('"relu")', '"relu", kernel_regularizer=keras.regularizers.L2(1e6))')
    project = make_project(tmp_path, model=model)
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS))
    train(project, log)


def test_damaged_file_of_a_halted_batch_is_named(tmp_path):
    model = MODEL.replace('"relu")', '"relu", kernel_regularizer=keras.regularizers.L2(1e37))')
    project = make_project(tmp_path, model=model)
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS))
    halted(project, log)
    name = VersionStore(project).ledger.halts.get(0).batch_file
    file = project.root / name
    content = file.read_bytes()
    assert kept_file(project, name) == name
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(HaltedError, match=r"the batch is in state/halted/shard-0-at-0-0\.\w+\.parquet \(damaged: its"):
        train(project, log)
    file.unlink()
    with pytest.raises(HaltedError, match=r"\(cannot be read: No such file or directory\)"):
        train(project, log)


def test_weights_that_are_not_finite_halt_and_are_never_committed(tmp_path):
    model = MODEL.replace('"relu")', '"relu", kernel_regularizer=keras.regularizers.L2(1e37))')
    project = make_project(tmp_path, model=model)
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS))
    assert "weights of the network are not finite" in halted(project, log)
    assert VersionStore(project).current(0) is None
