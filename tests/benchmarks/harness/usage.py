"""What a stretch of code takes of the machine: processor time by thread, page faults, switches of threads.

Other load on the machine does not count, apart from the switches it forces.
"""

import resource
import threading
from dataclasses import dataclass
from pathlib import Path

_OF_ROWS = "rows"
"""The system's name of the threads of the native core."""
_OF_THE_STEP = "dense"
"""How the name of the thread begins that runs the dense step, and nothing else."""


@dataclass(frozen=True)
class Usage:
    """Of this process since its start, or, as a difference, of what ran in between."""

    core_s: float
    tensorflow_core_s: float
    """Of the thread of the dense step, and of all that neither Python nor the native core started: TensorFlow's."""
    system_core_s: float
    """In the kernel."""
    faults: int
    """Pages that the kernel cleared and mapped at their first access."""
    waits: int
    """Switches because a thread waited."""
    preempted: int
    """Switches because another thread had its turn."""

    @classmethod
    def now(cls) -> "Usage":
        used = resource.getrusage(resource.RUSAGE_SELF)
        names = {str(each.native_id): each.name for each in threading.enumerate()}
        threads = Path("/proc/self/task").iterdir()
        dense = sum(_core_s(each) for each in threads if _of_tensorflow(each, names.get(each.name)))
        return cls(used.ru_utime + used.ru_stime, dense, used.ru_stime, used.ru_minflt, used.ru_nvcsw, used.ru_nivcsw)

    def since(self, before: "Usage") -> "Usage":
        return Usage(*(getattr(self, name) - getattr(before, name) for name in self.__dataclass_fields__))

    def per_batch(self, batches: int) -> dict[str, float]:
        """Of each of `batches`, with names and units for a report."""
        return {
            "core-ms": 1e3 * self.core_s / batches,
            "core-ms outside TensorFlow": 1e3 * (self.core_s - self.tensorflow_core_s) / batches,
            "core-ms in the kernel": 1e3 * self.system_core_s / batches,
            "page faults": self.faults / batches,
            "waits": self.waits / batches,
            "preemptions": self.preempted / batches,
        }


def _of_tensorflow(thread: Path, name: str | None) -> bool:
    """Of a thread's folder in /proc and its name in Python, if it has one."""
    if name is not None:
        return name.startswith(_OF_THE_STEP)
    return (thread / "comm").read_text(encoding="ascii").strip() != _OF_ROWS


def _core_s(thread: Path) -> float:
    # schedstat: ns on a processor, ns in the queue for one, turns.
    return int((thread / "schedstat").read_text(encoding="ascii").split()[0]) * 1e-9
