"""Paths of the REST API of one model."""

METRICS, HEALTH, READINESS = "/metrics", "/healthz", "/readyz"


class Paths:
    """By model name, as TensorFlow Serving has them.

    >>> Paths("shop").predict
    '/v1/models/shop:predict'
    """

    def __init__(self, name: str) -> None:
        self.status = f"/v1/models/{name}"
        self.predict = f"{self.status}:predict"
        self.recall = f"{self.status}:recall"
        self.metadata = f"{self.status}/metadata"
        self.reads = (self.status, self.metadata, METRICS, HEALTH, READINESS)
        """What GET reads."""
