"""The gate on a stream with known truth: how soon faults are caught, and how often clean samples raise an alarm.

The stream drifts with the day, and the model of it errs by source. Every fault begins after 300,000 clean samples, with
another seed each time; settings were tuned on seeds below 2,000. The clean streams run on after an alarm, so that every
false one is counted.
"""

from pathlib import Path
from time import process_time

import numpy as np

from pipeline.configuration.model.gate import GateConfig
from pipeline.trainer.validation.gate.gate import Gate
from tests.benchmarks.harness.report import Figure
from tests.support.synthetic.scored_stream import ScoredStream

_BATCH = 2_048
_FIRST_SEED, _CLEAN_SEEDS = 2_000, (3_000, 3_001, 3_002, 3_003)
_FAULTS = {"flipped": "10 % of labels flipped", "dead": "a dead feature column", "bots": "a bot farm of 2 %"}


def measure(folder: Path, quick: bool) -> list[Figure]:
    seeds, warm, clean = (1, 200_000, 300_000) if quick else (40, 300_000, 40_000_000)
    config = GateConfig(source="campaign")
    figures = [_caught(config, fault, seeds, warm) for fault in _FAULTS]
    return [*figures, *_false_alarms(config, clean)]


def _caught(config: GateConfig, fault: str, seeds: int, warm: int) -> Figure:
    needed = []
    for seed in range(_FIRST_SEED, _FIRST_SEED + seeds):
        gate, stream = Gate(config), ScoredStream(seed)
        while stream.samples < warm:
            gate.score(stream.batch(_BATCH))
        stream.fault, began = fault, stream.samples
        while gate.state == "healthy" and stream.samples < began + 200_000:
            gate.score(stream.batch(_BATCH))
        needed.append(stream.samples - began)
    caught = sum(each < 20_000 for each in needed)
    sizes = {"runs": seeds, "caught within 20,000": caught, "median": float(np.median(needed)), "batch": _BATCH}
    return Figure(f"gate: {_FAULTS[fault]}, caught after", float(max(needed)), "samples", sizes, most=20_000)


def _false_alarms(config: GateConfig, samples: int) -> list[Figure]:
    alarms, strongest, spent_s = 0, 0.0, 0.0
    for seed in _CLEAN_SEEDS:
        gate, stream, before = Gate(config), ScoredStream(seed), "healthy"
        while stream.samples < samples // len(_CLEAN_SEEDS):
            batch = stream.batch(_BATCH)
            began_s = process_time()
            gate.score(batch)
            spent_s += process_time() - began_s
            alarms += before == "healthy" and gate.state != "healthy"
            before, report = gate.state, gate.report()
            strongest = max(strongest, report["calibration"], report["gain"])
    sizes = {"samples": samples, "strongest evidence, of the threshold": strongest}
    speed = {"batch": _BATCH, "µs a batch": 1e6 * spent_s * _BATCH / samples}
    return [
        Figure("gate: false alarms", float(alarms), "alarms", sizes, most=1),
        Figure("gate: processor time", 1e9 * spent_s / samples, "ns/sample", speed),
    ]
