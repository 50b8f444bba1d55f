"""The simulated marketplace: reproducible, with a calibrated ground truth and every configured fault."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import pipeline.market
from pipeline.configuration.config import load_config
from pipeline.configuration.project import Project
from pipeline.demo.evaluation import normalized_entropy
from pipeline.features.plan import FeaturePlan
from pipeline.ingest.event_writer import append_heartbeat
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.dead_letters import read_dead_letters
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.interface.log import read_to_end
from pipeline.logs.open import open_log
from pipeline.market.config import MarketConfig
from pipeline.market.market import FAR_AT_MS, HOUR_MS, Market
from pipeline.market.produce import produce
from pipeline.samples.run.in_process import run_samples
from tests.support.manual_clock import ManualClock

PROJECT = Path(pipeline.market.__file__).parent / "project"
SMALL = MarketConfig(users=500, items=200, impressions_per_hour=5_000, hours=4, late_share=0.01)


def column(batch, name):
    return batch.column(name).to_numpy(zero_copy_only=False)


def genuine(hour, rows):
    """[n] bool: rows of an hour's impressions or clicks that belong to an impression created in this hour."""
    return np.isin(column(rows, "id"), hour.truth.id)


@pytest.fixture(scope="module")
def hours():
    market = Market(7, SMALL)
    return [market.events(hour) for hour in range(SMALL.hours)]


def test_the_same_seed_gives_the_same_hours_in_any_order(hours):
    market = Market(7, SMALL)
    for number in (2, 3, 0, 2):
        again = market.events(number)
        assert again.impressions.equals(hours[number].impressions)
        assert again.clicks.equals(hours[number].clicks)
        assert again.poison == hours[number].poison
        assert np.array_equal(again.truth.probability, hours[number].truth.probability)


def test_another_seed_gives_another_market(hours):
    assert not Market(8, SMALL).events(0).impressions.equals(hours[0].impressions)


@pytest.mark.parametrize("hour", [-1, 4])
def test_an_hour_outside_the_market_is_refused(hour):
    with pytest.raises(ValueError, match=r"outside the market's 0\.\.3"):
        Market(7, SMALL).events(hour)


def test_a_market_may_be_tiny():
    tiny = MarketConfig(users=1, items=1, categories=1, impressions_per_hour=1, hours=2, bot_items=1)
    market = Market(1, tiny)
    ids = [set(column(market.events(h).impressions, "id")) for h in range(2)]
    assert len(ids[0] | ids[1]) >= 2


def test_every_impression_arrives_by_the_end(hours):
    made = np.concatenate([hour.truth.id for hour in hours])
    arrived = np.concatenate([column(hour.impressions, "id") for hour in hours])
    assert len(made) == len(np.unique(made))
    assert set(made) <= set(arrived)


def test_every_click_made_by_the_end_arrives_and_no_other(hours):
    clicked = np.concatenate([hour.truth.id[hour.truth.clicked] for hour in hours])
    made = np.concatenate([hour.truth.id for hour in hours])
    arrived = np.concatenate([column(hour.clicks, "id") for hour in hours])
    known = arrived[np.isin(arrived, made)]
    assert set(known) <= set(clicked)
    assert len(set(known)) > 0.9 * len(clicked)
    orphans = len(arrived) - len(known)
    assert 0 < orphans < 0.01 * len(arrived)


def test_the_ground_truth_is_calibrated_and_has_the_configured_rate():
    market = Market(3, replace(SMALL, impressions_per_hour=100_000, hours=2))
    truth = market.events(0).truth
    assert truth.probability.mean() == pytest.approx(market.config.click_rate, rel=0.05)
    order = np.argsort(truth.probability)
    for part in np.array_split(order, 10):
        expected, count = truth.probability[part].sum(), len(part)
        deviation = np.sqrt((truth.probability[part] * (1 - truth.probability[part])).sum())
        assert abs(truth.clicked[part].sum() - expected) < 4 * deviation, f"{count} impressions"


