"""Retention: topics keep what a restart and a rollback need, and a topic that keeps less is told with its numbers."""

import pytest

from pipeline.configuration.config import parse_config
from pipeline.configuration.environment import read_secret
from pipeline.configuration.section import Secret
from pipeline.errors import ConfigError
from pipeline.logs.topic_specs import TopicSpec, initial_settings, partition_counts, setting_changes, topic_specs
from tests.support.shop import WRITTEN

HOUR = TopicSpec("clicks", 2, 3_600_000, "an hour")


def configured(**logs):
    samples = {"window_s": 100, "horizon_s": 1_000, "remember_s": 10_000}
    events = WRITTEN["events"] | {"disorder_s": 5}
    return parse_config(WRITTEN | {"logs": logs, "samples": samples, "events": events})


def changes(**replaced):
    held = initial_settings(HOUR, 1_000) | {name.replace("_", "."): value for name, value in replaced.items()}
    return [(change.setting, change.found, change.wanted) for change in setting_changes(HOUR, held, 1_000)]


def test_inputs_are_kept_for_all_the_join_holds_and_the_longest_outage():
    kept = {topic.name: topic for topic in topic_specs(configured(outage_s=7))}
    assert kept["impressions"].retention_ms == kept["clicks"].retention_ms == (100 + 1_000 + 10_000 + 5 + 7) * 1000
    assert kept["clicks"].reason == "window 100 s + horizon 1000 s + remember 10000 s + disorder 5 s + outage 7 s"


def test_samples_are_kept_for_rollback_and_detection():
    kept = {topic.name: topic for topic in topic_specs(configured(rollback_s=50, detection_s=0.5))}
    assert kept["samples"].retention_ms == 50_500
    assert kept["samples"].reason == "rollback 50 s + detection 0.5 s"


def test_schemas_are_kept_for_ever():
    assert {t.name: t.retention_ms for t in topic_specs(configured())}["schemas"] is None
    assert initial_settings(TopicSpec("schemas", 1, None, ""), 1_000)["retention.ms"] == "-1"


def test_partitions_follow_the_configuration():
    found = partition_counts(configured(partitions=3, shards=2))
    assert (found["impressions"], found["clicks"], found["samples"], found["notices"]) == (3, 3, 2, 1)


def test_what_a_topic_is_made_with_needs_no_change():
    assert changes() == []


@pytest.mark.parametrize(
    ("held", "enough"), [("3599999", False), ("3600000", True), ("3600001", True), ("-1", True), ("0", False)]
)
def test_a_topic_may_keep_more_than_wanted_never_less(held, enough):
    assert changes(retention_ms=held) == ([] if enough else [("retention.ms", held, "3600000")])


def test_a_limit_in_bytes_is_no_retention():
    assert changes(retention_bytes="1073741824") == [("retention.bytes", "1073741824", "-1")]


def test_producers_clocks_compaction_and_small_records_are_told():
    assert changes(message_timestamp_type="CreateTime") == [("message.timestamp.type", "CreateTime", "LogAppendTime")]
    assert changes(cleanup_policy="compact") == [("cleanup.policy", "compact", "delete")]
    assert changes(max_message_bytes="999") == [("max.message.bytes", "999", "1000")]


def test_kafka_needs_a_bootstrap_and_no_path():
    assert configured(engine="kafka", bootstrap="a:1,b:2").logs.bootstrap == "a:1,b:2"
    with pytest.raises(ConfigError, match=r"logs: bootstrap is missing.*; path is not for engine kafka"):
        configured(engine="kafka", path="here")


def test_settings_of_kafka_are_refused_elsewhere():
    with pytest.raises(ConfigError, match=r"bootstrap is for engine kafka, this is sqlite.*; compression is for"):
        configured(bootstrap="a:1", compression="zstd")


def test_only_settings_of_security_are_handed_on():
    security = {"security_protocol": "SASL_SSL", "ssl_cafile": "ca.pem", "sasl_mechanism": "PLAIN"}
    assert configured(engine="kafka", bootstrap="a:1", security=security).logs.security == security
    with pytest.raises(ConfigError, match=r"security\.acks does not begin with security_, ssl_ or sasl_"):
        configured(engine="kafka", bootstrap="a:1", security={"acks": "0"})


def test_a_password_is_kept_elsewhere():
    for name in ("sasl_plain_password", "ssl_password"):
        with pytest.raises(ConfigError, match=rf"security\.{name} is a password in this file\. hint: {name} = {{ file"):
            configured(engine="kafka", bootstrap="a:1", security={name: "secret"})
        for place in ({"file": "here"}, {"env": "THERE"}):
            found = configured(engine="kafka", bootstrap="a:1", security={name: place}).logs.security[name]
            assert found == Secret(**place)
    for places in ({}, {"file": "here", "env": "THERE"}):
        with pytest.raises(ConfigError, match="either"):
            configured(engine="kafka", bootstrap="a:1", security={"ssl_password": places})


def test_a_secret_is_read_from_a_file_beside_the_project_or_from_the_environment(tmp_path, monkeypatch):
    (tmp_path / "here").write_text("open sesame\n")
    monkeypatch.setenv("THERE", "open sesame")
    for secret in (Secret(file="here"), Secret(file=str(tmp_path / "here")), Secret(env="THERE")):
        assert read_secret(secret, tmp_path) == "open sesame"


def test_a_secret_that_is_not_there_or_empty_is_named(tmp_path, monkeypatch):
    (tmp_path / "empty").write_text("\n")
    monkeypatch.delenv("THERE", raising=False)
    for secret, told in (
        (Secret(file="gone"), r"gone cannot be read: .*No such file"),
        (Secret(file="empty"), r"empty is empty or not set"),
        (Secret(env="THERE"), r"\$THERE is empty or not set"),
    ):
        with pytest.raises(ConfigError, match=told):
            read_secret(secret, tmp_path)
