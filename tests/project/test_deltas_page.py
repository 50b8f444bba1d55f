"""A consumer made from `schemas/deltas.md` alone holds the bytes that the trainer and the replica hold."""

from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest

from pipeline.arrays.keys import combine_keys, hash_column
from pipeline.configuration.config import parse_config
from pipeline.features.plan import FeaturePlan
from pipeline.formats.schemas import load_schema
from pipeline.logs.open import open_log
from pipeline.model.dense import DenseModel
from pipeline.model.network.weights import pack, unpack
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.serving.replica import Replica
from pipeline.versions.deltas.delta import DenseChange, decode_delta, delta_name, encode_delta
from pipeline.versions.deltas.quantizer import decode_rows, encode_rows
from tests.support.page import SCHEMAS, blocks_of_bytes, page, program, rows_of_table, run
from tests.support.shop.shop import WRITTEN, append_samples, make_project, make_samples, train
from tests.support.synthetic.dense_walk import ROUNDED, DenseTrainer
from tests.support.synthetic.trainer import SyntheticTrainer, project_at
from tests.support.world.stored_paths import path_of

PAGE = page("deltas.md")
CODECS = {4: "step4", 8: "step8", 16: "step16", 32: "fp32"}


@pytest.fixture(scope="module")
def consumer():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(SCHEMAS)
        return run(PAGE, "stream", "dense", "consumer", "numbers", "keys")


def test_the_consumer_stays_short():
    lines = [line for line in program(PAGE, "consumer").splitlines() if line.strip()]
    assert len(lines) <= 66


def read_partition(log):
    return lambda offset: [(record.offset, record.value) for record in log.read("deltas", 0, offset)]


def assert_holds(consumer, shard, replica):
    """The shard of the page's consumer has the rows, to the bit, and the version of a replica."""
    assert (shard.digest, f"g{shard.version[0]}/s0-of-1/{shard.version[1]}") == (replica.digest(), replica.version)
    for name, rows in shard.fields.items():
        wanted = replica.lookup(name, np.array([key for key, _, _ in rows.values()], np.uint64))
        for (_, bits, payload), row in zip(rows.values(), wanted, strict=True):
            assert consumer["weights"](bits, payload, len(row)).tobytes() == row.tobytes()
        assert len(rows) == len({key for key, _, _ in rows.values()}) == replica.export(name).num_rows


@pytest.mark.parametrize("dense", ["priced", "exact"])
def test_the_consumer_follows_a_real_trainer(consumer, tmp_path, dense):
    project = make_project(tmp_path, WRITTEN | {"publish": WRITTEN["publish"] | {"dense": dense, "loss": 1e-9}})
    with closing(open_log(project)) as log:
        append_samples(log, project, make_samples(1, 1_000))
        train(project, log)
        shard = consumer["Shard"]()
        assert consumer["catch_up"](shard, read_partition(log), 0, path_of(project.published)) == log.end_offset(
            "deltas", 0
        )
        replica = Replica.for_predictions(project, log)
        replica.catch_up()
        assert_holds(consumer, shard, replica)
        assert {"user", "item", "tags"} == set(shard.fields)
        assert min(map(len, shard.fields.values())) > 5
        arrays = consumer["dense_arrays"](shard.dense)
        assert pack(arrays) == (shard.dense if dense == "exact" else pack(unpack(shard.dense)))
        changes = [isinstance(decode_delta(each.value).dense, DenseChange) for each in log.read("deltas", 0, 0)]
        assert changes == [False, *[dense != "exact"] * (len(changes) - 1)]
        weights_of_the_network = DenseModel(project.config, tmp_path)
        weights_of_the_network.load_serving(shard.dense)
        assert list(arrays) == list(unpack(weights_of_the_network.serving_bytes()))


def test_the_consumer_follows_a_rollback_and_heals_gaps_from_files(consumer, tmp_path):
    trainer = SyntheticTrainer(project_at(tmp_path))
    project, log = trainer.project, trainer.log
    live, offset = consumer["Shard"](), 0
    for number in range(12):
        trainer.commit(flush=number % 4 == 3)
        if number in (2, 5, 9):
            trainer.levels.publish_incremental()
        if number % 3 == 0:
            offset = consumer["catch_up"](live, read_partition(log), offset, path_of(project.published))
    late = consumer["Shard"]()
    log.trim("deltas", 0, 8)
    end = consumer["catch_up"](late, read_partition(log), 8, path_of(project.published))
    consumer["catch_up"](live, read_partition(log), offset, path_of(project.published))
    replica = Replica(project, log)
    replica.catch_up()
    assert end == log.end_offset("deltas", 0)
    for shard in (live, late):
        assert_holds(consumer, shard, replica)
    log.create_topic("samples", 1)
    roll_back(project, log, plan_rollback(project, log, to=trainer.commits[6].id))
    consumer["catch_up"](late, read_partition(log), end, path_of(project.published))
    replica.catch_up()
    assert late.version[0] == 1
    assert_holds(consumer, late, replica)
    trainer.close()


def test_a_gap_that_no_file_closes_waits_at_its_offset(consumer, tmp_path):
    trainer = SyntheticTrainer(project_at(tmp_path))
    trainer.run(5)
    trainer.log.trim("deltas", 0, 3)
    shard = consumer["Shard"]()
    assert consumer["catch_up"](shard, read_partition(trainer.log), 3, path_of(trainer.project.published)) == 3
    trainer.levels.publish_full()
    assert consumer["catch_up"](shard, read_partition(trainer.log), 3, path_of(trainer.project.published)) == 5
    assert shard.version == (0, 5)
    trainer.close()


