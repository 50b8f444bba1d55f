"""What a broker refuses, and what passes: errors of the client in our words."""

import pytest
from kafka.errors import (
    InvalidReplicationFactorError,
    KafkaConnectionError,
    PolicyViolationError,
    TopicAuthorizationFailedError,
)

from pipeline.logs.kafka.calls import KafkaSettings, translated

SETTINGS = KafkaSettings("here:9092", replication_factor=3)


@pytest.mark.parametrize(
    ("failure", "way_out"),
    [
        (InvalidReplicationFactorError("3 > 1"), "logs.replication_factor is 3, and at most the number of brokers"),
        (TopicAuthorizationFailedError("t"), "give the user of logs.security that right (runbooks/kubernetes.md)"),
        (PolicyViolationError("no"), "see the settings of topic and broker"),
    ],
)
def test_what_a_broker_refuses_is_no_matter_of_patience(failure, way_out):
    said = str(translated(SETTINGS, "make topic t", failure, 0.0))
    assert said.startswith("kafka at here:9092 refuses to make topic t: ")
    assert said.endswith(f"hint: {way_out}")
    assert "tried for" not in said


def test_a_broker_that_is_away_is_named_with_the_time():
    said = str(translated(SETTINGS, "make topic t", KafkaConnectionError("refused"), 7.25))
    assert "could not make topic t, tried for 7.2 s: KafkaConnectionError: refused. hint: is the broker up" in said
