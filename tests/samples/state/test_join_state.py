"""The join's saved form: comes back, changes with the configuration, is refused where it is damaged."""

import struct
from itertools import pairwise

import pytest

from pipeline.errors import DamagedError, MigrationError
from pipeline.samples.state import state_files
from pipeline.samples.state.segment_codec import cut
from pipeline.samples.state.snapshot import (
    join_from_bytes,
    join_to_bytes,
    load_join,
    load_summary,
    save_join,
    take_snapshot,
)
from tests.support.join_bench import Bench, S, W, config_of


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


def test_the_head_alone_tells_where_the_join_stands():
    bench = Bench()
    for item in (1, 2, 3):
        bench.impression(S + item, item=item)
    bench.click(S + 5, item=2)
    bench.click(S + 6, item=9)
    bench.finish()
    standing = load_summary(bench.config, 0, bench.partitions, [("head", save_join(bench.join).head)])
    join = bench.join
    assert (standing.held, standing.pending, standing.candidates) == (
        len(join.held),
        len(join.pending),
        len(join.candidates),
    )
    assert standing.held == 3
    assert standing.pending + standing.candidates > 0
    assert standing.progress.to_json() == join.progress.to_json()


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
    assert (magic, version) == (b"FRSHJOIN", 2)
    assert len(state) == 24 + header + body + 16


def test_what_was_written_is_not_written_again_and_what_changed_since_is_kept(tmp_path):
    bench = Bench()
    for item in range(40):
        bench.impression(S, item=item)
    first = saved_in(tmp_path, bench, None)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.rows")}
    bench.click(S + 5, item=3)
    bench.impression(S + 6, item=40)
    bench.finish()
    second = saved_in(tmp_path, bench, first)
    new = {path.name for path in tmp_path.glob("*.rows")} - set(before)
    assert len(new) == 1
    assert len(second.segments) == 2
    assert all((tmp_path / name).read_bytes() == value for name, value in before.items())
    bench.join = load_join(bench.config, 0, bench.partitions, state_files.read_shard(tmp_path, second))
    bench.click(S + 7, item=3)
    bench.watermark(S + W + 7)
    assert sorted(s["item"] for s in bench.samples if s["kind"] == "negative") == [*range(3), *range(4, 41)]
    assert bench.reasons == ["duplicate_click"]


def saved_in(folder, bench, before):
    bench.finish()
    state = take_snapshot(bench.join, state_files.segment_names(before))
    file = state_files.write_shard(folder, f"{0 if before is None else 1}.join", state, (0, 0))
    state_files.write_round_manifest(folder, state_files.RoundManifest(1, {}, (file,)))
    return file


def test_a_save_that_failed_leaves_nothing_out_of_the_next():
    bench = Bench()
    bench.impression(S)
    bench.finish()
    lost = save_join(bench.join)
    again = save_join(bench.join, frozenset())
    assert again.new == lost.new
    assert save_join(bench.join, {segment.name for segment in again.segments}).new == {}


def test_segments_no_round_names_any_more_are_gone(tmp_path):
    bench = Bench()
    bench.impression(S)
    file = saved_in(tmp_path, bench, None)
    (path,) = tmp_path.glob("*.rows")
    bench.watermark(S + 100 * W)
    assert saved_in(tmp_path, bench, file).segments == ()
    assert not path.exists()


def test_a_segment_that_is_missing_or_anothers_is_named(tmp_path):
    bench = Bench()
    bench.impression(S)
    file = saved_in(tmp_path / "one", bench, None)
    other = Bench()
    other.impression(S, item=2)
    saved_in(tmp_path / "other", other, None)
    (path,), (others,) = (tmp_path.glob(f"{name}/*.rows") for name in ("one", "other"))
    for value in (others.read_bytes(), None):
        path.unlink()
        if value is not None:
            path.write_bytes(value)
        with pytest.raises(DamagedError, match=f"{path.name} (has 1 rows|is missing).* hint: delete"):
            load_join(bench.config, 0, bench.partitions, state_files.read_shard(tmp_path / "one", file))


def test_rounds_without_number_leave_a_logarithm_of_segments():
    stops, written = [], 0
    for rows in range(100, 100_100, 100):
        before = set(pairwise([0, *stops]))
        stops = cut(stops, rows)
        written += sum(stop - first for first, stop in pairwise([0, *stops]) if (first, stop) not in before)
        assert stops[-1] == rows
        assert len(stops) <= 12
    assert written < 12 * 100_000
    assert cut(stops, rows) == stops
