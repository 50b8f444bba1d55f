"""TensorFlow Recommenders Addons as a store: rates of lookups and overwrites of its table, and memory per key.

Uniform keys in batches into a table that grows from empty, one thread, no optimizer. Prints keys per second of
processor time, the best of three passes; bytes per key at the end (a table that has just doubled takes twice as
much as one that is about to), and the peak during growth.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow_recommenders_addons import dynamic_embedding

PASSES, BATCHES = 3, 20


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def rate(call: Callable[[], object], keys: int) -> float:
    """Keys per processor-second of the fastest pass."""
    spent = []
    for _ in range(PASSES):
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return keys / min(spent)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=6_000_000)
    parser.add_argument("--batch", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=16)
    chosen = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    random = np.random.default_rng(1)
    keys = random.integers(1, 1 << 62, chosen.keys, dtype=np.int64)
    rows = tf.constant(random.standard_normal((chosen.batch, chosen.dim)).astype(np.float32))
    table = dynamic_embedding.CuckooHashTable(
        key_dtype=tf.int64, value_dtype=tf.float32, default_value=tf.zeros([chosen.dim]), name="peer"
    )
    asked = [tf.constant(random.choice(keys, chosen.batch)) for _ in range(BATCHES)]
    table.lookup(asked[0])
    before = resident_bytes()
    began = time.process_time()
    for start in range(0, chosen.keys, chosen.batch):
        part = keys[start : start + chosen.batch]
        table.insert(tf.constant(part), rows[: len(part)])
    inserted_s, grown = time.process_time() - began, resident_bytes() - before
    measured = {
        "insert_keys_per_core_s": chosen.keys / inserted_s,
        "lookup_keys_per_core_s": rate(lambda: [table.lookup(part) for part in asked], BATCHES * chosen.batch),
        "overwrite_keys_per_core_s": rate(lambda: [table.insert(part, rows) for part in asked], BATCHES * chosen.batch),
        "bytes_per_key": grown / chosen.keys,
        "peak_bytes_per_key": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / chosen.keys,
        "keys": int(table.size()),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
