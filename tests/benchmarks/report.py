"""What a benchmark prints: the machine, then sizes and units, then each figure beside its peer and its target."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    what: str
    value: float
    unit: str
    target: str
    peer: str = ""
    ratio: float | None = None
    """Value over peer, both from this run."""
    sizes: dict[str, object] = field(default_factory=dict)


def machine() -> dict[str, object]:
    """The processor, cores, memory and Python of this machine."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "cpu": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def print_report(figures: list[Figure], out: Path | None) -> None:
    """The table on stdout, and the same as `results.json` in `out`."""
    print("machine: " + ", ".join(f"{name} {value}" for name, value in machine().items()))
    for figure in figures:
        ratio = f"  = {figure.ratio:.3g} × peer" if figure.ratio is not None else ""
        print(f"{figure.what:<52} {figure.value:>14,.1f} {figure.unit:<14}{ratio}  (target {figure.target})")
        sizes = ", ".join(f"{name} {value}" for name, value in figure.sizes.items())
        print(f"    peer: {figure.peer or '-'}; {sizes}")
    if out:
        out.mkdir(parents=True, exist_ok=True)
        document = {"machine": machine(), "figures": [asdict(figure) for figure in figures]}
        (out / "results.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(f"written: {out / 'results.json'}")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
