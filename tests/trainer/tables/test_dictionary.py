"""The operator's dictionary: values of keys, written by a trainer, read by any process."""

import numpy as np
import pyarrow as pa

from pipeline.features.plan import FeaturePlan
from pipeline.logs.open import open_log
from pipeline.trainer.tables.dictionary import Dictionary
from tests.support.shop.shop import WRITTEN, append_samples, make_project, make_samples, train


def _trained(folder, dictionary_size=100_000):
    project = make_project(folder, WRITTEN | {"train": {**WRITTEN["train"], "dictionary_size": dictionary_size}})
    log = open_log(project)
    append_samples(log, project, make_samples(1, 600))
    train(project, log)
    return project


def test_values_of_keys_that_a_trainer_admitted_can_be_read_by_others(tmp_path):
    project = _trained(tmp_path)
    plan = FeaturePlan(project.config, project.root)
    keys = np.array([plan.key_of("user", {"user": f"u{n}"}) for n in (3, 1, 999)], np.uint64)
    assert Dictionary(project, 0).values("user", keys) == ["u3", "u1", None]
    assert Dictionary(project, 0).values("item", keys) == [None, None, None]


def test_no_more_values_are_stored_than_the_bound(tmp_path):
    project = _trained(tmp_path, dictionary_size=7)
    plan = FeaturePlan(project.config, project.root)
    keys = np.array([plan.key_of("user", {"user": f"u{n}"}) for n in range(40)], np.uint64)
    texts = Dictionary(project, 0).values("user", keys)
    assert sum(text is not None for text in texts) == 7


def test_a_long_value_is_cut(tmp_path):
    project = make_project(tmp_path)
    samples = make_samples(1, 100)
    long = samples.schema.get_field_index("user")
    samples = samples.set_column(long, "user", pa.array(["ü" * 500] * 100))
    log = open_log(project)
    append_samples(log, project, samples)
    train(project, log)
    key = FeaturePlan(project.config, project.root).key_of("user", {"user": "ü" * 500})
    assert Dictionary(project, 0).values("user", np.array([key], np.uint64)) == ["ü" * 120]
