"""The scan index: queries and changed items per core-second, recall, memory, and the cost of thresholds by sample size.

A million items of 64 components, k = 1,000. Vectors are drawn (`tests/benchmarks/load/item_vectors.py`); searches are
measured over those of trained towers too (`tests/benchmarks/load/trained_vectors.py`). Peers in the same process are
NumPy (BLAS, `argpartition`), TensorFlow (`top_k`) and a plain read of as many bytes as a scan reads; faiss, hnswlib,
usearch, ScaNN and Scalable Vector Search run in an environment of their own over the same vectors. All run on one
thread and are measured in processor time, except the waiting times of queries during changes.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.model.runtime import tf
from pipeline.recall.scan_index import SampleRule, ScanIndex
from tests.benchmarks import peers
from tests.benchmarks.harness.paired import main
from tests.benchmarks.harness.report import Figure, Result
from tests.benchmarks.load.item_vectors import DIM, item_vectors, user_vectors
from tests.benchmarks.load.trained_vectors import trained_vectors
from tests.support.simd import forced_simd_level, simd_level, simd_levels

K, BATCH = 1_000, 8
INT8_TIMES, EXACT_TIMES, READ_SHARE, RECALL_LEAST = 5.0, 3.0, 0.8, 0.999
CHANGES_LEAST, WAITING_MOST, MEMORY_MOST = 2e6, 1.10, 1.05
RATE, CHANGES = "queries per core-second", "items per core-second"
EXPECTED = (1, 2, 4, 8, 16, 32)


class Load:
    """The items, the queries, an index of all items; the graphs hold the first `few`."""

    def __init__(self, quick: bool, trained: bool = False) -> None:
        random = np.random.default_rng(2)
        n, self.few = (20_000, 2_000) if quick else (1_000_000, 50_000)
        queries = 16 if quick else 400
        if trained:
            self.name, (self.items, self.queries) = "recall of trained towers", trained_vectors(n, queries, quick)
        else:
            self.name, self.items, self.queries = "recall", item_vectors(random, n), user_vectors(random, queries)
        self.ids = np.arange(n, dtype=np.uint64)
        self.index = self.of(n)
        self.sizes = {"items": n, "dim": DIM, "k": K, "level": simd_level(), "threads": 1}

    def of(self, n: int, rule: SampleRule | None = None) -> ScanIndex:
        index = ScanIndex(DIM, rule=rule)
        index.put(self.ids[:n], self.items[:n])
        return index

    def batches(self, size: int = BATCH) -> list[np.ndarray]:
        queries = self.queries[:64]
        return [queries[at : at + size] for at in range(0, len(queries), size)]


def measure(quick: bool, rounds: int) -> list[Result]:
    del rounds  # the peers take a minute
    load = Load(quick)
    peer = {} if quick else _libraries(load)
    results = [*_batches_of_eight(load, peer), _one_by_one(load, peer), _recall(load), *_beside_graphs(load, peer)]
    results += [*_thresholds(load), *_changes(load, peer), *_waiting(load, quick), _memory_after_churn(quick)]
    return results + _trained(quick)


def _trained(quick: bool) -> list[Result]:
    """The searches over vectors of trained towers."""
    load = Load(quick, trained=True)
    peer = {} if quick else _libraries(load)
    results = [*_batches_of_eight(load, peer), _one_by_one(load, peer), _recall(load), *_beside_graphs(load, peer)]
    return [*results, *_thresholds(load, (16,))]


def _libraries(load: Load) -> dict[str, float]:
    """What the libraries measured; empty, with the reason printed, if they are unavailable."""
    with tempfile.TemporaryDirectory() as folder:
        items, queries = Path(folder, "items.npy"), Path(folder, "queries.npy")
        np.save(items, load.items)
        np.save(queries, load.queries)
        return peers.run(peers.RECALL, "recall_indexes", items=items, queries=queries, few=load.few) or {}


def _batches_of_eight(load: Load, peer: dict[str, float]) -> list[Result]:
    def searched(search: Callable[[np.ndarray], Any], batches: list[np.ndarray]) -> float:
        return sum(map(len, batches)) / _core_seconds(lambda: [search(batch) for batch in batches])

    few = load.batches()[:2]
    matrix = tf.constant(load.items)
    exact = {
        "NumPy argpartition": searched(lambda batch: np.argpartition(batch @ load.items.T, -K, axis=1)[:, -K:], few),
        "tf.math.top_k": searched(
            lambda batch: tf.math.top_k(tf.matmul(batch, matrix, transpose_b=True), K).indices.numpy(), few
        ),
    }
    exact |= {"faiss flat": peer["faiss flat batch 8"]} if peer else {}
    best = max(exact, key=lambda name: exact[name])
    rate = searched(lambda batch: load.index.search(batch, K), load.batches())
    sizes = load.sizes | {"batch": BATCH}
    name = f"{load.name}: batch 8"
    results = [
        Result(Figure(f"{name}, beside exact", rate, RATE, sizes | exact, least_ratio=EXACT_TIMES), [rate],
               [exact[best]], best)
    ]  # fmt: skip
    if peer:
        figure = Figure(f"{name}, beside faiss int8", rate, RATE, sizes, least_ratio=INT8_TIMES)
        results.append(Result(figure, [rate], [peer["faiss int8 batch 8"]], "faiss int8"))
    for level in simd_levels()[:-1]:
        with forced_simd_level(level):
            slower = searched(lambda batch: load.index.search(batch, K), load.batches()[:2])
        results.append(_alone(Figure(f"{name}, {level}", slower, RATE, sizes | {"level": level})))
    return results


def _one_by_one(load: Load, peer: dict[str, float]) -> Result:
    """The rate at which one query reads codes and scales, beside a plain read of as many bytes."""
    bytes_read = len(load.items) * (DIM + 4)
    block = np.ones(bytes_read // 8, np.int64)
    # Alternating, since the bandwidth of a shared machine varies.
    shares = []
    for query in load.batches(1)[:20]:
        ours, read = _core_seconds(lambda query=query: load.index.search(query, K)), _core_seconds(block.sum)
        shares.append((bytes_read / ours, bytes_read / read))
    ours_rate, read_rate = np.median(np.array(shares), axis=0)
    sizes = load.sizes | {"batch": 1, "queries per core-second": ours_rate / bytes_read}
    sizes |= {name: rate for name, rate in peer.items() if name.endswith("batch 1")}
    figure = Figure(f"{load.name}: batch 1", ours_rate, "bytes/s", sizes, least_ratio=READ_SHARE)
    return Result(figure, [ours_rate], [read_rate], "plain read")


def _recall(load: Load) -> Result:
    queries = load.queries[:64]
    exact = np.argpartition(queries @ load.items.T, -K, axis=1)[:, -K:]
    found = load.index.search(queries, K).ids
    recall = float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))
    return _alone(Figure(f"{load.name}: of the best 1,000 by float32", recall, "", load.sizes, RECALL_LEAST))


def _beside_graphs(load: Load, peer: dict[str, float]) -> list[Result]:
    """Over the few items that the graphs hold. Their recall is among the sizes: exact is 1."""
    index, results = load.of(load.few), []
    for name in [name for name in peer if f"{name} recall" in peer]:
        k = int(name.rpartition(" ")[2])
        sizes = load.sizes | {"items": load.few, "k": k, "batch": BATCH, "recall of the peer": peer[f"{name} recall"]}
        seconds = _core_seconds(lambda k=k: [index.search(batch, k) for batch in load.batches()])
        rate = sum(map(len, load.batches())) / seconds
        library = name.rpartition(" k ")[0]
        figure = Figure(f"{load.name}: k {k}, beside {library}", rate, RATE, sizes)
        results.append(Result(figure, [rate], [peer[name]], library))
    return results


def _thresholds(load: Load, sampled: Sequence[int] = EXPECTED) -> list[Result]:
    """The share of queries whose threshold was too high, by the number of the best items expected in the sample."""
    results = []
    for expected in sampled:
        index = load.of(len(load.items), SampleRule(expected, least_stride=1))
        found = [index.search(batch, K) for batch in np.array_split(load.queries, max(len(load.queries) // BATCH, 1))]
        failed = float(np.concatenate([each.passes > 1 for each in found]).mean())
        survivors = float(np.concatenate([each.survivors for each in found]).mean())
        sizes = load.sizes | {"sampled": len(load.items) * expected // K, "queries": len(load.queries)}
        sizes |= {"survivors": survivors}
        figure = Figure(
            f"{load.name}: thresholds too high, {expected} of the best in the sample", failed, "of queries", sizes
        )
        results.append(_alone(figure))
    return results


def _changes(load: Load, peer: dict[str, float]) -> list[Result]:
    random = np.random.default_rng(3)
    n = len(load.items) // 4
    chosen = random.permutation(len(load.items))[:n].astype(np.uint64)
    vectors = load.items[chosen.astype(np.int64)]
    changed = n / _core_seconds(lambda: load.index.put(chosen, vectors))
    inserted = len(load.items) / _core_seconds(lambda: load.of(len(load.items)), calls=1)
    results = []
    for what, rate, least in (("change", changed, CHANGES_LEAST), ("insert", inserted, None)):
        others = {name: found for name, found in peer.items() if name.endswith(what)}
        figure = Figure(f"recall: {what}", rate, CHANGES, load.sizes | {"changed": n} | others, least)
        results.append(_alone(figure))
    return results


def _waiting(load: Load, quick: bool) -> list[Result]:
    """The 99th percentile of the time of a batch during changes on another core, over that without changes; and over
    that during the same changes of another index, which takes as much of the machine and no lock of this one.
    """
    rounds, calls = (1, 20) if quick else (5, 100)
    other = load.of(len(load.ids))
    times: dict[str, list[float]] = {"idle": [], "other": [], "busy": []}
    rates: list[float] = []
    for _ in range(rounds):  # alternating, since the load of a shared machine varies
        times["idle"] += _times(load, calls)
        for name, index in (("other", other), ("busy", load.index)):
            with _changing(load, index, rates):
                times[name] += _times(load, calls)
    idle, beside, busy = (float(np.percentile(each, 99)) for each in times.values())
    sizes = load.sizes | {"threads": 2, "idle ms": 1e3 * idle, "other ms": 1e3 * beside, "busy ms": 1e3 * busy}
    sizes |= {"items/s changed": min(rates)}
    name = "recall: p99 during changes over"
    return [
        _alone(Figure(f"{name} idle", busy / idle, "x", sizes, most=WAITING_MOST)),
        _alone(Figure(f"{name} changes of another index", busy / beside, "x", sizes, most=WAITING_MOST)),
    ]


@contextmanager
def _changing(load: Load, index: ScanIndex, rates: list[float]) -> Iterator[None]:
    """Inside, a thread changes the items of an index at the rate asked for; its rate is added to `rates`."""
    done, part = threading.Event(), len(load.ids) // 100
    started, changed = time.perf_counter(), 0

    def change() -> None:
        nonlocal changed
        while not done.is_set():
            index.put(load.ids[:part], load.items[:part])
            changed += part
            done.wait(max(started + changed / CHANGES_LEAST - time.perf_counter(), 0))

    writer = threading.Thread(target=change)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()
        rates.append(changed / (time.perf_counter() - started))


def _times(load: Load, calls: int) -> list[float]:
    """How long searches with a batch take, in seconds."""
    batch, times = load.queries[:BATCH], []
    for _ in range(calls):
        started = time.perf_counter()
        load.index.search(batch, K)
        times.append(time.perf_counter() - started)
    return times


def _memory_after_churn(quick: bool) -> Result:
    """Every item is removed and another one inserted, ten times."""
    random, n = np.random.default_rng(4), 10_000 if quick else 200_000
    index, vectors = ScanIndex(DIM), item_vectors(random, n)
    ids = np.arange(n, dtype=np.uint64)
    index.put(ids, vectors)
    before = index.memory_bytes
    for turn in range(1, 11):
        for part in np.array_split(ids, 10):
            index.remove(part + np.uint64((turn - 1) * n))
            index.put(part + np.uint64(turn * n), vectors[: len(part)])
    sizes = {"items": n, "dim": DIM, "bytes an item": before / n}
    return _alone(
        Figure("recall: memory after tenfold churn", index.memory_bytes / before, "x", sizes, most=MEMORY_MOST)
    )


def _alone(figure: Figure) -> Result:
    return Result(figure, [figure.value], [1.0])


def _core_seconds(work: Callable[[], Any], calls: int = 3) -> float:
    times = []
    for _ in range(calls):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
