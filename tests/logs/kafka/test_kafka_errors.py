"""Errors of the client as errors of the log: rejections, which are not retried, and unavailable brokers."""

import pytest
from kafka.errors import (
    InvalidReplicationFactorError,
    KafkaConnectionError,
    PolicyViolationError,
    TopicAuthorizationFailedError,
)

from pipeline.logs.kafka.retries import as_log_error
from pipeline.logs.kafka.settings import KafkaSettings

SETTINGS = KafkaSettings("here:9092", replication_factor=3)


@pytest.mark.parametrize(
    ("failure", "hint"),
    [
        (
            InvalidReplicationFactorError("3 > 1"),
            "logs.replication_factor is 3, the number of brokers is its upper bound",
        ),
        (
            TopicAuthorizationFailedError("t"),
            "grant this permission to the user of logs.security (runbooks/kubernetes.md)",
        ),
        (PolicyViolationError("no"), "check the settings of the topic and the broker"),
    ],
)
def test_a_request_that_the_broker_rejects_is_not_reported_as_retried(failure, hint):
    text = str(as_log_error(SETTINGS, "create topic t", failure, 0.0))
    assert text.startswith("kafka at here:9092 rejected the request to create topic t: ")
    assert text.endswith(f"hint: {hint}")
    assert "retried for" not in text


def test_an_unavailable_broker_is_named_with_the_time():
    text = str(as_log_error(SETTINGS, "create topic t", KafkaConnectionError("refused"), 7.25))
    assert "could not create topic t, retried for 7.2 s: KafkaConnectionError: refused. hint: check that the br" in text
