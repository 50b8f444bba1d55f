"""A shard that holds some of the tables: every path of deltas, and what does not belong to the version is found."""

from dataclasses import replace

import pytest

from pipeline.errors import DeltaError
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.serving.export import served_table
from pipeline.serving.served_shard import DeltaStatus, ServedShard
from pipeline.versions.deltas.delta import Delta, decode_delta, delta_name, encode_delta
from pipeline.versions.deltas.published_files import delta_manifest_files, read_delta_manifest, read_published
from tests.support.synthetic.trainer import DIMS, SyntheticTrainer, project_at


@pytest.fixture
def trainer(tmp_path):
    trainer = SyntheticTrainer(project_at(tmp_path))
    yield trainer
    trainer.close()


@pytest.fixture
def users():
    return ServedShard(0, 1, DIMS, held={"user"})


def apply(shard: ServedShard, encoded: bytes) -> None:
    delta, name = decode_delta(encoded), delta_name(encoded)
    assert shard.check(delta, name) is DeltaStatus.APPLICABLE
    shard.switch(shard.stage(delta, name), lambda dense: None)


def assert_holds_the_users_of(trainer: SyntheticTrainer, shard: ServedShard) -> None:
    assert list(shard.views) == ["user"]
    assert served_table([shard.views["user"]]).equals(served_table([trainer.publisher.views["user"]]))
    assert shard.digest == shard.scan_digest() == trainer.publisher.served_digest
    assert shard.dense == b""


def file_of(trainer: SyntheticTrainer, level: str) -> bytes:
    (file,) = [f for f in delta_manifest_files(trainer.project.published, 0, 1) if f.base.startswith(level)]
    return read_published(file, read_delta_manifest(file))[1]


def test_realtime_deltas_leave_the_rows_of_the_table_that_is_held(trainer, users):
    for number in range(8):
        trainer.commit(flush=number == 5)
        apply(users, trainer.commits[-1].prepared.encoded)
        assert_holds_the_users_of(trainer, users)


def test_an_incremental_and_a_full_leave_the_same_rows(trainer, users):
    trainer.run(3)
    trainer.levels.publish_full()
    apply(users, file_of(trainer, "full"))
    assert_holds_the_users_of(trainer, users)
    trainer.run(4)
    trainer.levels.publish_incremental()
    apply(users, file_of(trainer, "incremental"))
    assert_holds_the_users_of(trainer, users)


def test_a_reverse_delta_leads_back_to_the_rows_of_its_target(trainer, users):
    trainer.log.create_topic("samples", 1)
    trainer.run(2)
    wanted = served_table([trainer.publisher.views["user"]])
    digest = trainer.publisher.served_digest
    trainer.run(3)
    for commit in trainer.commits:
        apply(users, commit.prepared.encoded)
    roll_back(trainer.project, trainer.log, plan_rollback(trainer.project, trainer.log, to=trainer.commits[1].id))
    (file,) = [f for f in delta_manifest_files(trainer.project.published, 0, 1) if f.base.startswith("reverse")]
    apply(users, read_published(file, read_delta_manifest(file))[1])
    assert users.digest == users.scan_digest() == digest
    assert served_table([users.views["user"]]).drop_columns(["handle"]).equals(wanted.drop_columns(["handle"]))


def changed(delta: Delta, table: str) -> Delta:
    """With one byte of a row of `table` changed, and all digests left as they are."""
    payload = delta.fields[table].payload.copy()
    payload[-1] ^= 1
    return replace(delta, fields=delta.fields | {table: replace(delta.fields[table], payload=payload)})


def refusal(shard: ServedShard, delta: Delta) -> str:
    encoded = encode_delta(delta)
    with pytest.raises(DeltaError) as caught:
        shard.stage(decode_delta(encoded), delta_name(encoded))
    return str(caught.value)


def test_a_wrong_row_of_a_held_table_is_found(trainer, users):
    trainer.run(2)
    apply(users, trainer.commits[0].prepared.encoded)
    assert "would result in served digest" in refusal(users, changed(trainer.commits[1].prepared.delta, "user"))
    assert users.sequence == 1
    apply(users, trainer.commits[1].prepared.encoded)


def test_a_row_of_another_table_is_not_read(trainer, users):
    trainer.run(1)
    apply(users, encode_delta(changed(trainer.commits[0].prepared.delta, "item")))
    assert_holds_the_users_of(trainer, users)


def test_a_wrong_digest_of_another_table_is_found(trainer, users):
    trainer.run(1)
    delta = trainer.commits[0].prepared.delta
    wrong = replace(delta, digests=delta.digests | {"item": delta.digests["item"] ^ 1})
    assert "would result in served digest" in refusal(users, wrong)


def test_wrong_dense_weights_are_found(trainer, users):
    trainer.run(1)
    assert "would result in served digest" in refusal(users, replace(trainer.commits[0].prepared.delta, dense=b"other"))


def test_a_delta_with_another_dim_in_a_table_that_is_not_held_is_refused(trainer):
    shard = ServedShard(0, 1, DIMS | {"item": 5}, held={"user"})
    trainer.run(1)
    encoded = trainer.commits[0].prepared.encoded
    with pytest.raises(DeltaError, match="dim 8 in item, the configuration has 5"):
        shard.check(decode_delta(encoded), delta_name(encoded))


def test_a_delta_carries_the_digest_of_every_table(trainer):
    trainer.run(3)
    digests = {name: view.digest() for name, view in trainer.publisher.views.items()}
    assert decode_delta(trainer.commits[-1].prepared.encoded).digests == digests
    assert digests["item"] != digests["user"]
