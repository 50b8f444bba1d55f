"""The configuration: all problems are reported together, each with its path; "off" means None."""

import copy
import pickle
import re

import pytest
from pydantic import ValidationError

from pipeline.configuration.config import load_config, parse_config
from pipeline.configuration.deployment.services import Flink
from pipeline.configuration.section import Section
from pipeline.configuration.streams.events import SAMPLE_COLUMNS
from pipeline.configuration.streams.logs import SCHEMAS_TOPIC
from pipeline.errors import ConfigError, LogError
from pipeline.logs.interface.checks import check_new_topic
from tests.support.shop.shop import WRITTEN


def problems_of(change):
    document = copy.deepcopy(WRITTEN)
    change(document)
    with pytest.raises(ConfigError) as caught:
        parse_config(document, "springtide.toml")
    return str(caught.value)


def test_all_problems_are_reported_together_with_their_paths():
    def change(document):
        document["colour"] = "blue"
        document["fields"][1]["dim"] = 0
        document["train"]["commit_every_s"] = "often"
        document["events"]["impressions"]["columns"]["user"] = "text"

    text = problems_of(change)
    assert "has 4 problem(s)" in text
    for path in (
        "colour: unknown key",
        "fields.1.dim: ",
        "train.commit_every_s: ",
        "events.impressions.columns.user: ",
    ):
        assert path in text


def test_an_unknown_key_is_reported_with_the_known_keys_of_its_table():
    def change(document):
        document["flnk"] = {}
        document["flink"] = {"paralelism": 2}
        document["fields"][0]["optimizer"] = {"kind": "sgd", "beta": 1}
        document["train"]["retention"] = {"colour": "off"}

    flink = ", ".join(Flink.model_fields)
    lines = problems_of(change).splitlines()[1:]
    assert lines[-1].startswith("  flnk: unknown key, the nearest is flink. known: name, state_dir, ")
    assert sorted(lines[:-1]) == [
        "  fields.0.optimizer.beta: unknown key. known: kind, learning_rate (fields.0 is user)",
        f"  flink.paralelism: unknown key, the nearest is parallelism. known: {flink}",
        "  train.retention.colour: unknown key. known: all_s, ten_minutes_s, daily_s, newest",
    ]


@pytest.mark.parametrize("value", ["8", 8.0, True, [8]])
def test_a_number_of_another_type_is_refused_and_the_entry_named(value):
    text = problems_of(lambda document: document["fields"][1].update(dim=value))
    assert f"fields.1.dim: Input should be a valid integer, got {value!r} (fields.1 is item)" in text


def test_a_text_in_place_of_a_list_is_refused():
    text = problems_of(lambda document: document["fields"][0].update(columns="user"))
    assert "fields.0.columns: Input should be a valid list, got 'user' (fields.0 is user)" in text


def test_a_key_that_one_event_lacks_is_reported():
    text = problems_of(lambda document: document["events"].update(key=["id", "user"]))
    assert "clicks.columns lacks user" in text


def test_a_field_of_a_missing_column_is_reported():
    text = problems_of(lambda document: document["fields"][0].update(columns=["colour"]))
    assert "field user reads column colour, which impressions lack" in text


def test_off_means_none_only_for_keys_that_allow_none():
    document = copy.deepcopy(WRITTEN)
    document["publish"]["full_every_s"] = "off"
    document["fields"][0]["admission"] = {"kind": "off"}
    config = parse_config(document)
    assert config.publish.full_every_s is None
    assert config.fields[0].admission.kind == "off"
    assert "model.batch_size" in problems_of(lambda document: document["model"].update(batch_size="off"))


def test_the_loss_of_serving_is_a_share_of_the_trainers():
    document = copy.deepcopy(WRITTEN)
    for given in (1e-9, 0.0002, 0.5):
        document["publish"]["loss"] = given
        assert parse_config(document).publish.loss == given
    for given in (0, 0.6, -1, float("nan"), "off", None):
        text = problems_of(lambda document, given=given: document["publish"].update(loss=given))
        assert "has 1 problem(s)" in text
        assert "publish.loss: " in text
    text = problems_of(lambda document: document["publish"].update(share=0.9))
    assert "publish.share: unknown key. known: loss, " in text


