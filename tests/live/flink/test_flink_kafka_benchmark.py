"""The comparison with Flink SQL, with a small size."""

from tests.benchmarks.live import flink_kafka

ROWS = 20_000


def test_the_benchmark_runs_and_flink_sql_emits_the_same_samples(tmp_path, cluster):
    found = flink_kafka.measure(tmp_path, cluster, ROWS, ("hashmap",), "at-least-once")
    assert found["samples"] == ROWS
    assert ROWS * 0.03 < found["positives"] < ROWS * 0.06
    rates = [value for name, value in found.items() if name.endswith("_from_submission")]
    assert len(rates) == 4
    assert all(rate > 0 for rate in rates)
