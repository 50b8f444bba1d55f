"""The fuzz targets in Python: each decoder with valid seed inputs and a function that corrects its checksums.

A target processes the decoded value up to the first code that trusts it.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pipeline.admission.sketch import CountingSketch
from pipeline.files.folder import local_file
from pipeline.formats.container import Container
from pipeline.logs.archive.archive_log import ArchiveLog
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.dead_letters import dead_letter_records, dead_letters, read_dead_letters
from pipeline.logs.events.sample_block import decode_sample_block, encode_sample_block
from pipeline.logs.interface.log import Record
from pipeline.logs.kafka.record_batches import decode_record_set
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.model.network import weights
from pipeline.model.network.served_weights import ServedWeights, dense_after
from pipeline.publish.price.dense_weights import PublishedDense
from pipeline.samples.state import state_files
from pipeline.samples.state.segment_codec import SEGMENT, decode_segment
from pipeline.samples.state.snapshot import take_snapshot
from pipeline.serving.served_shard import ServedShard
from pipeline.versions.deltas.delta import DenseChange, decode_delta, encode_delta
from pipeline.versions.deltas.published_files import DeltaManifest, delta_manifest, read_published
from pipeline.versions.store import files
from pipeline.versions.store.version_store import VersionStore
from tests.fuzz import reshape, seals
from tests.logs.events import test_events, test_json_events, test_sample_block
from tests.logs.kafka import test_kafka_records
from tests.support.join_bench import Bench as JoinBench
from tests.support.join_bench import S, W
from tests.support.manual_clock import ManualClock
from tests.support.synthetic.commits import World, project_in
from tests.support.synthetic.dense_walk import COUNT, KERNEL, DenseWalk, publish_dense
from tests.support.world.archive_writer import write_archive
from tests.support.world.join_state import decode_join, encode_join
from tests.versions.deltas import test_delta


@dataclass(frozen=True)
class Target:
    """One decoder.

    Attributes:
        decode: must succeed or raise SpringtideError.
        seeds: complete inputs; the first is valid.
        seal: corrects the checksums.
        reshape: changes the meaning of the input; None if changing bytes is enough.
    """

    decode: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    seal: Callable[[bytes], bytes] = bytes
    reshape: Callable[[bytes, Random], bytes] | None = None


_PASSING = tempfile.TemporaryDirectory(prefix="springtide-fuzz-")
_SCRATCH = Path(_PASSING.name)


def _file(content: bytes, name: str = "input") -> Path:
    path = _SCRATCH / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _delta(encoded: bytes) -> object:
    delta = decode_delta(encoded)
    dims = {name: change.dim for name, change in delta.fields.items()}
    return ServedShard(delta.shard, delta.shards, dims).stage(delta, "fuzzed")


def _world() -> World:
    return World(VersionStore(project_in(Path(tempfile.mkdtemp(dir=_SCRATCH)))), counters=bytearray(64))


def _delta_seeds() -> list[bytes]:
    fields = {"a": test_delta.field_delta(1, dim=1), "b": test_delta.field_delta(2, known=0)}
    return [_world().build().delta, *(encode_delta(test_delta.delta(fields=f)) for f in ({}, fields))]


def _version(content: bytes) -> object:
    path = _file(content)
    files.check_file(local_file(path))
    files.read_touched(local_file(path))
    with Container.open(local_file(path), files.VERSION) as file, file.parsing():
        files.read_served([file])
    return files.read_commit(local_file(path))


def _version_seeds() -> list[bytes]:
    world, written = _world(), []
    for full in (True, False):
        files.write_commit(local_file(path := _SCRATCH / f"version-{full}"), world.build(full, keys=3))
        written.append(path.read_bytes())
    return written


_PUBLISHED = "g2/s0-of-1/realtime-41-42"
"""The place of the published delta: its manifest is refused elsewhere."""


def _published(text: bytes) -> object:
    path = _file(text, f"{_PUBLISHED}.json")
    stored = local_file(path)
    return read_published(stored, DeltaManifest.from_json(path.read_text(encoding="utf-8", errors="replace"), stored))


def _published_seeds() -> list[bytes]:
    encoded = encode_delta(delta := test_delta.delta())
    _file(encoded, f"{_PUBLISHED}.delta")
    return [delta_manifest(delta, encoded, f"{Path(_PUBLISHED).name}.delta").to_json().encode()]


def _samples_seeds() -> list[bytes]:
    blocks = [test_sample_block.block(samples) for samples in ([], [test_sample_block.SAMPLE] * 2)]
    return [encode_sample_block(block) for block in blocks]


def _letters_seeds() -> list[bytes]:
    _, headers = dead_letter_records(dead_letters([test_sample_block.LETTER]), {})
    return [json.dumps(each).encode() for each in headers]


def _letters(headers: bytes) -> object:
    try:
        texts = {str(name): str(text) for name, text in json.loads(headers).items()}
    except (ValueError, AttributeError, RecursionError):
        return None
    return read_dead_letters([Record(0, 0, b"", texts)])


_CODEC = EventCodec(test_events.events(), "impressions", SqliteLog(_SCRATCH / "events", ManualClock(test_events.NOW)))


_JSON_CODEC = test_json_events.codec_for(_SCRATCH / "json")


def _json_seeds() -> list[bytes]:
    return [json.dumps(test_json_events.FULL).encode(), *test_json_events.BAD]


def _record_set_seeds() -> list[bytes]:
    return [test_kafka_records.batch(5, test_kafka_records.some(8), codec) for codec in ("plain", "lz4", "zstd")]


def _events_seeds() -> list[bytes]:
    batch = test_events.batch([5, None, 10**9], tags=[["a"], None, []])
    event = test_events.event(_CODEC, 500, price=1.5, seen=True, tags=["x", "y"])
    return [_CODEC.encode_block(batch), event, _CODEC.encode_heartbeat(700)]


def _dense(value: bytes) -> object:
    return weights.unpack(value), ServedWeights.of(value).packed()


_WALK, _DENSE = DenseWalk(), PublishedDense(b"")
_SERVED = publish_dense(_DENSE, _WALK.trained(), 0.05).served


def _change_seeds() -> list[bytes]:
    _WALK.step()
    changed = publish_dense(_DENSE, _WALK.trained(), 0.05).sent
    assert isinstance(changed, DenseChange)
    return [changed.blocks, b""]


def _dense_seeds() -> list[bytes]:
    import numpy as np

    cut = ServedWeights.of(_SERVED).cut_to({KERNEL, COUNT}).packed()
    return [weights.pack({}), weights.pack({"a": np.ones((2, 3), np.float32), "b": np.arange(4)}), _SERVED, cut]


def _sketch_seeds() -> list[bytes]:
    import numpy as np

    sketch = CountingSketch(16, 2, seed=1)
    empty = sketch.to_bytes()
    sketch.add(np.arange(20, dtype=np.uint64))
    return [empty, sketch.to_bytes()]


def _join_bench() -> JoinBench:
    bench = JoinBench()
    bench.impression(S)
    bench.click(S + 5, item=2)
    bench.click(S + W + 2, item=3)
    bench.finish()
    return bench


_BENCH = _join_bench()


_HEAD, *_SEGMENTS = encode_join(_BENCH.join)


def _join(head: bytes) -> object:
    return encode_join(decode_join(_BENCH.config, 0, _BENCH.partitions, [head, *_SEGMENTS]))


def _segment(encoded: bytes) -> object:
    return decode_segment(Container.of(encoded, SEGMENT, name="segment"))


def _round(text: bytes) -> object:
    _file(text, "ROUND.json")
    manifest = state_files.read_state_manifest(_SCRATCH)
    assert manifest is not None
    return [list(state_files.read_shard(_SCRATCH, shard)[1]) for shard in manifest.shards]


def _round_seeds() -> list[bytes]:
    shard = state_files.write_shard(_SCRATCH, "1.join", take_snapshot(_BENCH.join), (3, 4))
    state_files.write_state_manifest(_SCRATCH, state_files.StateManifest(2, {"samples": "log"}, (shard,)))
    return [(_SCRATCH / "ROUND.json").read_bytes()]


def _archived(content: bytes, path: Path) -> object:
    path.write_bytes(content)
    log = ArchiveLog(_SCRATCH / "archive")
    try:
        return log.read("topic", 0, log.begin_offset("topic", 0))
    finally:
        log.close()


def _archive_seeds(name: str) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        log = SqliteLog(_SCRATCH / "archived", ManualClock(test_events.NOW))
        log.create_topic("topic", 1)
        log.append("topic", 0, [b"one", b"two"])
        write_archive(log, "topic", _SCRATCH / "archive")
        return [(_SCRATCH / "archive" / "topic" / name).read_bytes()]

    return seeds


_ARCHIVE_FILE, _ARCHIVE_CONTENTS = f"0/{0:020}.avro", "topic.json"

TARGETS = {
    "delta": Target(_delta, _delta_seeds, seals.delta),
    "version": Target(_version, _version_seeds, seals.container, reshape.container_header),
    "published": Target(_published, _published_seeds, seals.manifest, reshape.whole_text),
    "samples": Target(decode_sample_block, _samples_seeds, seals.framed("sample_block")),
    "dead_letters": Target(_letters, _letters_seeds, reshape=reshape.whole_text),
    "events": Target(lambda value: test_events.decode(_CODEC, [value, value]), _events_seeds),
    "json_events": Target(lambda value: test_events.decode(_JSON_CODEC, [value, value]), _json_seeds),
    "record_set": Target(lambda value: list(decode_record_set(value, 0)), _record_set_seeds, seals.record_set),
    "dense": Target(_dense, _dense_seeds, seals.container, reshape.container_header),
    "dense_change": Target(lambda value: dense_after(_SERVED, DenseChange(b"", None, value), b""), _change_seeds),
    "sketch": Target(CountingSketch.from_bytes, _sketch_seeds, seals.sketch),
    "join_state": Target(_join, lambda: [_HEAD], seals.container, reshape.container_header),
    "join_segment": Target(_segment, lambda: list(_SEGMENTS), seals.container, reshape.container_header),
    "round": Target(_round, _round_seeds, seals.round_manifest, reshape.whole_text),
    "archive": Target(
        lambda content: _archived(content, _SCRATCH / "archive" / "topic" / _ARCHIVE_FILE),
        _archive_seeds(_ARCHIVE_FILE),
    ),
    "archive_contents": Target(
        lambda content: _archived(content, _SCRATCH / "archive" / "topic" / _ARCHIVE_CONTENTS),
        _archive_seeds(_ARCHIVE_CONTENTS),
        reshape=reshape.whole_text,
    ),
}