def test_dense_weights_are_priced_or_served_exactly():
    document = copy.deepcopy(WRITTEN)
    assert parse_config(document).publish.dense == "priced"
    for given in ("priced", "exact"):
        document["publish"]["dense"] = given
        assert parse_config(document).publish.dense == given
    for given in (0, 0.6, -1, float("nan"), "off", "0.01", [0.01], None):
        text = problems_of(lambda document, given=given: document["publish"].update(dense=given))
        assert "has 1 problem(s)" in text
        assert "publish.dense: " in text
    text = problems_of(lambda document: document["publish"].update(dense_rounding=0.02))
    assert "publish.dense_rounding: unknown key. known: loss, dense, " in text


@pytest.mark.parametrize(("text", "reason"), [(None, "does not exist"), ("a = ", "is not TOML"), ("\xff", "events")])
def test_a_file_that_cannot_be_read_is_reported(tmp_path, text, reason):
    path = tmp_path / "springtide.toml"
    if text is not None:
        path.write_text('x = "' + text + '"' if text == "\xff" else text)
    with pytest.raises(ConfigError, match=reason) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("bootstrap", "wrong"),
    [
        ("127.0.0.1:abc", "'127.0.0.1:abc'"),
        ("kafka", "'kafka'"),
        ("", "''"),
        ("a:1,b", "'b'"),
        ("a:1,,b:2", "''"),
        ("a:0", "'a:0'"),
        ("a:65536", "'a:65536'"),
        ("http://a:1", "'http://a:1'"),
    ],
)
def test_bootstrap_must_be_hosts_with_ports(bootstrap, wrong):
    text = problems_of(lambda document: document.update(logs={"engine": "kafka", "bootstrap": bootstrap}))
    assert f"logs.bootstrap: {wrong} is not host:port. hint: " in text


@pytest.mark.parametrize("rest", ["http://127.0.0.1:abc", "ftp://a:1", "http://", "http://a:0", "a:65536", "a b:1", ""])
def test_flink_rest_must_be_an_http_address(rest):
    text = problems_of(lambda document: document.update(flink={"rest": rest}))
    assert f"flink.rest: {rest!r} is not an http or https address. hint: " in text


def test_valid_addresses_are_accepted():
    for bootstrap in ("a:1", "a-1.b:65535, [::1]:9092"):
        assert parse_config(WRITTEN | {"logs": {"engine": "kafka", "bootstrap": bootstrap}}).logs.bootstrap == bootstrap
    for rest in ("http://a:1", "https://a.b:65535/flink", "http://[::1]:8081", "a:8081"):
        assert parse_config(WRITTEN | {"flink": {"rest": rest}}).flink.rest == rest


@pytest.mark.parametrize(
    ("cluster", "problem"),
    [
        ({"kafka_port": 9093}, "kafka_port and kafka_controller_port are both 9093"),
        (
            {"flink_rpc_port": 9092, "flink_rest_port": 9092},
            "kafka_port and flink_rest_port and flink_rpc_port are all",
        ),
        ({"flink_metrics_port": 8081}, "flink_rest_port and flink_metrics_port are both 8081"),
        (
            {"flink_metrics_port": 9090, "taskmanagers": 2},
            "kafka_port and the metrics port of taskmanager-2 are both 9092",
        ),
    ],
)
def test_the_ports_of_a_cluster_must_differ(cluster, problem):
    text = problems_of(lambda document: document.update(cluster=cluster))
    assert f"  cluster: {problem}" in text
    assert text.endswith(". hint: use a different port for each")
    assert parse_config(WRITTEN | {"cluster": {"flink_metrics_port": 9090, "taskmanagers": 1}})


def test_the_names_of_topics_must_differ():
    text = problems_of(lambda document: document.update(topics={"impressions": "samples"}))
    assert "topics: impressions and samples are both samples. hint: use a different name for each" in text
    text = problems_of(lambda document: document.update(topics={"deltas": SCHEMAS_TOPIC}))
    assert f"topics: deltas and the registry of schemas are both {SCHEMAS_TOPIC}. hint: " in text
    assert parse_config(WRITTEN | {"topics": {"impressions": "samples", "samples": "impressions"}})


@pytest.mark.parametrize("name", ["a b", "", ".hidden", "-a", "a/b", "ä", "a\n", "a" * 201])
def test_a_topic_name_that_the_logs_refuse_is_refused_with_the_same_message(name):
    with pytest.raises(LogError) as refused:
        check_new_topic(name, 1)
    text = problems_of(lambda document: document.update(topics={"deltas": name}))
    assert f"topics.deltas: {refused.value}" in text


