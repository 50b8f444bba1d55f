"""Which rows deltas carry, at equal bytes: by the price of a byte, or by scores of the first order.

On the stream of `published_bytes`, a publisher with the default loss sends what is worth the price of its bytes. Two
others have its steps and may send as many bytes in every interval, by another score per byte of the withheld rows:

- Taylor: importance × ‖row − served‖ / ‖row‖, the first-order score by which rows expire, for the movement that serving
  lacks.
- signed: −⟨g, row − served⟩, g the gradient summed over samples and decayed as the curvature is: what sending takes off
  the loss to the first order. Rows for which it is negative are never sent.

What counts is the log loss of serving above the trainer's, on new samples under the true probabilities.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.importance.score import decayed
from pipeline.publish.publisher import Publisher, PublishSettings
from pipeline.versions.deltas.served_view import ServedView
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.models.drifting_stream import (
    DIM,
    HALF_LIFE_S,
    DriftingStream,
    FactorisationMachine,
)
from tests.benchmarks.models.published_bytes import (
    DEFAULT,
    INTERVAL_S,
    QUICK,
    RATE,
    SEEDS,
    Size,
    TableRows,
    Way,
    log_loss,
    publish,
    score_serving,
    touched_rows,
    way_of,
)

Score = Callable[[str, np.ndarray, np.ndarray, int], np.ndarray]
"""(table, rows [n], row − served [n, DIM], log time in s) → [n] what sending each row is worth."""


@dataclass
class Gradients:
    """By table the gradients of its rows, summed over samples and decayed.

    Attributes:
        keys: [n] uint64 of each table, ascending.
        sums: [n, DIM] of each table.
    """

    keys: list[np.ndarray]
    sums: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sums = [np.zeros((len(keys), DIM)) for keys in self.keys]

    def add(self, keys: np.ndarray, gradient: np.ndarray) -> None:
        """Keys [samples, tables] and the gradient [samples, tables × DIM] of a batch."""
        for number, column in enumerate(keys.T):
            places = np.searchsorted(self.keys[number], column)
            order = np.argsort(places, kind="stable")
            distinct, starts = np.unique(places[order], return_index=True)
            part = gradient[order, number * DIM : (number + 1) * DIM].astype(np.float64)
            self.sums[number][distinct] += np.add.reduceat(part, starts)

    def decay(self, elapsed_s: float) -> None:
        for sums in self.sums:
            sums *= 0.5 ** (elapsed_s / HALF_LIFE_S)

    def of(self, table: str, keys: np.ndarray) -> np.ndarray:
        number = int(table)
        return self.sums[number][np.searchsorted(self.keys[number], keys)]


class RecordingMachine(FactorisationMachine):
    """A machine that keeps the gradients of its rows."""

    def __init__(self, learning_rate: float, gradients: Gradients) -> None:
        super().__init__(learning_rate)
        self.gradients = gradients

    def decay(self, elapsed_s: float) -> None:
        super().decay(elapsed_s)
        self.gradients.decay(elapsed_s)

    def learn_rows(self, keys: np.ndarray, gradient: np.ndarray, at_s: int) -> None:
        super().learn_rows(keys, gradient, at_s)
        self.gradients.add(keys, gradient)


class ByScore(Publisher):
    """Sends the withheld rows with the highest score per byte, with the steps and the bytes of another publisher."""

    def __init__(self, leader: Way, model: FactorisationMachine, score: Score) -> None:
        names = [str(number) for number in range(len(model.tables))]
        rows = {name: TableRows(table) for name, table in zip(names, model.tables, strict=True)}
        super().__init__(PublishSettings(DEFAULT, HALF_LIFE_S), rows, {name: ServedView(DIM) for name in names})
        self._leader, self._score_of = leader, score
        self._estimated = self._sent = self._allowed = 0

    def count(self, sent: int, allowed: int) -> None:
        """After an interval: the bytes of both publishers so far."""
        self._sent, self._allowed = sent, allowed

    def _find_price(self, at_s: int, loss: float, dense: Any) -> None:
        self._set_price(self._leader.publisher._price)

    def _select(self, at_s: int, hold: bool) -> dict[str, np.ndarray]:
        scores, costs = {}, {}
        for name, withheld in self._withheld.items():
            rows = self._tables[name].rows(withheld.keys)
            missing = rows["weights"] - self.views[name].decode(withheld.keys)
            scores[name] = self._score_of(name, withheld.keys, rows, missing, at_s)
            costs[name] = withheld.worth / withheld.worth_per_byte
        per_byte = np.concatenate([scores[name] / costs[name] for name in scores])
        cost = np.concatenate(list(costs.values()))
        order = np.argsort(-per_byte, kind="stable")
        order = order[per_byte[order] > 0]
        spent = np.cumsum(cost[order])
        left = (self._allowed - self._sent) * (self._estimated / self._sent if self._sent else 1.0)
        chosen = np.zeros(len(cost), np.bool_)
        chosen[order[: np.searchsorted(spent, left, "right")]] = True
        self._estimated += float(cost[chosen].sum())
        ends = np.cumsum([len(each) for each in costs.values()])[:-1]
        return dict(zip(costs, np.split(chosen, ends), strict=True))


def measure(folder: Path, quick: bool) -> list[Figure]:
    size, seeds = (QUICK, SEEDS[:1]) if quick else (Size(), SEEDS)
    runs = [_run(size, seed) for seed in seeds]
    return [_figure(name, [run[name] for run in runs]) for name in runs[0]]


@dataclass(frozen=True)
class Outcome:
    """Of one seed and one choice: bytes, over those of the price, log loss above the trainer's, and as measured."""

    size_bytes: int
    of_price: float
    rows: int
    above: float
    measured: float