def test_the_test_vectors_are_what_springtide_writes_and_the_consumer_reads(consumer):
    first, second = blocks_of_bytes(PAGE)
    shard = consumer["Shard"]()
    found = []
    for value in (first, second):
        assert encode_delta(decode_delta(value)) == value
        assert value[5:21].hex() == delta_name(value)
        assert f"{len(value)} bytes" in PAGE
        shard.apply(consumer["decode"](value))
        assert f"`{shard.digest}`" in PAGE
        rows = shard.fields["u"].values()
        found.append({key: consumer["weights"](bits, payload, 3).tolist() for key, bits, payload in rows})
        (array,) = consumer["dense_arrays"](shard.dense).values()
        assert array.tolist() == [len(found)]
    big = 2**64 - 1
    assert found[0][7] == [0.5, -1.0, 0.25]
    assert list(found[1]) == [big]
    for each in found:
        assert ", ".join(str(np.float32(weight)) for weight in each[big]) in PAGE


def test_a_changed_bit_is_damage(consumer):
    first, _ = blocks_of_bytes(PAGE)
    for at in range(len(first)):
        changed = bytearray(first)
        changed[at] ^= 1
        with pytest.raises(ValueError, match="damaged"):
            consumer["decode"](bytes(changed))


def test_the_table_of_payloads_is_that_of_the_quantizer(consumer):
    row = np.array([[-0.5, 0.25, 0.1, -0.033, 1.0]], np.float32)
    for number, payload, shown in rows_of_table(PAGE, "| bits | payload | decodes to |"):
        bits = int(number)
        assert encode_rows(row, CODECS[bits]).tobytes().hex() == payload
        decoded = decode_rows(encode_rows(row, CODECS[bits]), CODECS[bits], 5)[0]
        assert ", ".join(map(str, decoded)) == shown
        assert consumer["weights"](bits, bytes.fromhex(payload), 5).tobytes() == decoded.tobytes()


@pytest.mark.parametrize("bits", CODECS)
@pytest.mark.parametrize("dim", [1, 2, 5, 16])
def test_any_row_decodes_to_the_same_floats(consumer, bits, dim):
    rows = np.random.default_rng(dim).standard_normal((50, dim)).astype(np.float32)
    payloads = encode_rows(rows, CODECS[bits])
    decoded = decode_rows(payloads, CODECS[bits], dim)
    mine = np.stack([consumer["weights"](bits, payload.tobytes(), dim) for payload in payloads])
    assert mine.tobytes() == decoded.tobytes()


def test_the_schema_id_is_that_of_the_page():
    assert f"({load_schema('delta').id})" in PAGE


def test_the_table_of_keys_is_that_of_the_features(consumer):
    values = {'"user-7"': "user-7", '""': "", "null": None, "3": 3, "−1": -1, "1.5": 1.5, "−0.0": -0.0, "true": True}
    listed = rows_of_table(PAGE, "| field | value | key |")
    *single, (field, _, crossed) = listed
    seed = consumer["seed_of"](field)
    assert consumer["key_of_cross"](["user-7", 3], seed) == int(crossed)
    parts = [hash_column(pa.array([value]), seed) for value in ("user-7", 3)]
    assert combine_keys(parts, seed).tolist() == [int(crossed)]
    for field, shown, key in single:
        value, seed = values[shown], consumer["seed_of"](field)
        column = pa.array([value], pa.string() if value is None else None)
        assert hash_column(column, seed).tolist() == [int(key)] == [consumer["key_of"](value, seed)], shown


def test_an_unsigned_integer_has_the_key_of_the_long_with_its_bits(consumer):
    assert hash_column(pa.array([2**64 - 1], pa.uint64()), 5).tolist() == [consumer["key_of"](-1, 5)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 2**63 - 1, -(2**63), False, "é" * 50])
def test_other_values_have_the_keys_of_the_page_too(consumer, value):
    assert hash_column(pa.array([value]), 5).tolist() == [consumer["key_of"](value, 5)]


def test_a_fields_keys_are_those_of_its_values_and_crosses(consumer, tmp_path):
    fields = [{"name": "both", "columns": ["user", "id"]}, {"name": "tags", "columns": ["tags"]}]
    plan = FeaturePlan(parse_config(WRITTEN | {"fields": fields}), tmp_path)
    rows = pa.RecordBatch.from_pylist(
        [{"id": 3, "user": "u", "tags": ["a", None]}, {"id": None, "user": "v", "tags": []}]
    )
    features = plan.extract(rows, np.zeros(2, np.int64))
    seed = consumer["seed_of"]("both")
    assert features.keys["both"].keys.tolist() == [consumer["key_of_cross"](v, seed) for v in (["u", 3], ["v", None])]
    seed = consumer["seed_of"]("tags")
    assert features.keys["tags"].keys.tolist() == [consumer["key_of"](value, seed) for value in ("a", None)]
    assert features.keys["tags"].offsets.tolist() == [0, 2, 2]


def test_the_consumer_follows_changes_of_dense_weights(consumer, tmp_path):
    trainer = DenseTrainer(project_at(tmp_path, publish=ROUNDED))
    trainer.run(9)
    shard = consumer["Shard"]()
    consumer["catch_up"](shard, read_partition(trainer.log), 0, path_of(trainer.project.published))
    assert shard.dense == trainer.publisher.served_dense
    found, wanted = consumer["dense_arrays"](shard.dense), unpack(shard.dense)
    assert [(name, array.tobytes()) for name, array in found.items()] == [(n, a.tobytes()) for n, a in wanted.items()]
    trainer.close()
