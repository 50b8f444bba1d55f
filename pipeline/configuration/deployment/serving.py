"""The configuration of a replica: where it listens, and what one client may cost the others."""

from typing import Annotated

from pydantic import Field

from pipeline.configuration.section import Name, Section

PortOrAny = Annotated[int, Field(ge=0, le=65_535)]
"""0 chooses a free port."""
Seconds = Annotated[float, Field(gt=0, le=3_600)]


class Serving(Section):
    """`[serving]`: the HTTP server of a replica. A request beyond a bound is refused with its reason."""

    host: str = "127.0.0.1"
    """Name or address to listen on, also of IPv6 (`::1`)."""
    part: Name | None = None
    """The part of `[[parts]]` that a replica serves; default: the whole model."""
    port: PortOrAny = 8501
    """Port to listen on; 0 chooses a free one."""
    poll_ms: Annotated[int, Field(ge=1, le=60_000)] = 20
    """Maximum time that one poll of the deltas topic waits for a delta, over all shards."""
    threads: Annotated[int, Field(ge=1, le=256)] = 4
    """Threads that compute small predictions. Large ones have a thread of their own and give way to small ones."""
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """Open connections. One more closes one that waits for its client."""
    max_header_bytes: Annotated[int, Field(ge=1_024, le=1 << 20)] = 16 << 10
    """Largest head of a request."""
    max_body_bytes: Annotated[int, Field(ge=1_024, le=1 << 30)] = 8 << 20
    """Largest body of a request."""
    max_instances: Annotated[int, Field(ge=1, le=10_000_000)] = 50_000
    """Instances of one request."""
    max_instance_values: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Values of one instance, including the elements of its lists."""
    max_depth: Annotated[int, Field(ge=4, le=200)] = 32
    """Nesting of lists and objects in a body."""
    max_waiting: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Requests that wait for a thread."""
    max_large_requests: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Requests larger than 64 KiB or 512 instances that are received or wait for their thread."""
    read_timeout_s: Seconds = 10.0
    """Maximum time to receive a head, and then a body."""
    deadline_s: Seconds = 10.0
    """Maximum time from a complete request to its response."""
    write_timeout_s: Seconds = 10.0
    """Maximum time until a client has received its response."""
    max_delta_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 40)] = 2 << 30
    """Largest decoded form of one record of the deltas topic. A delta that announces more is refused."""
    keep_alive_s: Seconds = 60.0
    """Maximum time between two requests of a connection."""