def test_topic_names_that_the_logs_allow_are_accepted():
    for name in ("a" * 200, "_a-b.C9"):
        check_new_topic(name, 1)
        assert parse_config(WRITTEN | {"topics": {"deltas": name}}).topics.deltas == name


@pytest.mark.parametrize("name", ["key_retention_s", "remember_s"])
def test_the_retention_of_keys_is_read_under_its_former_name_too(name):
    document = copy.deepcopy(WRITTEN)
    document.setdefault("samples", {})[name] = 7
    assert parse_config(document).samples.key_retention_s == 7


def test_the_retention_of_keys_under_both_names_is_refused():
    assert "samples.remember_s: unknown key" in problems_of(
        lambda document: document.setdefault("samples", {}).update(key_retention_s=7, remember_s=8)
    )


def sections() -> list[type[Section]]:
    found, waiting = [], [Section]
    while waiting:
        waiting += (below := waiting.pop().__subclasses__())
        found += [each for each in below if each.__module__.startswith("pipeline.")]
    return sorted(found, key=lambda each: each.__name__)


def is_numeric(node: dict) -> bool:
    kinds = [node, *node.get("anyOf", ())]
    return any(kind.get("type") in ("number", "integer") for kind in kinds)


NUMERIC = [
    (section, name)
    for section in sections()
    for name, node in section.model_json_schema()["properties"].items()
    if is_numeric(node)
]


@pytest.mark.parametrize(("section", "name"), NUMERIC, ids=lambda each: getattr(each, "__name__", each))
def test_numbers_that_no_setting_needs_are_refused_by_every_setting(section, name):
    for value in (float("inf"), float("-inf"), float("nan"), 1e300, -1e300, 10**400, -1):
        with pytest.raises(ValidationError) as caught:
            section.model_validate({name: value})
        assert name in [error["loc"][0] for error in caught.value.errors()], value


def test_numbers_inside_lists_are_bounded_too():
    for value in (float("nan"), float("inf"), 1e308):
        text = problems_of(lambda document, v=value: document["fields"][0].update(transform="bucket", boundaries=[v]))
        assert "fields.0.boundaries.0: " in text


def test_only_the_real_problem_of_the_only_item_of_a_list_is_reported():
    text = problems_of(lambda document: document.update(fields=[{"name": "user", "columns": ["user"], "dim": 0}]))
    assert "has 1 problem(s)" in text
    assert "fields.0.dim: " in text
    assert "fields: " in problems_of(lambda document: document.update(fields=[]))


@pytest.mark.parametrize("name", [*SAMPLE_COLUMNS, "label", "at", "Item-Id", "1st", ""])
def test_impression_column_that_samples_or_avro_do_not_allow_is_reported(name):
    def change(document):
        document["events"]["impressions"]["columns"][name] = "float"

    assert re.search(rf"column (cannot be called )?'?{re.escape(name)}\b.*hint: rename it", problems_of(change))


def test_click_column_may_have_the_name_of_a_column_of_samples_but_not_of_the_event_time():
    def change(document):
        document["events"]["clicks"]["columns"]["at"] = "float"

    document = copy.deepcopy(WRITTEN)
    document["events"]["clicks"]["columns"]["weight"] = "float"
    assert parse_config(document)
    assert "events.clicks.columns: a column cannot be called 'at'" in problems_of(change)


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ({"labels": ["label", "rate"]}, "label rate has the name of a column of samples"),
        ({"labels": ["at"]}, "label at has the name"),
        ({"labels": ["label", "label"]}, "label label is declared twice"),
        ({"label_ranges": {"label": [0, 1]}}, "label_ranges has label, which is not a further label"),
        ({"labels": ["label", "seen"], "label_ranges": {"seen": [0.5, 0.2]}}, "label_ranges.seen is 0.5 to 0.2"),
        ({"labels": ["label", "seen"], "label_ranges": {"seen": [0, 600]}}, "samples.label_ranges.seen.1: "),
    ],
)
def test_label_that_cannot_be_learned_is_reported(samples, problem):
    def change(document):
        document["events"]["clicks"]["columns"]["seen"] = "float"
        document["samples"] = samples

    assert problem in problems_of(change)


