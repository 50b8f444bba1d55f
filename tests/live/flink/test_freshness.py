"""Every click of a market in real time becomes visible in a replica, through Kafka and both jobs on Flink."""

from tests.benchmarks.live.freshness import measure
from tests.benchmarks.load.market_load import project_in
from tests.support.command.command_line import springtide

RATE, SECONDS, WARM_UP_S = 500.0, 5.0, 2.0


def test_every_click_becomes_visible(cluster, tmp_path):
    project = project_in(tmp_path / "live", cluster)
    try:
        found = measure(project, RATE, SECONDS, WARM_UP_S)
    finally:
        springtide(project.root, "stop")
    assert found["invisible"] == found["lost"] == 0
    assert found["count"] + found["set_aside"] == found["clicks"] > 50
    assert 0 < found["p50_s"] <= found["p99_s"] <= found["max_s"]
    stages = found["stages_s"].values()
    assert all(stage["p50"] >= 0 for stage in stages)
