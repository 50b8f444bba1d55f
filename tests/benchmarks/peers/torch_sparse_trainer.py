"""PyTorch as a trainer: sparse embeddings of 16 and of fixed size, MLP 256-128, Adagrad.

26 fields in one embedding, or with `--tables N` in N of them; or with `--history N` an item and a history of N items in
one embedding, read by attention. Every value has a separate row: no hash collisions, no growth. Prints samples and
looked-up rows per second of wall and of processor time over the steps after the warm-up.
"""

import argparse

import torch
from zipf import BATCH, DIM, FIELDS, LAYERS, VALUES, batches, report

WARM_UP = 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tables", type=int, help="number of embeddings that the fields share")
    parser.add_argument("--history", type=int, help="items of a history, in place of the fields")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(1)
    tables = chosen.tables or 1
    columns = 1 + chosen.history if chosen.history else FIELDS
    values = VALUES if chosen.tables or chosen.history else FIELDS * VALUES
    rows = torch.nn.ModuleList(torch.nn.Embedding(values, DIM, sparse=True) for _ in range(tables))
    for each in rows:
        torch.nn.init.normal_(each.weight, 0, 0.01)
    width = 2 * DIM if chosen.history else FIELDS * DIM
    sizes = (width, *LAYERS)
    hidden = [part for a, b in zip(sizes, sizes[1:]) for part in (torch.nn.Linear(a, b), torch.nn.ReLU())]  # noqa: B905, RUF007
    dense = torch.nn.Sequential(*hidden, torch.nn.Linear(sizes[-1], 1))
    optimizers = [torch.optim.Adagrad(part.parameters(), 0.01) for part in (rows, dense)]

    def read(keys: torch.Tensor) -> torch.Tensor:
        """[BATCH, width] what the network reads. Column c is in table c % tables."""
        if chosen.tables:
            found = [rows[number](keys[:, number::tables] % values) for number in range(tables)]
            return torch.cat(found, dim=1).reshape(BATCH, width)
        found = rows[0](keys)
        if not chosen.history:
            return found.reshape(BATCH, width)
        item, history = found[:, 0], found[:, 1:]
        shares = torch.softmax((history * item[:, None, :]).sum(dim=2) / 4.0, dim=1)
        return torch.cat([item, (history * shares[:, :, None]).sum(dim=1)], dim=1)

    def step(keys: torch.Tensor, labels: torch.Tensor) -> float:
        logits = dense(read(keys))[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return float(loss)

    made = batches(WARM_UP + chosen.steps, columns=columns, tables=1 if chosen.history else chosen.tables or FIELDS)
    ready = [(torch.from_numpy(keys), torch.from_numpy(labels)) for keys, labels in made]
    report(step, ready, WARM_UP, columns)


if __name__ == "__main__":
    main()
