"""Searches and changes of index libraries, on one thread: faiss, hnswlib, usearch.

Takes `--items FILE.npy` and `--queries FILE.npy`, [n, dim] float32, and `--few N`: the graphs are built of the first N
items. Prints queries and changed items per core-second, and for the graphs the rate at the first effort of the search
with a recall of at least 0.99, with that recall.
"""

import argparse
import json
import time

import faiss
import hnswlib
import numpy as np
from usearch.index import Index

K, FEW_K, RECALL = 1_000, 10, 0.99
M, BUILD_EFFORT, CHANGED = 32, 200, 2_000


def core_seconds(work, calls=3):
    times = []
    for _ in range(calls):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def rate(search, queries, k, batch):
    batches = [queries[at : at + batch] for at in range(0, 64 if batch > 1 else 16, batch)]
    return sum(map(len, batches)) / core_seconds(lambda: [search(each, k) for each in batches])


def flat_indexes(items, queries, measured):
    dim = items.shape[1]
    direct = faiss.ScalarQuantizer.QT_8bit_direct_signed
    scale = np.float32(127 / np.abs(items).max())
    indexes = {
        "faiss flat": (faiss.IndexFlatIP(dim), np.float32(1)),
        "faiss int8": (faiss.IndexScalarQuantizer(dim, direct, faiss.METRIC_INNER_PRODUCT), scale),
    }
    for name, (index, by) in indexes.items():
        index.train(items[:1_000] * by)
        index.add(items * by)
        for batch in (8, 1):
            measured[f"{name} batch {batch}"] = rate(index.search, queries, min(K, len(items)), batch)


def nearest(items, queries, k):
    return np.argpartition(-(queries @ items.T), k - 1, axis=1)[:, :k]


def tuned(name, search, set_effort, items, queries, measured):
    """The rate at the least effort that reaches the recall."""
    for k in (FEW_K, min(K, len(items) // 2)):
        exact = nearest(items, queries, k)
        for effort in (16, 32, 64, 128, 256, 512, 1_000, 1_500, 2_000, 3_000, 5_000):
            if effort < k:
                continue
            set_effort(effort)
            found = search(queries, k)
            recall = np.mean([len(set(a) & set(b)) / k for a, b in zip(found, exact.tolist(), strict=True)])
            if recall >= RECALL:
                break
        measured[f"{name} k {k}"] = rate(lambda each, k=k: search(each, k), queries, k, 8)
        measured[f"{name} k {k} recall"] = float(recall)


def hnswlib_graph(items, queries, measured):
    ids = np.arange(len(items))
    graph = hnswlib.Index("ip", items.shape[1])
    graph.init_index(2 * len(items), M=M, ef_construction=BUILD_EFFORT)
    graph.set_num_threads(1)
    measured["hnswlib insert"] = len(items) / core_seconds(lambda: graph.add_items(items, ids), calls=1)
    tuned("hnswlib", lambda q, k: graph.knn_query(q, k)[0].tolist(), graph.set_ef, items, queries, measured)
    changed = items[:CHANGED][::-1].copy()
    measured["hnswlib change"] = CHANGED / core_seconds(lambda: graph.add_items(changed, ids[:CHANGED]), calls=1)


def usearch_graph(items, queries, measured):
    ids = np.arange(len(items), dtype=np.uint64)
    graph = Index(ndim=items.shape[1], metric="ip", dtype="f32", connectivity=M, expansion_add=BUILD_EFFORT)
    measured["usearch insert"] = len(items) / core_seconds(lambda: graph.add(ids, items, threads=1), calls=1)

    def set_effort(effort):
        graph.expansion_search = effort

    def search(q, k):
        return np.atleast_2d(graph.search(q, k, threads=1).keys).tolist()

    tuned("usearch", search, set_effort, items, queries, measured)
    changed = items[:CHANGED][::-1].copy()

    def change():
        graph.remove(ids[:CHANGED])
        graph.add(ids[:CHANGED], changed, threads=1)

    measured["usearch change"] = CHANGED / core_seconds(change, calls=1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--few", type=int, required=True)
    chosen = parser.parse_args()
    items, queries = np.load(chosen.items), np.load(chosen.queries)
    faiss.omp_set_num_threads(1)
    measured: dict[str, float] = {}
    flat_indexes(items, queries, measured)
    few = items[: chosen.few]
    hnswlib_graph(few, queries, measured)
    usearch_graph(few, queries, measured)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