def _run(size: Size, seed: int) -> dict[str, Outcome]:
    stream = DriftingStream(seed, size.scale)
    gradients = Gradients([np.sort(keys) for keys in stream.keys])
    model = RecordingMachine(RATE, gradients)
    leader = way_of(DEFAULT, model)
    scores = {"Taylor": _taylor, "signed": _signed(gradients)}
    ways = {"price": leader} | {name: Way(ByScore(leader, model, score)) for name, score in scores.items()}
    sent, own, bias, at_s = dict.fromkeys(ways, 0), list[float](), model.bias, 0.0
    for interval, (count, interval_s, counted) in enumerate(size.intervals(), start=1):
        samples, at_s = stream.next(count, interval_s / INTERVAL_S), at_s + interval_s
        if counted:
            own.append(log_loss(model.logits(samples.keys), samples))
        for way in ways.values():
            score_serving(way, model, samples, bias, counted)
        model.decay(interval_s)
        model.learn(samples, round(at_s))
        touched, bias = touched_rows(model), model.bias
        for name, way in ways.items():
            if isinstance(way.publisher, ByScore):
                way.publisher.count(sent[name], sent["price"])
            sent[name] += publish(way, model, touched, (interval, round(1000 * at_s)), counted)
    return {name: _outcome(way, leader, own) for name, way in ways.items()}


def _taylor(table: str, keys: np.ndarray, rows: np.ndarray, missing: np.ndarray, at_s: int) -> np.ndarray:
    importance = decayed(rows["importance"].copy(), rows["last_seen_s"].copy(), at_s, HALF_LIFE_S)
    length = np.linalg.norm(rows["weights"], axis=1)
    worth: np.ndarray = importance * np.linalg.norm(missing, axis=1) / np.where(length > 0, length, 1)
    return worth


def _signed(gradients: Gradients) -> Score:
    def score(table: str, keys: np.ndarray, rows: np.ndarray, missing: np.ndarray, at_s: int) -> np.ndarray:
        gain: np.ndarray = -(gradients.of(table, keys) * missing).sum(axis=1)
        return gain

    return score


def _outcome(way: Way, leader: Way, own: list[float]) -> Outcome:
    above = float(np.mean(way.loss) / np.mean(own) - 1)
    return Outcome(way.size_bytes, way.size_bytes / leader.size_bytes, way.rows, above, float(np.mean(way.measured)))


def _figure(name: str, runs: list[Outcome]) -> Figure:
    def mean(values: list[float], digits: int) -> float:
        return round(float(np.mean(values)), digits)

    return Figure(
        f"row choice, {name}: log loss above the trainer's", 100 * float(np.mean([run.above for run in runs])), "%",
        {"seeds": len(runs), "of seeds %": [round(100 * run.above, 4) for run in runs],
         "bytes over those of the price": mean([run.of_price for run in runs], 3),
         "rows sent": round(float(np.mean([run.rows for run in runs]))),
         "measured %": mean([100 * run.measured for run in runs], 4)},
    )  # fmt: skip
