"""Asks a cluster to let us in, and says why it does not.

The client's own start tries on over a wrong password until its patience ends, and then tells of no reason. This rests
on kafka-python's `KafkaNetClient._manager` as `kafka_fetch` does, and on its `get_connection`; the live tests guard it.
"""

from typing import Any

from kafka.errors import KafkaConnectionError, KafkaError

from pipeline.logs.kafka.calls import KafkaSettings
from pipeline.logs.kafka.client import PatientClient


def knock(settings: KafkaSettings) -> None:
    """Connect to one of the brokers and prove who we are. Raises the client's error of the first that refuses us.

    A broker that does not answer is passed over; where none does, the last one's KafkaConnectionError is raised.
    """
    client = PatientClient(**settings.client())
    manager = client._manager
    manager._net.start()
    try:
        manager.run(_let_in, manager)
    finally:
        client.close()


async def _let_in(manager: Any) -> None:
    failure: KafkaError = KafkaConnectionError("no broker is named")
    for broker in manager.cluster.bootstrap_brokers():
        try:
            await manager.get_connection(broker.node_id, pop_on_close=False, refresh_metadata_on_err=False)
            return
        except KafkaConnectionError as away:
            failure = away
    raise failure