def test_no_constant_beats_the_exact_probabilities(hours):
    for truth in (hour.truth for hour in hours):
        assert 0.7 < normalized_entropy(truth.probability[~truth.bot], truth.clicked[~truth.bot]) < 0.95
        constant = np.full(len(truth.id), truth.clicked.mean())
        assert normalized_entropy(constant, truth.clicked) == pytest.approx(1.0)


def test_ne_without_clicks_is_not_a_number():
    assert np.isnan(normalized_entropy(np.array([0.1]), np.array([False])))
    assert np.isnan(normalized_entropy(np.zeros(0), np.zeros(0, dtype=bool)))


def lateness_ms(rows):
    """[n] ms that each row is behind the largest event time before it, without misdated rows."""
    at_ms = column(rows, "at")
    at_ms = at_ms[(at_ms > 0) & (at_ms < FAR_AT_MS)]
    return np.maximum.accumulate(at_ms) - at_ms


@pytest.mark.parametrize("name", ["impressions", "clicks"])
def test_events_come_out_of_order_inside_the_disorder_but_for_a_few(hours, name):
    rows = pa.concat_batches([getattr(hour, name) for hour in hours])
    lateness, disorder_ms = lateness_ms(rows), SMALL.disorder_s * 1000
    assert (lateness > disorder_ms / 10).mean() > 0.02
    assert 0 < (lateness >= disorder_ms).mean() < 3 * SMALL.late_share


@pytest.mark.parametrize("name", ["impressions", "clicks"])
def test_without_a_late_share_nothing_is_late(name):
    market = Market(7, replace(SMALL, late_share=0.0))
    rows = pa.concat_batches([getattr(market.events(hour), name) for hour in range(4)])
    assert lateness_ms(rows).max() < SMALL.disorder_s * 1000


def test_arrivals_are_in_order_and_inside_their_hour(hours):
    for hour in hours[:-1]:
        end_ms = SMALL.start_at_ms + (hour.hour + 1) * HOUR_MS
        for arrive_ms, rows in ((hour.impressions_arrive_ms, hour.impressions), (hour.clicks_arrive_ms, hour.clicks)):
            assert len(arrive_ms) == rows.num_rows
            assert np.all(np.diff(arrive_ms) >= 0)
            assert end_ms - HOUR_MS <= arrive_ms[0] <= arrive_ms[-1] < end_ms


def test_duplicates_are_exact(hours):
    rows = pa.concat_batches([hour.impressions for hour in hours]).to_pandas()
    twice = rows[rows.duplicated("id", keep=False)]
    share = len(twice) / 2 / len(rows)
    assert 0.5 * SMALL.duplicate_share < share < 2 * SMALL.duplicate_share
    assert twice.astype(str).drop_duplicates().shape[0] == len(twice) / 2


def test_clicks_fall_inside_the_window_the_horizon_and_beyond():
    market = Market(7, replace(SMALL, impressions_per_hour=50_000, hours=6))
    made = [market.events(hour) for hour in range(6)]
    shown_at = {i: at for hour in made for i, at in zip(hour.truth.id.tolist(), hour.truth.at_ms.tolist(), strict=True)}
    clicks = [row for hour in made for row in hour.clicks.select(["id", "at"]).to_pylist() if row["id"] in shown_at]
    delays_s = np.array([row["at"] - shown_at[row["id"]] for row in clicks]) / 1000
    assert delays_s.min() >= 0
    assert (delays_s < 600).mean() > 0.9
    assert 0.005 < ((delays_s >= 600) & (delays_s < 4200)).mean() < 0.05
    assert 0 < (delays_s >= 4200).mean() < 0.02


def test_some_events_are_dated_2100_or_before_1970(hours):
    at_ms = column(hours[0].impressions, "at")
    assert (at_ms == FAR_AT_MS).sum() >= 1
    assert (at_ms < 0).sum() >= 1
    assert ((at_ms == FAR_AT_MS) | (at_ms < 0)).sum() == pytest.approx(SMALL.misdated_per_hour, abs=1)


