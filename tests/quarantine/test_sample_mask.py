"""Masks of quarantines: ranges, conditions and keys together."""

from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.logs.events.sample_block import sample_schema
from pipeline.quarantine.sample_mask import Choice, SampleMask
from pipeline.versions.ledger.quarantine import ANY_TIME_MS, Quarantine, Selection
from pipeline.versions.store.version_store import VersionStore
from tests.support.manual_clock import ManualClock
from tests.support.world.key_files import CONFIG, file_of

AT_MS = np.array([10, 20, 30, 40])
SAMPLES = pa.RecordBatch.from_pydict(
    {"user": ["u1", "u2", "u1", None], "device": pa.array([1, 1, 2, 1], pa.uint64()), "impression_at": AT_MS}
)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path, CONFIG, ManualClock())


@pytest.fixture
def ledger(project):
    with closing(VersionStore(project)) as store:
        yield store.ledger


def masked(project, ledger):
    return SampleMask.of(project, ledger.quarantines.active(0)).excluded(SAMPLES, AT_MS, 5).tolist()


def add(project, ledger, choice, times_ms=ANY_TIME_MS):
    choice.store(project)
    return ledger.quarantines.add(Quarantine(0, "bots", times_ms, selection=choice.selection))


def test_a_condition_excludes_the_samples_of_its_times_alone(project, ledger):
    add(project, ledger, Choice.read(CONFIG, "device = 1", None), (20, 40))
    assert masked(project, ledger) == [False, True, False, False]


def test_a_condition_and_keys_exclude_what_fulfils_both(tmp_path, project, ledger):
    add(project, ledger, Choice.read(CONFIG, "device = 1", ("user", file_of(tmp_path, "u1\n"))))
    assert masked(project, ledger) == [True, False, False, False]


def test_several_quarantines_exclude_what_any_of_them_does(tmp_path, project, ledger):
    add(project, ledger, Choice.read(CONFIG, None, ("user", file_of(tmp_path, "u1\n"))), (20, 40))
    add(project, ledger, Choice.read(CONFIG, "user is null", None))
    ledger.quarantines.add(Quarantine(0, "early", times_ms=(0, 11)))
    ledger.quarantines.add(Quarantine(0, "row", positions=((5, 1), (5, 2)), shard=0))
    assert masked(project, ledger) == [True, True, True, True]
    ledger.quarantines.remove(4)
    assert masked(project, ledger) == [True, False, True, True]


def test_the_ledger_returns_the_selection_that_was_added(tmp_path, project, ledger):
    choice = Choice.read(CONFIG, "user = 'ü' and device != 3", ("user", file_of(tmp_path, "u1\n")))
    id = add(project, ledger, choice)
    assert ledger.quarantines.get(id).selection == choice.selection
    assert [entry.selection for entry in ledger.quarantines.all()] == [choice.selection]
    assert ledger.quarantines.active(7).ids() == [id]


def test_a_mask_does_not_read_again_what_the_one_before_has_read(tmp_path, project, ledger):
    add(project, ledger, Choice.read(CONFIG, None, ("user", file_of(tmp_path, "u1\n"))))
    before = SampleMask.of(project, ledger.quarantines.active(0))
    [stored] = (project.versions / "quarantine").iterdir()
    stored.unlink()
    again = SampleMask.of(project, ledger.quarantines.active(0), before)
    assert again.excluded(SAMPLES, AT_MS, 5).tolist() == [True, False, True, False]


def test_a_quarantine_that_does_not_fit_the_configuration_is_named_with_the_way_out(project, ledger):
    id = ledger.quarantines.add(Quarantine(0, "bots", ANY_TIME_MS, selection=Selection("campaign = 'x'")))
    problem = f"quarantine {id} cannot be applied: condition, character 1: got campaign, column campaign does not exist"
    with pytest.raises(InputError, match=problem) as refused:
        SampleMask.of(project, ledger.quarantines.active(0))
    assert str(refused.value).endswith(f"; or run: springtide quarantine remove {id}")
    ledger.quarantines.remove(id)
    assert masked(project, ledger) == [False] * 4


def test_a_selection_of_offsets_is_refused(ledger):
    entry = Quarantine(0, "bots", positions=((0, 0), (1, 0)), shard=0, selection=Selection("device = 1"))
    with pytest.raises(InputError, match="takes times and no offsets"):
        ledger.quarantines.add(entry)


def test_every_column_of_samples_may_stand_in_a_condition():
    for field in sample_schema(CONFIG):
        if not pa.types.is_nested(field.type):
            assert Choice.read(CONFIG, f"{field.name} is null", None)
