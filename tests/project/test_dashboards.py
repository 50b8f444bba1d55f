"""Dashboard, alerts, scrape configuration and the table of metrics refer to exported metrics only."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from tests.support.command.scrape import declared_labels, declared_names

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "runbooks/grafana/springtide.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = [
    rule
    for group in yaml.safe_load((ROOT / "runbooks/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]] + [rule["expr"] for rule in ALERTS]
OF_ANY_TARGET = {"up", "process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total"}
LABELS_OF_PROMETHEUS = {"job", "instance", "model", "le"}


def metrics_in(query):
    """Names that are neither functions, nor keywords, nor labels."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(by|on)\s*\([^)]*\)', "", query)
    names = set(re.findall(r"\b[a-z_][a-z0-9_]*\b(?!\s*\()", bare))
    return names - {"and", "or", "unless", "sum", "max", "min", "avg"}


def labels_in(query):
    grouped = [name.strip() for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query) for name in group.split(",")]
    return set(grouped) | set(re.findall(r"[{,]\s*([a-z_]+)\s*=", query))


def test_names_are_found_in_a_query():
    query = 'sum by (a) (rate(springtide_x_total{b=~"$c",d="e"}[5m])) / on (f) up > 0.05 and time() - g > 1'
    assert metrics_in(query) == {"springtide_x_total", "up", "g"}
    assert labels_in(query) == {"a", "b", "d", "f"}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_only_metrics_and_labels_that_exist(query):
    names = metrics_in(query)
    assert names
    assert names <= declared_names() | OF_ANY_TARGET
    known = {label for name in names & declared_names() for label in declared_labels(name)}
    assert labels_in(query) <= known | LABELS_OF_PROMETHEUS


def test_the_runbook_documents_every_metric_and_no_other():
    documented = set(re.findall(r"`(springtide_[a-z_]+)`", (ROOT / "runbooks/metrics.md").read_text()))
    assert documented == {re.sub("_(bucket|sum|count)$", "", name) for name in declared_names()}


def test_names_follow_the_conventions_of_prometheus():
    units = ("_total", "_seconds", "_bytes", "_ratio", "_records", "_bucket", "_sum", "_count")
    plain = {name for name in declared_names() if not name.endswith(units)}
    assert plain == {
        "springtide_join_held_impressions", "springtide_join_pending_clicks", "springtide_train_halted",
        "springtide_train_label_without_positive", "springtide_train_penalty", "springtide_gate_state",
        "springtide_table_rows", "springtide_cold_rows",
        "springtide_validation_log_loss", "springtide_validation_normalized_entropy", "springtide_row_importance",
            "springtide_validation_loss", "springtide_validation_rmse",
        "springtide_input_importance", "springtide_table_importance",
        "springtide_row_convergence", "springtide_committed_generation", "springtide_committed_sequence",
        "springtide_committed_samples", "springtide_served_generation", "springtide_served_sequence",
        "springtide_served_rows", "springtide_served_part", "springtide_http_connections",
        "springtide_recall_sequence", "springtide_recall_items", "springtide_withheld_rows",
            "springtide_recall_items_withheld", "springtide_recall_file_unreadable",
    }  # fmt: skip
    assert all(name.startswith("springtide_") for name in declared_names())


def test_labels_are_bounded():
    used = {label for name in declared_names() for label in declared_labels(name)}
    assert used == {
        "topic", "partition", "shard", "table", "label", "window", "quantile", "kind", "reason", "level", "bits",
        "status", "reader", "hook", "input", "part",
    }  # fmt: skip


def test_grafana_can_load_the_dashboard():
    assert DASHBOARD["schemaVersion"] >= 38  # Grafana 10
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", DASHBOARD["uid"])
    assert DASHBOARD["id"] is None
    assert DASHBOARD["title"] == "springtide"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in PANELS:
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["title"]
        assert panel["description"]
        refs = [target["refId"] for target in panel["targets"]]
        assert refs == ["A", "B", "C", "D"][: len(refs)]
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])


def test_panels_are_inside_the_grid_and_do_not_overlap():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(p["x"] >= 0 and p["w"] > 0 and p["x"] + p["w"] <= 24 for p in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below


def test_the_data_source_is_a_variable():
    [source] = [v for v in DASHBOARD["templating"]["list"] if v["type"] == "datasource"]
    assert (source["name"], source["query"]) == ("datasource", "prometheus")
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert all(panel["datasource"] == chosen for panel in PANELS)
    assert all(target["datasource"] == chosen for panel in PANELS for target in panel["targets"])


def test_alerts_have_unique_names_and_existing_runbooks():
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names)
    for rule in ALERTS:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert (ROOT / rule["annotations"]["runbook"]).exists()
    documented = set(re.findall(r"Springtide[A-Za-z]+", (ROOT / "runbooks/metrics.md").read_text()))
    assert documented == set(names)


def test_the_scrape_configuration_reads_the_target_files():
    config = yaml.safe_load((ROOT / "runbooks/prometheus/prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    assert job["job_name"] == "springtide"
    assert job["file_sd_configs"][0]["files"] == ["shop/state/telemetry/*.json"]
    assert config["rule_files"] == ["alerts.yml"]
