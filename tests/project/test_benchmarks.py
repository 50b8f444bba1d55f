"""The benchmarks still run: tiny sizes, no figure is judged."""

import json
from importlib import import_module

import numpy as np
import pytest

from pipeline.features.plan import FeaturePlan
from pipeline.logs.events.sample_block import decode_sample_block, impression_times
from pipeline.logs.open import open_log
from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import peers
from tests.benchmarks.harness.isolated import one_round
from tests.benchmarks.harness.report import Figure, Result, print_missed, print_results, write_results
from tests.benchmarks.load.histories import append_histories, history_project


def test_a_small_join_is_measured_with_its_sizes_and_units():
    through_beam, alone, rebuilt, *_ = one_round("stages.join", quick=True)
    assert through_beam.unit == alone.unit == "events/s"
    assert through_beam.value > 0
    assert through_beam.sizes["events"] == alone.sizes["events"] > 40_000
    assert 0 < alone.sizes["peak held impressions"] <= 40_000
    assert rebuilt.value > 0


def test_tiers_are_measured_on_a_small_stream():
    rate, memory, digest = one_round("rows.tiers", quick=True)
    assert digest.value == 1
    assert 0.2 < rate.sizes["cold share"] < 0.8
    assert rate.sizes["cold reads a batch"] > 0
    assert rate.sizes["prepare misses"] == 0
    assert rate.value > 0
    assert memory.value > 0


def test_late_rows_are_measured_on_a_small_market_and_stream():
    loss, growing, warm = one_round("stages.pipeline_depth", quick=True)
    assert 0 < abs(loss.value) < 5
    assert growing.value > 0
    assert warm.value > 0
    assert warm.sizes["core-ms outside TensorFlow"] > 0


def test_a_restart_is_measured_on_a_small_version():
    half, resident = one_round("rows.restart", quick=True)
    for figure in (half, resident):
        assert 0 < figure.sizes["opened s"] < figure.value <= figure.sizes["everything s"]
    assert half.sizes["cold rows"] > 0 == resident.sizes["cold rows"]


def test_two_towers_are_measured_on_a_small_market():
    figures = {figure.what: figure.value for figure in one_round("models.two_towers", quick=True)}
    assert all(0 < value < 1 for what, value in figures.items() if "over plain" not in what)
    assert len(figures) == 8


def test_recall_is_measured_on_a_small_market():
    figures = {figure.what.partition(", ")[2]: figure for figure in one_round("models.market_recall", quick=True)}
    arms = [figures[name] for name in ("two towers", "scan and scorer", "tree, trained", "tree, means")]
    assert all(0 < arm.value < 1 and arm.sizes["cpu ms a user"] > 0 for arm in arms)
    assert figures["scan and scorer over two towers"].unit == "%"


def test_training_for_few_bits_is_measured_on_a_small_market():
    figures = {figure.what.rpartition("precision, ")[2]: figure for figure in one_round("models.few_bits", quick=True)}
    assert abs(figures["rounded afterwards: 8 bits"].value) < 0.1
    assert figures["trained: 4 bits"].sizes["rows rounded"] == 1
    half = figures["trained: ternary on half the rows"]
    assert 0.2 < half.sizes["rows rounded"] < 0.8
    assert half.sizes["bytes a row"] < figures["trained: 4 bits"].sizes["bytes a row"]


def test_published_bytes_are_measured_on_a_small_stream():
    figures = {figure.what: figure for figure in one_round("models.published_bytes", quick=True)}
    smaller = [figures[f"published bytes, loss {loss}: smaller than fp32"] for loss in ("0.0001", "0.0005")]
    assert smaller[1].value > smaller[0].value > smaller[0].sizes["int8 Parquet smaller"] > 1
    assert all(figure.value > 0 for what, figure in figures.items() if "predicted" in what)
    size = {what.split(" as ")[1].split()[0]: figure.value for what, figure in figures.items() if " as " in what}
    assert size["fp32"] > size["fp16"] > size["int8"] > size["codebook8"] > size["int4"] > size["codebook4"]


def test_choices_of_rows_are_compared_at_no_more_bytes_than_the_price_sends():
    price, *others = one_round("models.row_choice", quick=True)
    assert [figure.what.split(":")[0] for figure in others] == ["row choice, Taylor", "row choice, signed"]
    for other in others:
        assert 0.5 < other.sizes["bytes over those of the price"] <= 1.01
        assert other.sizes["measured %"] > price.sizes["measured %"] > 0


def test_published_streams_are_measured_with_their_dense_weights():
    figures = {figure.what: figure for figure in one_round("models.published_streams", quick=True)}
    for stream in ("26 fields", "market"):
        priced, exact = (
            figures[f"published, {stream}, dense {dense}: smaller than fp32"] for dense in ("priced", "exact")
        )
        assert priced.value > exact.value > 1
        assert 0 < priced.sizes["dense"] < exact.sizes["dense"] / 2
        assert figures[f"published, {stream}, dense priced: predicted over measured loss"].value > 0


def test_the_quantizer_is_measured_in_rates_and_errors():
    figures = {figure.what: figure for figure in one_round("rows.quantizer", quick=True)}
    assert figures["quantizer: encode int4"].value > 0
    assert 2e-3 < figures["quantizer: error int4, normal rows"].value < 4e-3
    own, shared = (
        figures["quantizer: error int4, normal rows"],
        figures["quantizer: error codebook of 4 bits, normal rows"],
    )
    assert own.value < shared.value < 1.3 * own.value


