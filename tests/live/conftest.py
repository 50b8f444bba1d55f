"""A cluster for the live tests of a session: free ports, a temporary folder, the user's cached jars.

Without Java and Maven these tests fail; they are never skipped.
"""

import os
import uuid
from unittest.mock import patch

import pytest

from pipeline.cluster.cluster import LocalCluster
from pipeline.configuration.deployment.services import Cluster
from pipeline.logs.kafka.kafka_log import KafkaLog
from pipeline.logs.kafka.settings import KafkaSettings
from pipeline.process.clock import SystemClock
from tests.live.live_shop import Shop
from tests.support.command.ports import free_port_range
from tests.torture.load import Load
from tests.torture.project import live_project
from tests.torture.site import Site

LONGEST_FIRST = (
    "test_torture",
    "test_flink",
    "test_flink_changes",
    "test_zombies",
    "test_flink_load",
    "test_flink_kafka_benchmark",
    "test_flink_mind",
)
"""A long file started last would leave the other process idle."""
BOUND_A_TIME = "test_rollback_live"
"""Last, when the other process has little left to do."""


def pytest_collection_modifyitems(items):
    """Longest files first; `make test-live` distributes files in this order."""
    order = {name: number for number, name in enumerate(LONGEST_FIRST)} | {BOUND_A_TIME: len(items)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session", autouse=True)
def _quick_java():
    """Only Java's quick compiler: processes that run for seconds never recover the cost of the optimizing one."""
    with patch.dict(os.environ, JAVA_TOOL_OPTIONS="-XX:TieredStopAtLevel=1"):
        yield


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A running cluster, wiped after the last test. A test that kills a process restarts it."""
    first = free_port_range(4)
    settings = Cluster(
        kafka_port=first, kafka_controller_port=first + 1, flink_rest_port=first + 2, flink_rpc_port=first + 3
    )
    made = LocalCluster(settings, tmp_path_factory.mktemp("cluster"))
    try:
        made.up()
        yield made
    finally:
        made.down(wipe=True)


@pytest.fixture
def shop(cluster, tmp_path, request):
    made = Shop(tmp_path, cluster, getattr(request, "param", None))
    yield made
    made.stop()


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    """A separate broker for the tests of the log, because some kill it."""
    port = free_port_range(2)
    made = LocalCluster(Cluster(kafka_port=port, kafka_controller_port=port + 1), tmp_path_factory.mktemp("broker"))
    try:
        made.up(["kafka"])
        yield made
    finally:
        made.down(wipe=True)


@pytest.fixture
def settings(broker):
    return KafkaSettings(broker.bootstrap, prefix=f"{uuid.uuid4().hex[:8]}.", retry_timeout_s=60.0)


@pytest.fixture
def clock():
    return SystemClock()


@pytest.fixture
def log(settings, clock):
    made = KafkaLog(settings, clock)
    made.create_topic("t", 2)
    yield made
    made.close()


@pytest.fixture
def another(settings, clock):
    """A second log, which the cluster cannot distinguish from one in another process."""
    made = KafkaLog(settings, clock)
    yield made
    made.close()


@pytest.fixture
def site(cluster, tmp_path):
    """A market's project on the cluster with separate topics; `open` starts its jobs and its replica."""
    made = Site(cluster, live_project(tmp_path / "live", cluster, prefix=f"{uuid.uuid4().hex[:8]}."))
    yield made
    made.close()


@pytest.fixture
def load(site):
    """Events for the site at a steady rate, until `end`."""
    made = Load(site.project, seed=3, rate=150.0)
    made.start()
    yield made
    made.end()
