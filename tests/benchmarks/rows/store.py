"""Store: lookup, fused update and commit per core-second, bytes per key and the longest pause while it grows.

Uniform keys in batches of 50,000 at dim 16, through the Python interface with all its checks, statistics on.
Peers: in the same process a bare table that only looks up existing keys (`bare_table.cc`, compiled here), and TFRA in a
separate environment if available. Rates are per processor time, the best of several passes, because disturbances only
make a pass slower.
"""

import ctypes
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.configuration.model.fields import Adagrad, Adam, Ftrl, GroupFtrl, Optimizer, Sgd
from pipeline.publish.price.withheld import Withheld
from pipeline.trainer.tables.table import Table
from pipeline.versions.deltas.quantizer import payload_bytes, payload_total
from pipeline.versions.deltas.served_view import ServedView
from tests.benchmarks import peers
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.harness.stopwatch import resident_mib

KEYS, BATCH, DIM, BATCHES, PASSES = 6_000_000, 50_000, 16, 20, 4
RATE = "keys per core-second"
CLASS = {"lookup": 18e6, "update": 9e6}
PERCENT_OF_BARE, OF_TFRA = 80.0, {"lookup": 5.0, "update": 3.0}
BYTES_MOST, SERVED_BYTES_MOST = 100.0, 20.0
OPTIMIZERS: tuple[Optimizer, ...] = (
    Adagrad(),
    Adagrad(kind="adagrad"),
    Sgd(kind="sgd"),
    Adam(kind="adam"),
    Ftrl(kind="ftrl", l1=0.01),
    GroupFtrl(kind="group_ftrl"),
)

UInt64s = npt.NDArray[np.uint64]
Sizes = dict[str, Any]

WITHHELD_BYTES = sum(column.itemsize for column in vars(Withheld.empty()).values())