def test_items_are_replaced_by_cold_ones(hours):
    first, last = (set(hour.impressions.column("item").to_pylist()) for hour in (hours[0], hours[-1]))
    assert first - last
    assert last - first
    assert len(first & last) > len(last) / 2


def test_probabilities_fall_with_the_position():
    hour = Market(5, replace(SMALL, impressions_per_hour=50_000)).events(0)
    known = {i: p for i, p in zip(hour.truth.id.tolist(), hour.truth.probability.tolist(), strict=True)}
    keep = genuine(hour, hour.impressions)
    position = column(hour.impressions, "position")[keep]
    p = np.array([known[i] for i in column(hour.impressions, "id")[keep].tolist()])
    means = [p[position == n].mean() for n in range(10)]
    assert means == sorted(means, reverse=True)


def test_bots_are_active_in_their_hours_and_click_unappealing_items():
    market = Market(7, replace(SMALL, impressions_per_hour=20_000, bots=(1, 2)))
    before, during, after = (market.events(hour) for hour in range(3))
    assert not before.truth.bot.any()
    assert not after.truth.bot.any()
    bot = during.truth.bot
    assert bot.sum() == 10_000
    assert during.truth.clicked[bot].mean() > 4 * during.truth.clicked[~bot].mean()
    keep = genuine(during, during.impressions)
    rows = during.impressions.filter(pa.array(keep)).to_pandas()
    rows["p"] = rows["id"].map(dict(zip(during.truth.id, during.truth.probability, strict=True)))
    farm = rows["user"].str.startswith("x")
    assert set(rows["id"][farm]) <= set(during.truth.id[bot])
    assert farm.sum() > 0.99 * bot.sum()
    pushed = set(rows["item"][farm & (rows["p"] > 0)])
    honest = rows[~farm]
    assert honest["p"][honest["item"].isin(pushed)].mean() < 0.7 * honest["p"][~honest["item"].isin(pushed)].mean()


def test_an_hour_without_bots_does_not_depend_on_them():
    plain, visited = Market(7, SMALL), Market(7, replace(SMALL, bots=(1, 2)))
    for market in (plain, visited):
        market.events(1)
    assert np.array_equal(plain.events(3).truth.probability, visited.events(3).truth.probability)


def market_project(root: Path) -> Project:
    return Project(root, load_config(PROJECT / "springtide.toml"), ManualClock(SMALL.start_at_ms + 10 * HOUR_MS))


def test_the_log_holds_the_markets_events(tmp_path, hours):
    project = market_project(tmp_path)
    log = open_log(project)
    produce(log, project, Market(7, SMALL), range(4))
    for kind in ("impressions", "clicks"):
        records = log.read(kind, 0, 0)
        decoded = EventCodec(project.config.events, kind, log).decode(records, kind, 0, None)
        rows = pa.concat_batches([getattr(hour, kind) for hour in hours])
        at_ms = column(rows, "at")
        keep = (at_ms > 0) & (at_ms < FAR_AT_MS)
        assert decoded.block.at_ms.tolist() == at_ms[keep].tolist()
        assert decoded.block.columns.equals(rows.drop_columns(["at"]).filter(pa.array(keep)))
        reasons = decoded.dead.table.column("reason").to_pylist()
        assert reasons.count("time_out_of_range") == (~keep).sum()
        assert reasons.count("undecodable") == (sum(len(h.poison) for h in hours) if kind == "impressions" else 0)
        assert decoded.block.watermark_ms >= SMALL.start_at_ms + 4 * HOUR_MS - SMALL.disorder_s * 1000
    log.close()


