"""Wall time, processor time and memory of a stretch of code in this process."""

import resource
import time
from types import TracebackType


class Stopwatch:
    """Runs inside a `with` block."""

    def __enter__(self) -> "Stopwatch":
        self._cpu_s, self._started_s = time.process_time(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._started_s
        self.cpu_s = time.process_time() - self._cpu_s


def peak_mib() -> int:
    """The peak resident size of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def resident_mib() -> int:
    """The current resident size."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20
