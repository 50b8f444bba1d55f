"""Splits the memory of one TaskManager: every size is explicit and their sum is the configured total.

Flink derives sizes only in its start scripts, which are not used here, and its defaults suit large machines.
"""

from dataclasses import dataclass
from typing import Literal

_METASPACE_MB = 224
_FRAMEWORK_HEAP_MB = 64
_FRAMEWORK_OFF_HEAP_MB = 64
_TASK_OFF_HEAP_MB = 64
_NETWORK_MB = 64
_MANAGED_SHARE = {"hashmap": 0.1, "rocksdb": 0.4}
"""Share of the rest after the fixed sizes. Beam's batch jobs also sort in managed memory."""
_OVERHEAD_SHARE = 0.1


@dataclass(frozen=True)
class TaskManagerMemory:
    """Sizes in MB. `managed` is for RocksDB, `task_heap` for heap state, `task_off_heap` for gRPC buffers."""

    framework_heap: int
    task_heap: int
    managed: int
    framework_off_heap: int
    task_off_heap: int
    network: int
    metaspace: int
    overhead: int

    @property
    def heap(self) -> int:
        """The value for -Xmx."""
        return self.framework_heap + self.task_heap

    @property
    def direct(self) -> int:
        """The value for -XX:MaxDirectMemorySize."""
        return self.framework_off_heap + self.task_off_heap + self.network

    @property
    def total(self) -> int:
        return self.heap + self.managed + self.direct + self.metaspace + self.overhead

    def settings(self) -> dict[str, str]:
        """The sizes under Flink's option names."""
        sizes = {
            "framework.heap.size": self.framework_heap,
            "task.heap.size": self.task_heap,
            "managed.size": self.managed,
            "framework.off-heap.size": self.framework_off_heap,
            "task.off-heap.size": self.task_off_heap,
            "network.min": self.network,
            "network.max": self.network,
            "jvm-metaspace.size": self.metaspace,
            "jvm-overhead.min": self.overhead,
            "jvm-overhead.max": self.overhead,
        }
        return {f"taskmanager.memory.{name}": f"{size}m" for name, size in sizes.items()}


def split_memory(total_mb: int, state_backend: Literal["hashmap", "rocksdb"]) -> TaskManagerMemory:
    """Split `total_mb`: fixed sizes for everything independent of the state, the rest is the task heap.

    >>> split_memory(1024, "hashmap").total, split_memory(1024, "rocksdb").total
    (1024, 1024)
    """
    fixed = _FRAMEWORK_HEAP_MB + _FRAMEWORK_OFF_HEAP_MB + _TASK_OFF_HEAP_MB + _NETWORK_MB + _METASPACE_MB
    overhead = round(total_mb * _OVERHEAD_SHARE)
    managed = round((total_mb - fixed - overhead) * _MANAGED_SHARE[state_backend])
    return TaskManagerMemory(
        framework_heap=_FRAMEWORK_HEAP_MB,
        task_heap=total_mb - fixed - managed - overhead,
        managed=managed,
        framework_off_heap=_FRAMEWORK_OFF_HEAP_MB,
        task_off_heap=_TASK_OFF_HEAP_MB,
        network=_NETWORK_MB,
        metaspace=_METASPACE_MB,
        overhead=overhead,
    )