def measure(folder: Path, quick: bool) -> list[Figure]:
    keys = np.random.default_rng(1).integers(1, 2**62, KEYS // 60 if quick else KEYS, np.uint64)
    batch = BATCH // 10 if quick else BATCH
    tfra = _tfra(len(keys), batch)
    table = _table(Adagrad())
    figures = _growth(table, keys, batch, tfra)
    figures += _lookup(table, keys, batch, _Bare.built(folder), tfra)
    figures += _commit(table, keys, batch)
    del table
    figures += _served(keys, batch)
    for optimizer in OPTIMIZERS[: 2 if quick else None]:
        figures += _update(optimizer, keys, batch, tfra)
    return figures


def _table(optimizer: Optimizer) -> Table:
    return Table(DIM, optimizer, seed=1, init_scale=0.01, half_life_s=86_400.0)


def _growth(table: Table, keys: UInt64s, batch: int, tfra: Sizes) -> list[Figure]:
    """From empty, 100 keys per call, so that pauses are visible; bytes per key from a sixtieth of the keys on."""
    few, pauses, waits, worst = 100, [], [], 0.0
    began = time.process_time()
    for start in range(0, len(keys), few):
        called, called_s = time.thread_time(), time.perf_counter()
        table.admit(keys[start : start + few], 1)
        pauses.append(time.thread_time() - called)
        waits.append(time.perf_counter() - called_s)
        if start >= len(keys) // 60 and start % batch == 0:
            worst = max(worst, table.memory_bytes / len(table))
    spent = time.process_time() - began
    sizes = {"keys": len(keys), "keys a call": few, "dim": DIM, "optimizer": "rowwise_adagrad"}
    ordinary = {"99.9 % within": float(np.percentile(pauses, 99.9)) * 1e3, "by the wall clock": max(waits) * 1e3}
    bytes_sizes = sizes | {"most while it grew": worst} | _of(tfra, "bytes_per_key", "peak_bytes_per_key")
    return [
        Figure("store: growth", len(keys) / spent, RATE, sizes | _of(tfra, "insert_keys_per_core_s")),
        Figure("store: longest pause of an admit", max(pauses) * 1e3, "ms of processor time", sizes | ordinary),
        Figure("store: memory", table.memory_bytes / len(table), "bytes a key", bytes_sizes, most=BYTES_MOST),
    ]


def _served(keys: UInt64s, batch: int) -> list[Figure]:
    """Memory of a trainer's served view in addition to the table, every key in 4 bits; flags are part of the table."""
    before_mib, view = resident_mib(), ServedView(DIM, by_handle=False)
    for start in range(0, len(keys), batch):
        part = keys[start : start + batch]
        handles = np.arange(start, start + len(part), dtype=np.uint32)
        bits = np.full(len(part), 4, np.uint8)
        view.put(part, handles, bits, np.zeros(payload_total(bits, DIM), np.uint8))
    sizes = {"keys": len(keys), "dim": DIM, "bits": 4, "of it payload": payload_bytes(4, DIM)}
    sizes |= {"resident_mib": resident_mib() - before_mib, "more for a withheld row": WITHHELD_BYTES}
    return [Figure("store: served view", view.memory_bytes / len(view), "bytes a key", sizes, most=SERVED_BYTES_MOST)]


def _lookup(table: Table, keys: UInt64s, batch: int, bare: "_Bare | None", tfra: Sizes) -> list[Figure]:
    queried = np.random.default_rng(2).choice(keys, (BATCHES, batch))
    works: dict[str, Callable[[], None]] = {"store": lambda: _each(table.lookup, queried)}
    for name, huge in {"bare": False, "bare on huge pages": True}.items() if bare else ():
        works[name] = bare.looking_up(keys, queried, huge)
    rates = _rates(works, queried.size)
    sizes = {"keys": len(keys), "batch": batch, "dim": DIM}
    sizes |= {name: rate for name, rate in rates.items() if name != "store"} | _of(tfra, "lookup_keys_per_core_s")
    figures = [Figure("store: lookup", rates["store"], RATE, sizes, CLASS["lookup"])]
    if bare:
        figures.append(
            Figure("store: lookup", 100 * rates["store"] / rates["bare"], "% of bare", sizes, PERCENT_OF_BARE)
        )
    return figures + _times_tfra("lookup", rates["store"], tfra.get("lookup_keys_per_core_s"), sizes)


def _update(optimizer: Optimizer, keys: UInt64s, batch: int, tfra: Sizes) -> list[Figure]:
    """Distinct batches over all keys, repeated: no row is in the cache."""
    table = _table(optimizer)
    for start in range(0, len(keys), batch):
        table.admit(keys[start : start + batch], 1)
    table.drain_changes()
    queried = np.random.default_rng(3).permutation(keys)[: len(keys) // batch * batch].reshape(-1, batch)[: BATCHES * 2]
    gradients = np.random.default_rng(4).standard_normal((batch, DIM)).astype(np.float32) * np.float32(0.01)
    counts, second = np.ones(batch, np.uint32), iter(range(2, 10_000))

    def update() -> None:
        at_s = next(second)
        _each(lambda part: table.update(part, gradients, counts, at_s), queried)

    rate = _rates({"store": update}, queried.size)["store"]
    sizes = {"keys": len(keys), "batch": batch, "dim": DIM, "bytes a key": table.memory_bytes / len(table)}
    what = f"update by {optimizer.kind}"
    adagrad = "adagrad" in optimizer.kind
    figure = Figure(f"store: {what}", rate, RATE, sizes, CLASS["update"] if adagrad else None)
    return [
        figure,
        *(_times_tfra(what, rate, tfra.get("overwrite_keys_per_core_s"), sizes, "update") if adagrad else ()),
    ]


def _commit(table: Table, keys: UInt64s, batch: int) -> list[Figure]:
    """A set of changes over a sixth of the rows: the part that training waits for, and the part of another thread."""
    table.drain_changes()
    some = keys[: len(keys) // 6]
    table.update(some, np.ones((len(some), DIM), np.float32), np.ones(len(some), np.uint32), 9)
    began = time.process_time()
    table.begin_changes()
    frozen = time.process_time()
    while table.collect(batch):
        pass
    collected = time.process_time()
    changes = table.release_collected().finish()
    finished = time.process_time()
    table.settle(changes)
    sizes = {"rows": len(changes.touched), "rows a call": batch, "begin_ms": (frozen - began) * 1e3}
    return [
        Figure("store: rows copied for a commit", len(some) / (collected - frozen), "rows per core-second", sizes),
        Figure("store: rows sorted and hashed", len(some) / (finished - collected), "rows per core-second", sizes),
    ]


def _times_tfra(what: str, rate: float, tfra: float | None, sizes: Sizes, target: str = "lookup") -> list[Figure]:
    return [Figure(f"store: {what}", rate / tfra, "x TFRA", sizes, OF_TFRA[target])] if tfra else []


def _each(call: Callable[[UInt64s], Any], batches: UInt64s) -> None:
    for part in batches:
        call(part)


def _rates(works: dict[str, Callable[[], None]], keys: int) -> dict[str, float]:
    """Keys per core-second of each, in turn, the best of all passes."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(PASSES):
        for name, work in works.items():
            began = time.process_time()
            work()
            spent[name].append(time.process_time() - began)
    return {name: keys / min(times) for name, times in spent.items()}


def _tfra(keys: int, batch: int) -> Sizes:
    """TFRA's measurements; empty, with the reason printed, if it is unavailable."""
    return peers.run(peers.TFRA, "tfra_store", keys=keys, batch=batch, dim=DIM) or {}


def _of(tfra: Sizes, *names: str) -> Sizes:
    return {f"TFRA {name}": tfra[name] for name in names if name in tfra}


class _Bare:
    """The bare table, built with this machine's compiler."""

    def __init__(self, library: ctypes.CDLL) -> None:
        library.bare_make.restype = ctypes.c_void_p
        library.bare_make.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        library.bare_lookup.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        self._library = library

    @classmethod
    def built(cls, folder: Path) -> "_Bare | None":
        """None, with the reason printed, if there is no compiler."""
        source, library = Path(__file__).with_name("bare_table.cc"), folder / "bare_table.so"
        command = ["c++", "-std=c++20", "-O3", "-shared", "-fPIC", str(source), "-o", str(library)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as failure:
            print(f"the bare table is not measured: {failure}", file=sys.stderr)
            return None
        return cls(ctypes.CDLL(str(library)))

    def looking_up(self, keys: UInt64s, queried: UInt64s, huge: bool) -> Callable[[], None]:
        """Looks up all of `queried`, batch by batch, into an array made for each, as the store does."""
        table, lookup = self._library.bare_make(keys.ctypes.data, len(keys), int(huge)), self._library.bare_lookup

        def look() -> None:
            for part in queried:
                out = np.empty((len(part), DIM), np.float32)
                lookup(table, part.ctypes.data, len(part), out.ctypes.data)

        return look