def test_the_codec_of_deltas_is_measured_in_bytes_and_rates():
    figures = {figure.what: figure for figure in one_round("rows.codec", quick=True)}
    difference = figures["codec: difference"]
    assert difference.value < difference.sizes["zstd and varints"]
    assert figures["codec: encode"].value > 0
    assert figures["codec: apply"].value > 0


def test_an_absent_peer_gives_a_reason_and_nothing_else(capsys):
    absent = peers.Installed("absent", "no_such_module", "apt-get install it")
    assert peers.run(absent, "torch_sparse_trainer", steps=1) is None
    assert "has no no_such_module. hint: apt-get install it" in capsys.readouterr().err


def test_a_peer_that_fails_gives_its_last_words(capsys):
    assert peers.run(peers.Installed("system", "json", ""), "no_such_script") is None
    assert "peer no_such_script is not measured: no_such_script ended with 2: " in capsys.readouterr().err


def test_a_ratio_is_the_median_of_the_ratios_within_each_round(tmp_path):
    figure = Figure("x", 3.0, "rows/s", least_ratio=0.5)
    result = Result(figure, values=[1.0, 2.0, 30.0], peers=[1.0, 8.0, 60.0])
    assert (result.value, result.ratio, result.met) == (2.0, 0.5, True)
    written = json.loads(write_results([result], tmp_path).read_text())["results"][0]
    assert (written["ratio"], written["met"], written["target"]) == (0.5, True, ">= 0.5 x peer")


def test_a_target_is_missed_by_the_least_bit():
    assert Result(Figure("x", 1.0, "ms", most=20.0), [20.0], [1.0]).met
    assert Result(Figure("x", 1.0, "ms", most=20.0), [20.1], [1.0]).met is False
    assert Result(Figure("x", 1.0, "rows/s", least=100.0), [99.9], [1.0]).met is False
    assert Result(Figure("x", 1.0, "rows/s"), [1.0], [1.0]).met is None


@pytest.mark.parametrize("number", [np.float64, np.float32, np.int64, float])
def test_figures_in_numbers_of_numpy_are_judged_printed_and_written(tmp_path, capsys, number):
    figures = [
        Figure("missed", number(2), "ms", {"rows": np.int64(7), "full": np.bool_(True)}, most=number(1)),
        Figure("reached", number(2), "rows/s", {"sizes": np.arange(2)}, least=number(1)),
        Figure("ratio", number(2), "rows/s", {"folder": tmp_path}, least_ratio=number(3)),
    ]
    results = [Result(figure, [number(2)], [number(1)]) for figure in figures]
    assert [result.met for result in results] == [False, True, False]
    assert all(type(result.met) is bool for result in results)
    print_results(results)
    assert capsys.readouterr().out.count("MISSED") == 2
    written = json.loads(write_results(results, tmp_path).read_text())["results"]
    assert [(row["value"], row["peer"], row["met"]) for row in written] == [(2, 1, False), (2, 1, True), (2, 1, False)]
    assert written[0]["sizes"] == {"rows": 7, "full": True}


def test_a_run_ends_with_what_failed_and_what_missed_its_target(capsys):
    results = [
        Result(Figure("rate", 2.0, "rows/s", least_ratio=3.0), [2.0], [1.0]),
        Result(Figure("time", 2.0, "ms", most=2.0), [2.0], [1.0]),
        Result(Figure("size", 2.0, "bytes"), [2.0], [1.0]),
    ]
    print_missed(results, ["join"])
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "1 of 2 targets met"
    assert table[1].split() == ["FAILED", "join:", "its", "error", "is", "printed", "above"]
    assert table[2].split() == ["MISSED", "rate", "2.000", "x", "peer", "target", ">=", "3", "x", "peer"]
    assert table[3:] == [""]


def test_a_benchmark_that_fails_loses_nothing_that_was_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmarks, "NATIVE", ("keys", "no_such_part"))
    assert (
        benchmarks.main(
            ["--quick", "--rounds", "1", "--out", str(tmp_path), "--only", "keys", "--only", "no_such_part"]
        )
        == 2
    )
    written = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [row["what"] for row in written]
    assert "FAILED  no_such_part" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["keys", "unique", "sketch"])
def test_a_native_part_is_measured_beside_its_peer(name):
    results = import_module(f"tests.benchmarks.native.{name}").measure(quick=True, rounds=1)
    rates = [result for result in results if result.figure.unit.endswith("/s")]
    assert rates
    assert all(result.value > 0 and result.peers[0] > 0 for result in rates)


def test_the_scan_index_is_measured_beside_exact_searches():
    measured = import_module("tests.benchmarks.native.recall").measure(quick=True, rounds=1)
    results = {result.figure.what: result for result in measured}
    exact = results["recall: batch 8, beside exact"]
    assert exact.value > 0
    assert exact.peers[0] == max(exact.figure.sizes["NumPy argpartition"], exact.figure.sizes["tf.math.top_k"])
    assert results["recall: of the best 1,000 by float32"].met
    assert results["recall: memory after tenfold churn"].met
    assert results["recall: change"].value > 0


def test_histories_hold_the_rows_that_the_benchmark_counts(tmp_path):
    project = history_project(tmp_path)
    log = open_log(project)
    counted = append_histories(project, log, seed=1, rows=3_000, per_second=50_000, least=0)
    blocks = [decode_sample_block(record.value) for record in log.read("samples", 0, 0)]
    plan = FeaturePlan(project.config, project.root)
    found = [plan.extract(block.batch, impression_times(block.batch)) for block in blocks]
    assert sum(len(field.keys) for each in found for field in each.keys.values()) == counted
    log.close()
