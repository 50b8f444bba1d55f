"""A cluster for the live tests of one session: free ports, a folder of its own, jars as any user of this machine has.

Without Java and Maven these tests fail; they are never skipped.
"""

import pytest

from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.ports import free_port_range
from pipeline.ground.config import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Up, and ended with all its data after the last test. A test that kills a process starts it again."""
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
