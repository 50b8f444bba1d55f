"""A join on a bench: fed one event at a time, with everything that it emitted."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import ARROW_TYPES, DeadLetters, EventBlock
from pipeline.configuration.config import parse_config
from pipeline.samples.join.join import Join
from tests.support.world.join_state import decode_join, encode_join

W, H, R, D = 1_000, 2_000, 500, 100  # window, horizon, remember, disorder in ms
S = 10_000  # when the impression is


def config_of(events=None, **samples):
    durations = {"window_s": W / 1000, "horizon_s": H / 1000, "key_retention_s": R / 1000}
    return parse_config(
        {
            "events": {
                "key": ["request", "item"],
                "disorder_s": D / 1000,
                "impressions": {
                    "columns": {"request": "string", "item": "int", "tags": "strings", "price": "float"},
                    **(events or {}).get("impressions", {}),
                },
                "clicks": {"columns": {"request": "string", "item": "int", "spent": "float", "bought": "bool"}},
            },
            "samples": {**durations, **samples},
            "fields": [{"name": "item", "columns": ["item"]}],
        }
    )


@dataclass(frozen=True)
class Output:
    """What a join decided: `samples` has the columns of `sample_schema`."""

    samples: pa.RecordBatch
    dead: DeadLetters


def output_of(join):
    """What the join decided since the last call."""
    decisions = join.decide()
    return Output(decisions.samples.batch(), decisions.dead)


class Bench:
    """A join fed one event at a time; `samples` and `dead` hold everything that it emitted."""

    def __init__(self, partitions=None, **samples):
        self.config = config_of(**samples)
        self.partitions = partitions or {"impressions": 1, "clicks": 1}
        self.join = Join(self.config, 0, self.partitions)
        self.watermarks, self.ends = {}, {}
        self.samples, self.dead = [], []

    def impression(self, at, item=1, partition=0, **values):
        values = {"request": "r", "item": item, "tags": ["a", "b"], "price": 0.5, **values}
        return self.feed("impressions", partition, at, values)

    def click(self, at, item=1, partition=0, **values):
        return self.feed(
            "clicks", partition, at, {"request": "r", "item": item, "spent": None, "bought": None, **values}
        )

    def feed(self, kind, partition, at, values):
        source = (kind, partition)
        watermark = max(self.watermarks.get(source, -(2**62)), at - D)
        offset = self.ends.get(source, 0)
        self.watermarks[source], self.ends[source] = watermark, offset + 1
        types = self.config.events.by_kind[kind].columns
        columns = pa.record_batch({n: pa.array([values[n]], ARROW_TYPES[t]) for n, t in types.items()})
        one = np.array([0], np.int32)
        block = EventBlock(
            kind,
            partition,
            columns,
            np.array([at]),
            np.array([offset]),
            one,
            np.array([watermark]),
            offset + 1,
            watermark,
        )
        self.join.feed(block)
        return block

    def heartbeat(self, kind, at, partition=0):
        """No event earlier than `at` follows."""
        source = (kind, partition)
        self.watermarks[source] = max(self.watermarks.get(source, -(2**62)), at)
        self.ends[source] = self.ends.get(source, 0) + 1
        columns = config_columns(self.config, kind)
        nothing = np.zeros(0, np.int64)
        rows = np.zeros(0, np.int32)
        self.join.feed(
            EventBlock(
                kind, partition, columns, nothing, nothing, rows, nothing, self.ends[source], self.watermarks[source]
            )
        )

    def watermark(self, at):
        for kind, count in self.partitions.items():
            for partition in range(count):
                self.heartbeat(kind, at, partition)
        return self.finish()

    def finish(self):
        output = output_of(self.join)
        self.samples += output.samples.to_pylist()
        self.dead += output.dead.table.to_pylist()
        return self

    def restart(self):
        self.join = decode_join(self.config, 0, self.partitions, encode_join(self.join))

    @property
    def kinds(self):
        return [s["kind"] for s in self.samples]

    @property
    def reasons(self):
        return [d["reason"] for d in self.dead]


def config_columns(config, kind):
    types = config.events.by_kind[kind].columns
    return pa.record_batch({n: pa.array([], ARROW_TYPES[t]) for n, t in types.items()})
