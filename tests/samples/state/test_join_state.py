"""The stored state of the join: it is restored, follows the configuration, and is refused if it is damaged."""

from dataclasses import replace
from itertools import pairwise

import pyarrow as pa
import pytest

from pipeline.errors import DamagedError, MigrationError
from pipeline.formats.container import Container
from pipeline.logs.events.sample_block import sample_schema
from pipeline.samples.state import state_files
from pipeline.samples.state.restore import load_join, load_summary
from pipeline.samples.state.segment_codec import cut
from pipeline.samples.state.snapshot import HEAD, take_snapshot
from tests.support.join_bench import Bench, S, W, config_of
from tests.support.world.join_state import decode_join, encode_join, save_join


def test_state_is_restored_from_its_bytes():
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


def test_the_summary_needs_only_the_head():
    bench = Bench()
    for item in (1, 2, 3):
        bench.impression(S + item, item=item)
    bench.click(S + 5, item=2)
    bench.click(S + 6, item=9)
    bench.finish()
    summary = load_summary(
        bench.config, 0, bench.partitions, Container.of(save_join(bench.join).head, HEAD, name="head")
    )
    join = bench.join
    assert (summary.held, summary.pending, summary.undecided) == (
        len(join.held),
        join.pending,
        join.undecided,
    )
    assert summary.held == 3
    assert summary.pending + summary.undecided > 0
    assert summary.progress.to_json() == join.progress.to_json()
    assert summary.counts == join.counts.to_json()


def test_counts_continue_from_the_state_and_from_what_was_emitted_since():
    bench = Bench()
    bench.impression(S)
    bench.click(S + 5)
    bench.click(S + 6)
    bench.finish()
    state, emitted_to = encode_join(bench.join), len(bench.samples)
    bench.impression(S + 7, item=2)
    bench.watermark(S + W + 100)
    join = decode_join(bench.config, 0, bench.partitions, state)
    assert join.counts.to_json()["clicks"] == {"duplicate_click": 1, "positive": 1}
    since = pa.RecordBatch.from_pylist(bench.samples[emitted_to:], schema=sample_schema(bench.config))
    join.restore_emitted([since])
    assert join.counts.to_json() == bench.join.counts.to_json()
    assert bench.join.counts.to_json()["clicks"]["negative"] == 1


def test_state_gains_and_loses_columns_with_the_configuration():
    bench = Bench()
    bench.impression(S)
    bench.finish()
    state = encode_join(bench.join)
    columns = {"request": "string", "item": "int", "tags": "strings", "colour": "string"}
    config = config_of(events={"impressions": {"columns": columns}})
    join = decode_join(config, 0, bench.partitions, state)
    bench.config, bench.join = config, join
    sample = bench.watermark(S + W).samples[0]
    assert (sample["tags"], sample["colour"]) == (["a", "b"], None)
    assert "price" not in sample


def test_state_of_another_join_key_is_refused():
    state = encode_join(Bench().join)
    config = config_of()
    config = config.model_copy(update={"events": config.events.model_copy(update={"key": ("item",)})})
    with pytest.raises(MigrationError, match=r"was made with .*request.* hint"):
        decode_join(config, 0, {"impressions": 1, "clicks": 1}, state)


def test_damage_anywhere_in_the_state_is_refused():
    bench = Bench()
    bench.impression(S)
    bench.finish()
    state = encode_join(bench.join)
    assert len(state) == 2
    for number, part in enumerate(state):
        for damaged in (b"", part[:-1], part + b"x", part[:40], *(flip(part, i) for i in range(0, len(part), 97))):
            parts = [*state[:number], damaged, *state[number + 1 :]]
            with pytest.raises(DamagedError, match="shard-state"):
                decode_join(bench.config, 0, bench.partitions, parts, "shard-state")


@pytest.mark.parametrize("segments", [0, 2])
def test_segments_that_are_missing_or_left_over_are_damage(segments):
    bench = Bench()
    bench.impression(S)
    bench.finish()
    head, segment = encode_join(bench.join)
    with pytest.raises(DamagedError, match="shard-state"):
        decode_join(bench.config, 0, bench.partitions, [head, *[segment] * segments], "shard-state")


