"""Metrics of real processes, scraped over HTTP: they equal the reports, and more keys never add series."""

import json
import signal

import pytest

from pipeline.cli.terminal.options import read_time
from pipeline.configuration.project import Project
from pipeline.publish.price.byte_price import Price
from pipeline.versions.store.version_store import VersionStore
from tests.cli.run.test_cli_follow import request_json, until
from tests.support.command.command_line import feed, make_events, make_shop, springtide, start
from tests.support.command.scrape import declared_names, scrape, url_of

ROWS = 300
FIELDS = {"user", "item", "position", "hour"}
TELEMETRY = "[telemetry]\nport = 0\nevery_s = 0.001"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A shop that was joined and trained while it was scraped: (project, scrape, scrape with new keys, report)."""
    project = make_measured_shop(tmp_path_factory.mktemp("metrics") / "shop")
    feed(project, make_events(1, ROWS))
    running = start(project, "run", "all")
    try:
        url = until(lambda: url_of(project, "all"), running)
        first = until(lambda: settled(url), running)
        more = crowd(make_events(1, ROWS, first=40_000))
        feed(project, more, "more")
        last_s = max(rows["at"].max() for rows in more) / 1000
        second = until(lambda: (s := settled(url)) and watermark_of(s) > last_s and s, running)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=90)
    finally:
        running.kill()
    assert (running.returncode, "Traceback" in err) == (0, False), err
    return project, first, second, json.loads(out)


def make_measured_shop(folder):
    project = make_shop(folder, {"# port = 8501": "port = 0"})
    path = project / "springtide.toml"
    text = path.read_text()
    assert text.count("[telemetry]") == 1
    path.write_text(text.replace("[telemetry]", TELEMETRY))
    return project


def crowd(events):
    """The same events, each with a unique user and item."""
    impressions, clicks = events
    keys = [str(i) for i in range(len(impressions))]
    return impressions.assign(user="new-u" + impressions.index.astype(str), item=keys), clicks


def joined_by(metrics):
    return metrics.all("springtide_join_samples_total")


def watermark_of(metrics):
    """The smallest of all inputs; after the last event only once the heartbeat behind it was read."""
    return min(metrics.all("springtide_join_watermark_timestamp_seconds").values())


def settled(url):
    """A scrape after which everything is joined, trained on, committed and published; else None."""
    metrics = scrape(url)
    learned = metrics("springtide_train_samples_total", shard="0")
    done = (
        not any(metrics.all("springtide_join_lag_records").values())
        and learned == sum(joined_by(metrics).values())
        and learned == metrics("springtide_committed_samples", shard="0")
        and metrics("springtide_commit_seconds_count", shard="0") == metrics("springtide_committed_sequence", shard="0")
    )
    return metrics if done else None


def test_the_join_counts_what_its_report_counts(world):
    _, _, metrics, report = world
    assert metrics.all("springtide_join_events_total") == {"0": report["samples"]["events"]}
    assert {f"{kind} 0": count for kind, count in report["samples"]["samples"].items()} == joined_by(metrics)
    dead = {f"{reason} 0": count for reason, count in report["samples"]["dead_letters"].items()}
    assert metrics.all("springtide_dead_letters_total") == dead
    assert metrics("springtide_join_round_seconds_count") == report["samples"]["rounds"]


def test_the_join_exports_its_state_and_the_progress_of_its_inputs(world):
    project, _, metrics, _ = world
    status = springtide(project, "status")["join"]
    assert metrics("springtide_join_held_impressions", shard="0") == status["held_impressions"]
    assert metrics("springtide_join_pending_clicks", shard="0") == status["pending_clicks"]
    assert metrics("springtide_join_state_bytes", shard="0") == status["bytes"]
    for name, progress in status["inputs"].items():
        topic, _, partition = name.partition("/")
        labels = {"topic": topic, "partition": partition}
        assert metrics("springtide_join_lag_records", **labels) == progress["lag"] == 0
        watermark_s = read_time(progress["watermark"]) / 1000
        assert metrics("springtide_join_watermark_timestamp_seconds", **labels) == watermark_s


def test_the_trainer_exports_what_serving_loses_by_the_price_of_its_version(world):
    project, _, metrics, _ = world
    store = VersionStore(Project.open(project))
    price = Price.of(store.outline(store.current(0)).price)
    store.close()
    assert metrics("springtide_publish_loss_ratio", shard="0", kind="predicted") == price.predicted


def test_the_trainer_exports_the_rows_that_its_version_withholds(world):
    project, _, metrics, _ = world
    store = VersionStore(Project.open(project))
    withheld = store.quality(store.current(0)).withheld
    store.close()
    assert withheld
    for table, rows in withheld.items():
        assert metrics("springtide_withheld_rows", shard="0", table=table) == rows


def test_the_trainer_counts_what_its_report_counts(world):
    _, _, metrics, report = world
    [shard], train = report["train"]["shards"], report["train"]
    assert metrics.all("springtide_train_samples_total") == {"0": train["samples"]}
    assert metrics.all("springtide_train_batches_total") == {"0": train["batches"]}
    assert metrics.all("springtide_train_event_timestamp_seconds") == {"0": read_time(shard["log_time"]) / 1000}
    assert metrics.all("springtide_train_halted") == {"0": 0}


def test_progressive_validation_is_that_of_the_report(world):
    _, _, metrics, report = world
    validation = report["train"]["shards"][0]["validation"]["label"]
    matured = validation["matured"]
    assert [scores["age"] for scores in matured["by_age"]] == ["1m", "10m", "1h"]
    windows = {"all": validation["total"], "hour": validation["windows"][-1], "matured": matured["total"]}
    windows |= {f"matured_at_{scores['age']}": scores for scores in matured["by_age"]}
    windows |= {"matured_last": matured["cohorts"][-1]} if matured["cohorts"] else {}
    for window, scores in windows.items():
        for name in ("log_loss", "normalized_entropy", "calibration"):
            suffix = "_ratio" if name == "calibration" else ""
            shown = metrics(f"springtide_validation_{name}{suffix}", shard="0", label="label", window=window)
            assert shown == pytest.approx(scores[name], rel=1e-12) if scores[name] is not None else shown is None


def test_rows_bytes_and_quantiles_are_exported_by_table(world):
    _, first, metrics, _ = world
    rows = metrics.all("springtide_table_rows")
    assert {name.split()[-1] for name in rows} == FIELDS
    assert metrics.all("springtide_rows_admitted_total") == rows  # nothing has expired
    assert set(metrics.all("springtide_rows_expired_total").values()) == {0}
    assert all(size > 0 for size in metrics.all("springtide_table_bytes").values())
    assert rows["0 item"] > first("springtide_table_rows", table="item", shard="0")
    for name in ("springtide_row_importance", "springtide_row_convergence"):
        spread = [metrics(name, shard="0", table="user", quantile=q) for q in ("0.1", "0.5", "0.9", "0.99")]
        assert spread == sorted(spread)
        assert spread[-1] > 0


def test_every_commit_is_timed_and_its_delta_counted(world):
    _, _, metrics, _ = world
    sequence = metrics("springtide_committed_sequence", shard="0")
    assert metrics("springtide_commit_seconds_count", shard="0") == sequence
    assert metrics("springtide_publish_seconds_count", shard="0", level="realtime") == sequence
    assert metrics("springtide_published_bytes_total", shard="0", level="realtime") > 0
    assert metrics("springtide_commit_stall_seconds_total", shard="0") > 0
    sent = {n.split()[0]: rows for n, rows in metrics.all("springtide_published_rows_total").items() if "realtime" in n}
    assert sum(sent.values()) > 0
    assert set(sent) <= {"0", "4", "8", "16", "32"}


def test_series_do_not_grow_with_keys(world):
    _, few, many, _ = world
    assert many("springtide_table_rows", table="item", shard="0") > 5 * few(
        "springtide_table_rows", table="item", shard="0"
    )
    grown = {name for name, _ in set(many.values) - set(few.values)}
    # A level or precision that had not occurred before may add series.
    assert all(name.startswith("springtide_publish") for name in grown)
    assert len(many.values) < 600


def test_a_run_that_ends_removes_its_target_file(world):
    project, *_ = world
    assert url_of(project, "all") is None


def test_a_replica_shows_how_fresh_it_is(world):
    project, *_ = world
    serving = start(project, "replica")
    try:
        ready = json.loads(serving.stdout.readline())
        own = f"http://{ready['host']}:{ready['port']}"
        url = until(lambda: url_of(project, "replica"), serving)
        before = scrape(url)
        assert (
            before("springtide_freshness_seconds_count", shard="0") is None
        )  # deltas from before the start do not count
        feed(project, make_events(3, ROWS, first=120_000), "fresh")
        report = springtide(project, "run", "all", "--until-end")
        shard = report["train"]["shards"][0]
        sequence = int(shard["version"].rpartition("/")[2])
        metrics = until(lambda: (s := scrape(url))("springtide_served_sequence", shard="0") == sequence and s, serving)
        assert request_json(f"{own}/v1/models/model:predict", {"instances": [{"user": "u3"}]})[0] == 200
        through_its_own_port = scrape(f"{own}/metrics")
        serving.send_signal(signal.SIGTERM)
        _, err = serving.communicate(timeout=90)
    finally:
        serving.kill()
    assert "Traceback" not in err
    fresh = report["train"]["commits"]
    assert metrics("springtide_commit_visible_seconds_count", shard="0") == fresh
    assert metrics("springtide_freshness_seconds_count", shard="0") == fresh
    assert 0 < metrics("springtide_commit_visible_seconds_sum", shard="0") < 60 * fresh
    assert metrics("springtide_served_event_timestamp_seconds", shard="0") == read_time(shard["log_time"]) / 1000
    assert metrics("springtide_served_generation", shard="0") == metrics("springtide_delta_lag_records", shard="0") == 0
    assert {n.split()[-1] for n in metrics.all("springtide_served_bytes")} == FIELDS
    assert unseen_names(world[2], metrics, through_its_own_port) == {
        "springtide_deltas_refused_total",
        "springtide_gate_state",  # with [gate]
        "springtide_gate_evidence_ratio",
        "springtide_gate_rollbacks_total",
        "springtide_gate_file_checks_total",
        "springtide_hook_failures_total",
        "springtide_served_part",  # of a replica of a part
        "springtide_recall_sequence",  # with [recall]
        "springtide_recall_items",
        "springtide_recall_items_withheld",
        "springtide_recall_file_unreadable",
        "springtide_recall_embedded_timestamp_seconds",
        "springtide_recall_overlap_ratio",
        "springtide_validation_loss",  # of labels that are not logistic
        "springtide_validation_rmse",
        "springtide_validation_top_share_ratio",  # of labels with `top`
        "springtide_validation_hit_rate_ratio",
        "springtide_validation_recall_ratio",  # of two towers
        "springtide_http_connections_closed_total",
        "springtide_merged_bytes_total",
        "springtide_reading_failures_total",
    }
    assert through_its_own_port("springtide_predict_requests_total", status="200") == 1


def unseen_names(*scrapes):
    """Declared metrics in none of `scrapes`; without those that exist only with Kafka or in a Flink worker.

    A counter has no series before its first event.
    """
    elsewhere = {name for name in declared_names() if name.startswith(("springtide_log_", "springtide_shard_failures"))}
    return declared_names() - elsewhere - set().union(*(scrape.names for scrape in scrapes))
