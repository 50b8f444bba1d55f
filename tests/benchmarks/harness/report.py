"""The printed report of a benchmark: the machine, then each figure with its sizes, unit, peer and target."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One number of one round."""

    what: str
    value: float
    unit: str
    sizes: dict[str, Any] = field(default_factory=dict)
    least: float | None = None
    """Target: the least value."""
    most: float | None = None
    """Target: the largest value."""
    least_ratio: float | None = None
    """Target: the least ratio to the peer of the same round."""

    @property
    def target(self) -> str:
        if self.least_ratio is not None:
            return f">= {self.least_ratio:g} x peer"
        if self.least is not None:
            return f">= {self.least:,.10g}"
        return "-" if self.most is None else f"<= {self.most:g}"


@dataclass(frozen=True)
class Result:
    """A figure over all rounds: medians of the values, of the peer, and of the ratios within each round."""

    figure: Figure
    values: list[float]
    peers: list[float]
    peer: str = ""
    """Name of the peer, if it is not the peer of the complete run."""

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def ratio(self) -> float:
        return median(value / peer for value, peer in zip(self.values, self.peers, strict=True))

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without a target."""
        figure = self.figure
        # A comparison of NumPy's floats gives a value that is neither `True` nor `False`, and that JSON refuses.
        if figure.least_ratio is not None:
            return bool(self.ratio >= figure.least_ratio)
        if figure.least is not None:
            return bool(self.value >= figure.least)
        return None if figure.most is None else bool(self.value <= figure.most)

    def document(self) -> dict[str, Any]:
        """Plain values for JSON."""
        medians = {"value": self.value, "peer": median(self.peers), "ratio": self.ratio, "met": self.met}
        rounds = {"values": self.values, "peers": self.peers, "peer_name": self.peer}
        return {**asdict(self.figure), **medians, "target": self.figure.target, **rounds}


def machine() -> dict[str, object]:
    """The processor, cores, memory and Python of this machine, and its load."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "cpu": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load_1_minute": round(os.getloadavg()[0], 1),
    }


def print_machine(rounds: int) -> None:
    """Print the machine and the peer of the run."""
    print("machine: " + ", ".join(f"{name} {value}" for name, value in machine().items()))
    print("peer: TensorFlow's dense part alone, 26 x 16 inputs, MLP 256-128, batch 2,048, samples/s")
    print(f"figures are medians of {rounds} round(s), the peer measured before and after each\n", flush=True)


def print_results(results: list[Result]) -> None:
    """Print the sizes, then the value with its peer and its target."""
    for result in results:
        figure = result.figure
        spread = f"{min(result.values):,.6g} .. {max(result.values):,.6g}"
        verdict = {True: "met", False: "MISSED", None: ""}[result.met]
        compared = result.peer or figure.unit.endswith("/s")
        peer = f"{result.peer or 'peer'} of {_amount(median(result.peers))}"
        ratio = f"{result.ratio:.3f} x {peer}" if compared else ""
        print(f"{figure.what}: " + ", ".join(f"{name} {_shown(value)}" for name, value in figure.sizes.items()))
        print(f"    {result.value:>14,.6g} {figure.unit:<14} {ratio:<32} target {figure.target:<16} {verdict}")
        if len(result.values) > 1:
            print(f"    {'rounds':>14} {spread}")
    print(flush=True)


def print_missed(results: list[Result], failed: list[str]) -> None:
    """Print a table of the benchmarks that failed and of the figures that missed their targets."""
    with_target = [result for result in results if result.met is not None]
    missed = [result for result in with_target if not result.met]
    print(f"{len(with_target) - len(missed)} of {len(with_target)} targets met")
    for name in failed:
        print(f"    FAILED  {name}: its error is printed above")
    width = max((len(result.figure.what) for result in missed), default=0)
    for result in missed:
        figure = result.figure
        alone = f"{result.value:,.6g} {figure.unit}"
        measured = alone if figure.least_ratio is None else f"{result.ratio:.3f} x peer"
        print(f"    MISSED  {figure.what:<{width}}  {measured:<24} target {figure.target}")
    print(flush=True)


def write_results(results: list[Result], out: Path) -> Path:
    """Write the machine and all results to `results.json` in `out`; returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "results.json"
    document = {"machine": machine(), "results": [result.document() for result in results]}
    path.write_text(json.dumps(document, indent=2, default=_plain) + "\n", encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    """The Python value of a NumPy value; for anything else its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"


def _shown(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
