"""PyTorch as a trainer: 26 fields x 16 in one sparse embedding of fixed size, MLP 256-128, Adagrad.

Every value has a separate row: no hash collisions, no growth. Prints samples per second of wall and of
processor time over the steps after the warm-up.
"""

import argparse
import json
import math
import time

import torch
from zipf import BATCH, DIM, FIELDS, LAYERS, VALUES, batches

WARM_UP = 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(1)
    rows = torch.nn.Embedding(FIELDS * VALUES, DIM, sparse=True)
    torch.nn.init.normal_(rows.weight, 0, 0.01)
    sizes = (FIELDS * DIM, *LAYERS)
    hidden = [part for a, b in zip(sizes, sizes[1:]) for part in (torch.nn.Linear(a, b), torch.nn.ReLU())]  # noqa: B905, RUF007
    dense = torch.nn.Sequential(*hidden, torch.nn.Linear(sizes[-1], 1))
    optimizers = [torch.optim.Adagrad(part.parameters(), 0.01) for part in (rows, dense)]

    def step(keys: torch.Tensor, labels: torch.Tensor) -> float:
        logits = dense(rows(keys).reshape(BATCH, FIELDS * DIM))[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return float(loss)

    ready = [(torch.from_numpy(keys), torch.from_numpy(labels)) for keys, labels in batches(WARM_UP + chosen.steps)]
    for keys, labels in ready[:WARM_UP]:
        step(keys, labels)
    began_s, spent_s = time.perf_counter(), time.process_time()
    losses = [step(keys, labels) for keys, labels in ready[WARM_UP:]]
    taken_s, spent_s = time.perf_counter() - began_s, time.process_time() - spent_s
    assert all(math.isfinite(loss) for loss in losses)
    samples = chosen.steps * BATCH
    rates = {"samples_per_s": samples / taken_s, "samples_per_core_s": samples / spent_s}
    print(json.dumps({**rates, "loss": losses[-1]}))


if __name__ == "__main__":
    main()
