"""Field importance: Kendall's τ of the trainer's live estimates against exact permutation, and the cost in the trainer.

26 fields × dim 16, MLP 256-128, batch 2,048. The fields have 8 to 100,000 values, Zipf; the effect of a field on the
logit falls from one to the next in mixed order, and five pairs work together as well. Permutation is measured on newer
samples than those learned, with the code of `springtide importance --fields`.
"""

import threading
import time
from itertools import combinations
from pathlib import Path

import numpy as np

from pipeline.configuration.project import Project
from pipeline.importance.fields.estimate import Estimate
from pipeline.importance.fields.inputs import InputColumns
from pipeline.importance.fields.live import LiveImportance
from pipeline.importance.fields.permutation import rise_when_shuffled
from pipeline.logs.interface.log import Log
from pipeline.logs.open import open_log
from pipeline.trainer.run.evaluation import evaluate_shards
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.load.stream import Integers, World, append_samples, stream_project

_STRONGEST, _WEAKEST, _PAIR = 0.62, 0.16, 0.15
"""Standard deviations of effects on the logit."""
_PER_SECOND, _HALF_LIFE_S = 50_000, 4.0
_LEVELS = 7
"""Values of a field have so many different effects."""


def measure(folder: Path, quick: bool) -> list[Figure]:
    fields = 4 if quick else 26
    learned, newer, repeats = (6_000, 2_048, 1) if quick else (800_000, 131_072, 2)
    project = stream_project(folder, fields, train={"commit_every_s": 3600.0, "half_life_s": _HALF_LIFE_S})
    log, world = open_log(project), _graded(fields)
    append_samples(project, log, 1, learned, _PER_SECOND, world)
    batch_cpu_ms = _learn(project, log)
    append_samples(project, log, 1, newer, _PER_SECOND, world, start=learned)
    return [*_compare(project, log, newer, repeats), _cost(project, batch_cpu_ms)]


def _learn(project: Project, log: Log) -> float:
    """Processor time per batch, in ms, of a trainer that learns the samples log; without building the network."""
    trainer = TrainerShard(project, log, VersionStore(project), 0)
    try:
        trainer.train(1, threading.Event())
        before, started = trainer.batches, time.process_time()
        trainer.train(log.end_offset(project.config.topics.samples, 0), threading.Event())
        return (time.process_time() - started) * 1000 / (trainer.batches - before)
    finally:
        trainer.close()


def _compare(project: Project, log: Log, newer: int, repeats: int) -> list[Figure]:
    """τ of the live estimates, and of permutation on one half of the samples against the other half."""
    columns, current = InputColumns.of(project.config), VersionStore(project).current(0)
    assert current is not None, "no version"
    [scored] = evaluate_shards(project, log, [current], newer)
    groups = [[part] for part in columns.slices]
    rise = rise_when_shuffled(scored.inputs, scored.losses, groups, repeats, 1, lambda: None)
    permutation, half = rise.mean(axis=1), rise.shape[1] // 2
    halves = kendall_tau(rise[:, :half].mean(axis=1), rise[:, half:].mean(axis=1))
    live = np.array([scored.live.of_inputs()[name].mean for name in columns.names])
    for place in np.argsort(-permutation):
        exact = Estimate.of(rise[place])
        print(
            f"  {columns.names[place]}: live {live[place]:.3g}, permutation {exact.mean:.3g} "
            f"({exact.low:.3g} to {exact.high:.3g})"
        )
    sizes = {"fields": len(live), "samples": rise.shape[1], "learned of them": scored.learned, "shuffles": repeats}
    sizes |= {"least permutation": permutation.min(), "largest": permutation.max()}
    return [
        Figure("field importance, Kendall tau", kendall_tau(live, permutation), "", sizes, least=0.9),
        Figure("field importance, Kendall tau of permutation, half against half", halves, "", sizes),
    ]


def _cost(project: Project, batch_cpu_ms: float) -> Figure:
    """The share of a batch's processor time that live importance takes; other load on the machine slows both.

    Input and gradient of each batch are not in a cache, as opposed to those in the trainer.
    """
    columns, n = InputColumns.of(project.config), project.config.model.batch_size
    random, importance = np.random.default_rng(1), LiveImportance(columns, _HALF_LIFE_S)
    shape = (n, sum(columns.widths))
    batches = [(random.random(shape, np.float32), random.random(shape, np.float32)) for _ in range(12)]
    weight, spent = np.ones(n, np.float32), []
    for number in range(240):
        started = time.thread_time()
        importance.learned(*batches[number % len(batches)], weight, number * n, number)
        spent.append((time.thread_time() - started) * 1000)
    cost_ms = float(np.median(spent[40:]))
    sizes = {"cpu ms a batch with it": batch_cpu_ms, "without": batch_cpu_ms - cost_ms, "of which importance": cost_ms}
    return Figure("field importance, share of a step", 100 * cost_ms / batch_cpu_ms, "%", sizes, most=1.0)


def kendall_tau(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's τ of two lists without ties: the share of pairs in the same order minus that in the opposite one.

    >>> kendall_tau(np.array([1, 2, 3]), np.array([1, 3, 2]))
    0.3333333333333333
    """
    signs = [np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i, j in combinations(range(len(a)), 2)]
    return float(np.mean(signs))


def _graded(fields: int) -> World:
    """Fields whose effects are all different; strength and number of values are independent of each other."""
    random = np.random.default_rng(7)
    strengths = random.permutation(np.geomspace(_STRONGEST, _WEAKEST, fields))
    cardinalities = random.permutation(np.geomspace(8, 100_000, fields).astype(np.int64))
    effects = random.normal(size=(fields, _LEVELS))
    effects = (effects - effects.mean(axis=1, keepdims=True)) / effects.std(axis=1, keepdims=True)

    def effect(number: int, column: Integers) -> np.ndarray:
        return effects[number, column * 2_654_435_761 // 1_000 % _LEVELS]

    def logit(columns: list[Integers]) -> np.ndarray:
        found = [effect(i, column) for i, column in enumerate(columns)]
        alone = sum(strength * each for strength, each in zip(strengths, found, strict=True))
        pairs = sum(_PAIR * found[i] * found[i + 1] for i in range(0, min(10, fields - 1), 2))
        return -2.5 + alone + pairs

    return World(lambda number, column: column % cardinalities[number], logit)
