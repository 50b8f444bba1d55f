"""PyTorch's row-wise quantizers over rows of a file: 8, 4 and 2 bits, the last two also by greedy search.

Takes `--rows FILE.npy`, [n, dim] float32. Prints, per quantizer, rows per core-second encoded and decoded, and the
squared error over the squared weights. CUT limits the search to the share of the range that is best for each width.
"""

import argparse
import json
import time

import numpy as np
import torch

BINS, CUT = 200, {4: 0.16, 2: 0.5}


def quantizers():
    ops = torch.ops.quantized
    yield "int8", ops.embedding_bag_byte_prepack, ops.embedding_bag_byte_unpack
    for bits in (4, 2):
        pack, unpack = getattr(ops, f"embedding_bag_{bits}bit_prepack"), getattr(ops, f"embedding_bag_{bits}bit_unpack")
        yield f"int{bits}", lambda rows, pack=pack: pack(rows, False), unpack
        yield f"int{bits} greedy", lambda rows, pack=pack, cut=CUT[bits]: pack(rows, True, BINS, cut), unpack


def timed(call, argument):
    """The result and the least processor time of two calls."""
    times = []
    for _ in range(2):
        started = time.process_time()
        result = call(argument)
        times.append(time.process_time() - started)
    return result, min(times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", required=True)
    weights = np.load(parser.parse_args().rows)
    torch.set_num_threads(1)
    measured = {}
    for name, pack, unpack in quantizers():
        packed, pack_s = timed(pack, torch.from_numpy(weights))
        read, unpack_s = timed(unpack, packed)
        exact = weights.astype(np.float64)
        measured[f"{name} encode"] = len(weights) / pack_s
        measured[f"{name} decode"] = len(weights) / unpack_s
        measured[f"{name} error"] = float(((read.numpy() - exact) ** 2).sum() / (exact**2).sum())
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