def flip(state, at):
    return state[:at] + bytes([state[at] ^ 1]) + state[at + 1 :]


def test_head_and_segments_are_containers_of_two_kinds():
    bench = Bench()
    bench.impression(S)
    bench.finish()
    head, segment = encode_join(bench.join)
    assert (head[:12], segment[:12]) == (b"SPRINGTDjoin", b"SPRINGTDrows")
    stored = Container.of(head, HEAD, name="head")
    assert stored.sections == [
        "flags", "pending", "pending_columns", "candidates", "candidates_columns", "links", "emitted",
    ]  # fmt: skip
    assert sorted(stored.header) == ["buckets", "counts", "keyed", "progress", "segments", "shard"]
    with pytest.raises(DamagedError, match=r"begins with b'SPRINGTDrows' .*, wanted b'SPRINGTDjoin'.* hint: .*delete"):
        decode_join(bench.config, 0, bench.partitions, [segment, segment])


def test_stored_segments_are_not_written_again_and_later_changes_are_stored(tmp_path):
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
    bench.join = load_join(bench.config, 0, bench.partitions, *state_files.read_shard(tmp_path, second))
    bench.click(S + 7, item=3)
    bench.watermark(S + W + 7)
    assert sorted(s["item"] for s in bench.samples if s["kind"] == "negative") == [*range(3), *range(4, 41)]
    assert bench.reasons == ["duplicate_click"]


def saved_in(folder, bench, before):
    bench.finish()
    state = take_snapshot(bench.join, state_files.segment_names(before))
    file = state_files.write_shard(folder, f"{0 if before is None else 1}.join", state, (0, 0))
    state_files.write_state_manifest(folder, state_files.StateManifest(1, {}, (file,)))
    return file


def test_a_failed_save_does_not_affect_the_next():
    bench = Bench()
    bench.impression(S)
    bench.finish()
    lost = save_join(bench.join)
    again = save_join(bench.join, frozenset())
    assert again.new == lost.new
    assert save_join(bench.join, {segment.name for segment in again.segments}).new == {}


def test_segments_that_no_round_names_are_deleted(tmp_path):
    bench = Bench()
    bench.impression(S)
    file = saved_in(tmp_path, bench, None)
    (path,) = tmp_path.glob("*.rows")
    bench.watermark(S + 100 * W)
    assert saved_in(tmp_path, bench, file).segments == ()
    assert not path.exists()


@pytest.mark.parametrize("name", ["\ud800", "a\0b", "\n", "é", "../0", "/0"])
def test_a_segment_whose_name_is_no_file_of_the_folder_is_damage(tmp_path, name):
    bench = Bench()
    bench.impression(S)
    file = saved_in(tmp_path, bench, None)
    segments = (replace(file.segments[0], name=name),)
    state_files.write_state_manifest(tmp_path, state_files.StateManifest(1, {}, (replace(file, segments=segments),)))
    with pytest.raises(DamagedError, match="it names a file that is not one of this folder"):
        state_files.read_state_manifest(tmp_path)


def test_a_missing_or_foreign_segment_is_named(tmp_path):
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
        with pytest.raises(DamagedError, match=f"{path.name} (is damaged: it has 1 rows|is missing).* hint: delete"):
            load_join(bench.config, 0, bench.partitions, *state_files.read_shard(tmp_path / "one", file))


def test_many_rounds_leave_a_logarithmic_number_of_segments():
    stops, written = [], 0
    for rows in range(100, 100_100, 100):
        before = set(pairwise([0, *stops]))
        stops = cut(stops, rows)
        written += sum(stop - first for first, stop in pairwise([0, *stops]) if (first, stop) not in before)
        assert stops[-1] == rows
        assert len(stops) <= 12
    assert written < 12 * 100_000
    assert cut(stops, rows) == stops
