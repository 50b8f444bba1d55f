"""Searches and changes of index libraries, on one thread: faiss, hnswlib, usearch, ScaNN, Scalable Vector Search.

Takes `--items FILE.npy` and `--queries FILE.npy`, [n, dim] float32, and `--few N`: graphs, trees and lists are built of
the first N items. Prints queries and changed items per core-second, and for these the rate at the first effort of the
search with a recall of at least 0.99, with that recall; at the greatest effort if none reaches it.
"""

import argparse
import json
import time

import faiss
import hnswlib
import numpy as np
import scann
import svs
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


BEAMS = (16, 32, 64, 128, 256, 512, 1_000, 1_500, 2_000, 3_000, 5_000)
"""Items that a graph keeps during a search: at least k."""


def tuned(name, search, set_effort, items, queries, measured, parts=None):
    """The rate at the least effort that reaches the recall; `parts` are those that a tree or lists may search."""
    for k in (FEW_K, min(K, len(items) // 2)):
        exact = nearest(items, queries, k)
        for effort in parts or [beam for beam in BEAMS if beam >= k]:
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


def lists_of(items):
    """How many lists or leaves, and how many of them a search reads at each effort."""
    count = max(8, int(2 * len(items) ** 0.5))
    return count, [max(1, count * share // 64) for share in (1, 2, 4, 8, 16, 32, 64)]


def refined(k):
    """How many items are scored by their exact vectors after a search by codes."""
    return max(4 * k, 200)


def faiss_lists(items, queries, measured):
    """Lists of exact vectors, and of codes by product quantization, refined by the exact vectors."""
    count, parts = lists_of(items)
    for name, kind in (("faiss IVF", "Flat"), ("faiss IVFPQ", f"PQ{items.shape[1] // 2}x4fs,RFlat")):
        index = faiss.index_factory(items.shape[1], f"IVF{count},{kind}", faiss.METRIC_INNER_PRODUCT)
        started = time.process_time()
        index.train(items)
        index.add(items)
        measured[f"{name} insert"] = len(items) / (time.process_time() - started)
        lists = faiss.extract_index_ivf(index)

        def set_effort(effort, lists=lists):
            lists.nprobe = effort

        def search(q, k, index=index, codes=kind != "Flat"):
            if codes:
                index.k_factor = refined(k) / k
            return index.search(q, k)[1].tolist()

        tuned(name, search, set_effort, items, queries, measured, parts)


def scann_tree(items, queries, measured):
    count, parts = lists_of(items)
    started = time.process_time()
    builder = scann.scann_ops_pybind.builder(items, 10, "dot_product").set_n_training_threads(1)
    builder = builder.tree(num_leaves=count, num_leaves_to_search=count, training_sample_size=len(items))
    index = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(4 * K).build()
    index.set_num_threads(1)
    measured["scann insert"] = len(items) / (time.process_time() - started)
    chosen = [1]

    def search(q, k):
        return index.search_batched(q, k, min(refined(k), len(items)), chosen[0])[0].tolist()

    tuned("scann", search, lambda effort: chosen.__setitem__(0, effort), items, queries, measured, parts)


def svs_graph(items, queries, measured):
    parameters = svs.VamanaBuildParameters(alpha=0.95, graph_max_degree=2 * M, window_size=BUILD_EFFORT)
    started = time.process_time()
    index = svs.Vamana.build(parameters, items, svs.DistanceType.MIP, num_threads=1)
    measured["svs insert"] = len(items) / (time.process_time() - started)

    def set_effort(effort):
        index.search_window_size = effort

    tuned("svs", lambda q, k: index.search(q, k)[0].tolist(), set_effort, items, queries, measured)


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
    faiss_lists(few, queries, measured)
    scann_tree(few, queries, measured)
    svs_graph(few, queries, measured)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
