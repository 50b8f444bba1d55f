"""The join's saved form: comes back, changes with the configuration, is refused where it is damaged."""

import struct

import pytest

from pipeline.ground.errors import DamagedError, MigrationError
from pipeline.samples.saved import join_from_bytes, join_to_bytes
from tests.join_bench import Bench, S, W, config_of


def test_state_comes_back_from_its_bytes():
    bench = Bench()
    bench.impression(S)
    bench.impression(S + 1, item=2)
    bench.impression(S + 2, item=3, tags=None)
    bench.click(S + 5, item=2)
    bench.click(S + 4, item=4)
    bench.click(S + W + 2, item=3)
    bench.finish()
    bench.restart()
    bench.impression(S + 3, item=4)
    bench.impression(S + 4, item=1)
    bench.watermark(S + W + 3)
    assert sorted((s["item"], s["kind"]) for s in bench.samples) == [
        (1, "negative"), (2, "positive"), (3, "compensation"), (3, "negative"), (4, "positive"),
    ]  # fmt: skip
    assert bench.reasons == ["duplicate_impression"]


def test_state_gains_and_loses_columns_with_the_configuration():
    bench = Bench()
    bench.impression(S)
    bench.finish()
    state = join_to_bytes(bench.join)
    columns = {"request": "string", "item": "int", "tags": "strings", "colour": "string"}
    config = config_of(events={"impressions": {"columns": columns}})
    join = join_from_bytes(config, 0, bench.partitions, state)
    bench.config, bench.join = config, join
    sample = bench.watermark(S + W).samples[0]
    assert (sample["tags"], sample["colour"]) == (["a", "b"], None)
    assert "price" not in sample


def test_state_of_another_join_key_is_refused():
    state = join_to_bytes(Bench().join)
    config = config_of()
    config = config.model_copy(update={"events": config.events.model_copy(update={"key": ("item",)})})
    with pytest.raises(MigrationError, match=r"was made with .*request.* hint"):
        join_from_bytes(config, 0, {"impressions": 1, "clicks": 1}, state)


def test_damaged_state_is_refused_wherever_it_is_hit():
    bench = Bench()
    bench.impression(S)
    bench.finish()
    state = join_to_bytes(bench.join)
    for damaged in (b"", state[:-1], state + b"x", state[:40], *(flip(state, i) for i in range(0, len(state), 97))):
        with pytest.raises(DamagedError, match="shard-state"):
            join_from_bytes(bench.config, 0, bench.partitions, damaged, "shard-state")


def flip(state, at):
    return state[:at] + bytes([state[at] ^ 1]) + state[at + 1 :]


def test_head_of_the_saved_form_is_fixed():
    state = join_to_bytes(Bench().join)
    magic, version, header, body = struct.unpack_from("<8sIIQ", state)
    assert (magic, version) == (b"FRSHJOIN", 1)
    assert len(state) == 24 + header + body + 16
