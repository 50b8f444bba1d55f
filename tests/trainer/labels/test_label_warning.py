"""A label that no click can carry is a warning in the log, the metrics and the status."""

import copy

import numpy as np
import pyarrow as pa
from structlog.testing import capture_logs

from pipeline.cli.commands.jobs.status import _collect
from pipeline.logs.open import open_log
from tests.support.shop.shop import MODEL, WRITTEN, append_samples, make_project, make_samples, train


def test_label_without_a_positive_is_reported_once_it_has_had_enough_samples(tmp_path):
    document = copy.deepcopy(WRITTEN)
    document["samples"] = {"labels": ["label", "bought"]}
    document["events"]["clicks"]["columns"]["bought"] = "float"
    document["train"]["positive_within_samples"] = 100
    project = make_project(tmp_path, document, MODEL.replace("layers.Dense(1)", "layers.Dense(2)"))
    log = open_log(project)
    samples = make_samples(1, 200)
    append_samples(log, project, samples.append_column("bought", pa.array(np.zeros(200, np.float32))))
    with capture_logs() as logged:
        train(project, log)
    warnings = [each for each in logged if each["event"] == "label without a positive"]
    assert [each["label"] for each in warnings] == ["bought"]
    [row] = _collect(project, log)["trainer"]
    assert row["labels_without_positive"] == ["bought"]
