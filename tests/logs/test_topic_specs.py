"""Topics are retained for as long as a restart and a rollback need them, and insufficient settings are reported."""

import pytest

from pipeline.configuration.config import parse_config
from pipeline.configuration.environment import read_secret
from pipeline.configuration.section import Secret
from pipeline.errors import ConfigError, LogError
from pipeline.logs.interface.topic_specs import (
    TopicSpec,
    initial_settings,
    partition_counts,
    setting_changes,
    topic_specs,
)
from pipeline.logs.topic_plan import ExistingTopic, compare_topics
from tests.support.shop.shop import WRITTEN

HOUR = TopicSpec("clicks", 2, 3_600_000, "an hour")


def configured(**logs):
    samples = {"window_s": 100, "horizon_s": 1_000, "key_retention_s": 10_000}
    events = WRITTEN["events"] | {"disorder_s": 5}
    return parse_config(WRITTEN | {"logs": logs, "samples": samples, "events": events})


def changes(**replaced):
    found = initial_settings(HOUR, 1_000) | {name.replace("_", "."): value for name, value in replaced.items()}
    return [(change.setting, change.found, change.wanted) for change in setting_changes(HOUR, found, 1_000)]


def test_inputs_are_retained_for_the_time_the_join_holds_impressions_and_the_longest_outage():
    specs = {topic.name: topic for topic in topic_specs(configured(outage_s=7))}
    assert specs["impressions"].retention_ms == specs["clicks"].retention_ms == (100 + 1_000 + 10_000 + 5 + 7) * 1000
    assert specs["clicks"].reason == "window 100 s + horizon 1000 s + key retention 10000 s + disorder 5 s + outage 7 s"


def test_samples_are_retained_for_rollback_and_detection():
    specs = {topic.name: topic for topic in topic_specs(configured(rollback_s=50, detection_s=0.5))}
    assert specs["samples"].retention_ms == 50_500
    assert specs["samples"].reason == "rollback 50 s + detection 0.5 s"


def test_schemas_are_retained_forever():
    assert {t.name: t.retention_ms for t in topic_specs(configured())}["schemas"] is None
    assert initial_settings(TopicSpec("schemas", 1, None, ""), 1_000)["retention.ms"] == "-1"


def test_items_are_retained_forever_in_one_partition():
    labels = [{"name": "label", "loss": "in_batch", "towers": {"item_column": "item"}}]
    config = parse_config({**WRITTEN, "labels": labels, "recall": {"topic": "goods"}})
    (goods,) = [t for t in topic_specs(config) if t.name == "goods"]
    assert (goods.partitions, goods.retention_ms) == (1, None)
    assert initial_settings(goods, 1_000)["cleanup.policy"] == "compact"
    assert "items" not in partition_counts(configured())


@pytest.mark.parametrize("policy", ["compact", "delete", "compact,delete"])
def test_an_existing_topic_of_items_keeps_its_policy(policy):
    goods = TopicSpec("goods", 1, None, "", compacted=True)
    assert setting_changes(goods, initial_settings(goods, 1_000) | {"cleanup.policy": policy}, 1_000) == []


def test_partitions_follow_the_configuration():
    found = partition_counts(configured(partitions=3, shards=2))
    assert (found["impressions"], found["clicks"], found["samples"], found["notices"]) == (3, 3, 2, 1)


def test_the_initial_settings_need_no_change():
    assert changes() == []


@pytest.mark.parametrize(
    ("retention_ms", "enough"), [("3599999", False), ("3600000", True), ("3600001", True), ("-1", True), ("0", False)]
)
def test_retention_may_be_longer_than_wanted_never_shorter(retention_ms, enough):
    assert changes(retention_ms=retention_ms) == ([] if enough else [("retention.ms", retention_ms, "3600000")])


def test_a_size_limit_needs_a_change():
    assert changes(retention_bytes="1073741824") == [("retention.bytes", "1073741824", "-1")]


def test_producer_timestamps_compaction_and_small_records_need_a_change():
    assert changes(message_timestamp_type="CreateTime") == [("message.timestamp.type", "CreateTime", "LogAppendTime")]
    assert changes(cleanup_policy="compact") == [("cleanup.policy", "compact", "delete")]
    assert changes(max_message_bytes="999") == [("max.message.bytes", "999", "1000")]


def existing(config, **replaced):
    """The topics that `topics create` would create, but `replaced` with these numbers of partitions; None for none."""
    found = {
        spec.name: ExistingTopic(replaced.get(spec.name, spec.partitions), initial_settings(spec, 32 << 20))
        for spec in topic_specs(config)
    }
    return {name: topic for name, topic in found.items() if topic.partitions is not None}