def test_heartbeats_between_hours_make_nothing_late(tmp_path):
    project = market_project(tmp_path)
    log, market = open_log(project), Market(7, replace(SMALL, late_share=0.0))
    for hour in range(4):
        produce(log, project, market, [hour])
    for kind in ("impressions", "clicks"):
        records = log.read(kind, 0, 0)
        block = EventCodec(project.config.events, kind, log).decode(records, kind, 0, None).block
        assert np.all(block.at_ms >= block.watermarks_ms)
    log.close()


def test_the_project_reads_the_markets_events(hours):
    config = load_config(PROJECT / "springtide.toml")
    assert config.events.disorder_s == MarketConfig().disorder_s
    assert list(config.events.impressions.columns) == hours[0].impressions.schema.names[1:]
    assert list(config.events.clicks.columns) == hours[0].clicks.schema.names[1:]
    rows = hours[0].impressions
    features = FeaturePlan(config, PROJECT).extract(rows.drop_columns(["at"]), column(rows, "at"))
    assert len(np.unique(features.keys["category_hour"].keys)) >= SMALL.categories
    assert len(features.keys["interests"].keys) == len(rows.column("interests").flatten())


@pytest.fixture(scope="module")
def joined(tmp_path_factory, hours):
    """Samples and dead letters of the whole market, all windows closed."""
    project = market_project(tmp_path_factory.mktemp("market"))
    log = open_log(project)
    produce(log, project, Market(7, SMALL), range(4))
    append_heartbeat(project, log, SMALL.start_at_ms + 9 * HOUR_MS)
    run_samples(project, log, until_end=True)
    samples = pa.concat_batches([decode_sample_block(record.value).batch for record in log.read("samples", 0, 0)])
    letters = [read_dead_letters(records).table for records in read_to_end(log, "dead-letters", 0)]
    log.close()
    return samples.to_pandas(), pa.concat_batches(letters).to_pandas()


def test_every_impression_is_one_sample_or_was_late(joined, hours):
    samples, dead = joined
    decided = samples[samples["kind"] != "compensation"]["id"]
    made = {i for hour in hours for i in hour.truth.id.tolist()}
    assert decided.is_unique
    assert set(decided) <= made
    late = dead["reason"].eq("impression_too_late").sum()
    assert 0 <= late - (len(made) - len(decided)) <= late * 0.1  # a late one may have been sent twice


def test_every_label_is_a_click_that_was_made(joined, hours):
    samples, _ = joined
    clicked = {i for hour in hours for i in hour.truth.id[hour.truth.clicked].tolist()}
    positive = samples[samples["label"] == 1]
    assert set(positive["id"]) <= clicked
    assert positive["id"].is_unique
    assert len(positive) > 0.9 * len(clicked)
    assert {"positive", "compensation"} == set(positive["kind"])


def test_every_fault_becomes_a_dead_letter_with_its_reason(joined, hours):
    _, dead = joined
    counts = dead["reason"].value_counts()
    assert counts["undecodable"] == sum(len(hour.poison) for hour in hours)
    assert counts["time_out_of_range"] == pytest.approx(SMALL.misdated_per_hour * SMALL.hours, abs=2)
    assert {"duplicate_impression", "duplicate_click", "orphan_click", "impression_too_late"} <= set(counts.index)


def test_probabilities_of_all_pairs_are_those_of_impressions():
    market = Market(7, SMALL)
    hour = market.events(2)
    table = market.probabilities(2, np.arange(SMALL.users))
    users, items = (
        {name: n for n, name in enumerate(rows.column(0).to_pylist())}
        for rows in (market.users(np.arange(SMALL.users)), market.items(2))
    )
    rows = {row["id"]: row for row in hour.impressions.to_pylist()}
    found = 0
    for id, at_ms, probability in zip(hour.truth.id, hour.truth.at_ms, hour.truth.probability, strict=True):
        row = rows.get(id)
        if row is not None and row["position"] == 0 and at_ms < market.end_at_ms(1) + 60_000:
            assert table[users[row["user"]], items[row["item"]]] == pytest.approx(probability, rel=0.02)
            found += 1
    assert found > 3
