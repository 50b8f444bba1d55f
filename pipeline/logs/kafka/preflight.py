"""A check of the connection and the credentials that reports the reason of a rejection at once.

The client's own start retries a wrong password until its timeout and then reports no reason. This uses kafka-python's
`KafkaNetClient._manager`, as `fetcher.py` does, and its `get_connection`; the live tests guard both.
"""

from typing import Any

from kafka.errors import KafkaConnectionError, KafkaError

from pipeline.logs.kafka.client import NetClient
from pipeline.logs.kafka.settings import KafkaSettings


def preflight(settings: KafkaSettings) -> None:
    """Connect and authenticate to one broker. Raises the client's error of the first broker that rejects it.

    An unavailable broker is skipped; if all are unavailable, the KafkaConnectionError of the last one is raised.
    """
    client = NetClient(**settings.client())
    manager = client._manager
    manager._net.start()
    try:
        manager.run(_connect_to_any, manager)
    finally:
        client.close()


async def _connect_to_any(manager: Any) -> None:
    unavailable: KafkaError = KafkaConnectionError("bootstrap lists no broker")
    for broker in manager.cluster.bootstrap_brokers():
        try:
            await manager.get_connection(broker.node_id, pop_on_close=False, refresh_metadata_on_err=False)
            return
        except KafkaConnectionError as failure:
            unavailable = failure
    raise unavailable