def test_topics_that_exist_and_fit_are_accepted():
    config = configured(partitions=3, shards=2)
    plan = compare_topics(config, existing(config) | {"someone-elses": ExistingTopic(9, {})})
    assert (plan.missing, plan.changes, plan.unfit) == ((), (), ())
    plan.check_partitions()


def test_an_existing_topic_may_retain_more_and_hold_larger_records():
    config = configured()
    found = existing(config)
    larger = {"retention.ms": "-1", "max.message.bytes": str(1 << 30), "min.insync.replicas": "2"}
    found["clicks"] = ExistingTopic(1, found["clicks"].settings | larger)
    assert compare_topics(config, found).changes == ()


def test_only_missing_topics_are_created():
    config = configured()
    plan = compare_topics(config, existing(config, deltas=None, schemas=None))
    assert {spec.name for spec in plan.missing} == {"deltas", "schemas"}


def test_every_existing_topic_with_other_partitions_is_named_with_both_numbers():
    config = configured(partitions=3, shards=2)
    plan = compare_topics(config, existing(config, clicks=4, schemas=6, samples=1))
    wanted = (
        "topic clicks has 4 partitions, 3 are wanted; topic samples has 1 partitions, 2 are wanted; topic schemas has"
    )
    with pytest.raises(LogError, match=wanted):
        plan.check_partitions()


def test_every_setting_of_an_existing_topic_that_does_not_suffice_is_named():
    config = configured()
    found = existing(config)
    found["impressions"] = ExistingTopic(
        1, found["impressions"].settings | {"cleanup.policy": "compact,delete", "message.timestamp.type": "CreateTime"}
    )
    named = [str(change) for change in compare_topics(config, found).changes]
    assert len(named) == 2
    assert named[0].startswith("topic impressions has cleanup.policy compact,delete, delete is wanted: compaction")
    assert named[1].startswith("topic impressions has message.timestamp.type CreateTime, LogAppendTime is wanted")


def test_kafka_needs_a_bootstrap_and_no_path():
    assert configured(engine="kafka", bootstrap="a:1,b:2").logs.bootstrap == "a:1,b:2"
    with pytest.raises(ConfigError, match=r"logs: bootstrap is missing.*; path is not for engine kafka"):
        configured(engine="kafka", path="here")


def test_settings_of_kafka_are_refused_elsewhere():
    with pytest.raises(ConfigError, match=r"bootstrap is for engine kafka, this is sqlite.*; compression is for"):
        configured(bootstrap="a:1", compression="zstd")


def test_only_security_settings_are_passed_to_the_client():
    security = {"security_protocol": "SASL_SSL", "ssl_cafile": "ca.pem", "sasl_mechanism": "PLAIN"}
    assert configured(engine="kafka", bootstrap="a:1", security=security).logs.security == security
    with pytest.raises(ConfigError, match=r"security\.acks does not begin with security_, ssl_ or sasl_"):
        configured(engine="kafka", bootstrap="a:1", security={"acks": "0"})


def test_a_password_in_the_project_file_is_refused():
    for name in ("sasl_plain_password", "ssl_password"):
        with pytest.raises(ConfigError, match=rf"security\.{name} is a password in this file\. hint: {name} = {{ file"):
            configured(engine="kafka", bootstrap="a:1", security={name: "secret"})
        for place in ({"file": "here"}, {"env": "THERE"}):
            found = configured(engine="kafka", bootstrap="a:1", security={name: place}).logs.security[name]
            assert found == Secret(**place)
    for places in ({}, {"file": "here", "env": "THERE"}):
        with pytest.raises(ConfigError, match="either"):
            configured(engine="kafka", bootstrap="a:1", security={"ssl_password": places})


def test_a_secret_is_read_from_a_file_or_from_the_environment(tmp_path, monkeypatch):
    (tmp_path / "here").write_text("open sesame\n")
    monkeypatch.setenv("THERE", "open sesame")
    for secret in (Secret(file="here"), Secret(file=str(tmp_path / "here")), Secret(env="THERE")):
        assert read_secret(secret, tmp_path) == "open sesame"


def test_a_missing_or_empty_secret_is_named(tmp_path, monkeypatch):
    (tmp_path / "empty").write_text("\n")
    monkeypatch.delenv("THERE", raising=False)
    for secret, message in (
        (Secret(file="gone"), r"gone cannot be read: .*No such file"),
        (Secret(file="empty"), r"empty is empty or not set"),
        (Secret(env="THERE"), r"\$THERE is empty or not set"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_secret(secret, tmp_path)