@pytest.mark.parametrize(
    ("name", "given", "problem"),
    [
        (
            "purchase",
            {"columns": {"id": "int"}, "colour": 1},
            "events.purchase.colour: unknown key, the nearest is columns. known: ",
        ),
        ("purchase", {"columns": {"id": "int"}, "window_s": 0}, "events.purchase.window_s: "),
        ("purchase", {"columns": {"id": "int"}, "policy": "never"}, "events.purchase.policy: "),
        ("purchase", {"columns": {"item": "int"}}, "purchase.columns lacks id, which key or partition_by names"),
        ("purchase", {"columns": {"id": "string"}}, "id has different types in impressions and purchase"),
        (
            "purchase",
            {"columns": {"id": "int"}, "topic": "samples"},
            "samples and events.purchase.topic are both samples",
        ),
        (
            "clicks2",
            {"columns": {"id": "int"}, "topic": "clicks"},
            "events.clicks.topic and events.clicks2.topic are both",
        ),
        ("label", {"columns": {"id": "int"}}, "label label is declared twice"),
        ("weight", {"columns": {"id": "int"}}, "label weight has the name of a column of samples. hint: rename it"),
        ("feedback", {"columns": {"id": "int"}}, "label feedback has the name of a column of samples. hint: rename it"),
        ("Buy", {"columns": {"id": "int"}}, "a feedback cannot be called 'Buy'. hint: use a to z, 0 to 9 and _"),
        ("disorder", 3, "events.disorder: unknown key, the nearest is disorder_s. known: key, "),
        ("purchase", "off", "events.purchase: unknown key"),
    ],
)
def test_feedback_that_cannot_be_joined_is_reported(name, given, problem):
    assert problem in problems_of(lambda document: document["events"].update({name: given}))


def test_impression_column_with_the_name_of_a_column_of_several_feedbacks_is_reported_only_then():
    document = copy.deepcopy(WRITTEN)
    document["events"]["impressions"]["columns"]["feedback"] = "string"
    assert parse_config(document).clicks_only
    document["events"]["purchase"] = {"columns": {"id": "int"}}
    with pytest.raises(ConfigError, match="impression column feedback has the name of a column of samples"):
        parse_config(document)


def test_settings_of_clicks_without_clicks_are_reported():
    def change(document):
        del document["events"]["clicks"]
        document["events"]["purchase"] = {"columns": {"id": "int"}}
        document["samples"] = {"window_s": 5.0, "labels": ["bought"], "negative_rate": 0.5}
        document["topics"] = {"clicks": "other"}

    text = problems_of(change)
    for name in ("samples.window_s", "samples.labels", "topics.clicks"):
        assert f"{name} is a setting of clicks, and events.clicks is missing. hint: remove it" in text
    assert "negative_rate" not in text
    only = problems_of(lambda document: document["events"].pop("clicks"))
    assert "clicks is missing, and there is no other feedback. hint: declare [events.clicks]" in only


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ({"name": "x", "event": "share"}, "label x is of no feedback. hint: declare [events.share]"),
        ({"name": "purchase", "column": "user"}, "label purchase is not a numeric column of purchase"),
        ({"name": "purchase", "range": [0, 1]}, "label purchase has a range, but it is whether there is an event"),
    ],
)
def test_label_of_a_feedback_that_cannot_be_decided_is_reported(label, problem):
    def change(document):
        document["events"]["purchase"] = {"columns": {"id": "int"}}
        document["labels"] = [{"name": "label"}, label]

    assert problem in problems_of(change)


def test_feedbacks_come_after_clicks_in_the_order_of_the_file_with_one_label_each():
    document = copy.deepcopy(WRITTEN)
    document["events"] |= {name: {"columns": {"id": "int"}} for name in ("share", "like")}
    config = parse_config(document)
    assert config.label_names == ("label", "share", "like")
    assert config.input_topics == {n: n for n in ("impressions", "clicks", "share", "like")}


def test_range_of_a_dense_number_begins_with_the_smaller_value():
    def change(document):
        document["events"]["impressions"]["columns"]["price"] = "float"
        document["dense"] = [{"name": "price", "column": "price", "range": [2, 1]}]

    assert "dense price has range 2 to 1" in problems_of(change)


def test_what_follows_from_the_fields_is_computed_once_and_again_for_a_copy():
    config = parse_config(WRITTEN)
    assert config.feedbacks is config.feedbacks
    assert config.outputs is config.outputs
    other = config.model_copy(update={"samples": config.samples.model_copy(update={"labels": ("bought",)})})
    assert (config.label_names, other.label_names) == (("label",), ("bought",))
    assert config == parse_config(WRITTEN)
    assert pickle.loads(pickle.dumps(config)) == config
