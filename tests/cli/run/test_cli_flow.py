"""The tutorial on a small shop, from `springtide init` to a rollback: the output of commands as text and as JSON."""

import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from tests.support.command.command_line import START_MS, call, feed, make_events, make_shop, samples_of, springtide

DAY_ROWS = 600
EVENING = 40_000
"""Number of the first impression after all windows of the day have closed."""


@pytest.fixture(scope="module")
def day():
    return make_events(1, DAY_ROWS)


@pytest.fixture(scope="module")
def shop(tmp_path_factory, day):
    """A day ingested from every kind of file, joined and trained; then the events of an evening ingested."""
    project = make_shop(tmp_path_factory.mktemp("tutorial") / "shop", {"# full_every_s = 86_400": "full_every_s = 1e9"})
    assert springtide(project, "config", "check")["inputs"] == ["user", "item", "position", "hour"]
    impressions, clicks = day
    impressions.iloc[:200].to_csv(project / "a.csv", index=False)
    impressions.iloc[200:400].to_json(project / "b.jsonl", orient="records", lines=True)
    impressions.iloc[400:].to_parquet(project / "c.parquet", index=False)
    clicks.to_csv(project / "clicks.csv.gz", index=False)
    files = [project / name for name in ("a.csv", "b.jsonl", "c.parquet")]
    assert springtide(project, "ingest", "impressions", *files)["rows"] == DAY_ROWS
    assert springtide(project, "ingest", "clicks", project / "clicks.csv.gz")["rows"] == len(clicks)
    springtide(project, "heartbeat", START_MS + EVENING * 10_000 - 1)
    joined = springtide(project, "run", "samples", "--until-end")
    assert joined["events"] == DAY_ROWS + len(clicks)
    trained = springtide(project, "run", "train", "--until-end")
    assert trained["samples"] == sum(joined["samples"].values())
    feed(project, make_events(2, DAY_ROWS, first=EVENING), "evening")
    return project


@pytest.fixture(scope="module")
def evening(shop):
    """The version before the evening, and the result of `run all`."""
    before = current(shop)["version"]
    return before, springtide(shop, "run", "all", "--until-end")


def current(project):
    [found] = [version for version in springtide(project, "versions")["versions"] if version["current"]]
    return found


def table_of(project, *words):
    springtide(project, "export", *words, "--out", project / "out.parquet")
    return pd.read_parquet(project / "out.parquet")


def test_samples_are_what_pandas_joins(shop, day):
    impressions, clicks = day
    rows = impressions.merge(clicks, on="impression_id", how="left", suffixes=("", "_click"))
    delay_ms = rows["at_click"] - rows["at"]
    positive, late = delay_ms < 600_000, (delay_ms >= 600_000) & (delay_ms < 4_200_000)
    wanted = {"positive": positive.sum(), "negative": (~positive).sum(), "compensation": late.sum()}
    samples = samples_of(shop)
    of_day = samples[samples["impression_at"] < START_MS + EVENING * 10_000]
    assert of_day["kind"].value_counts().to_dict() == wanted
    assert set(of_day.loc[of_day["kind"] == "positive", "impression_id"]) == set(rows["impression_id"][positive])
    behind = table_of(shop, "dead-letters")
    assert (behind["reason"] == "click_too_late").sum() >= (delay_ms >= 4_200_000).sum() > 0


def test_a_file_is_ingested_once(shop):
    path = shop / "a.csv"
    again = springtide(shop, "ingest", "impressions", path)
    assert (again["rows"], again["skipped_files"]) == (0, [str(path)])


def test_run_all_joins_and_trains_on_the_new_events(evening):
    _, report = evening
    assert report["samples"]["events"] > DAY_ROWS
    assert report["train"]["samples"] == sum(report["samples"]["samples"].values()) > DAY_ROWS
    assert report["train"]["shards"][0]["validation"]["label"]["total"]["samples"] > 2 * DAY_ROWS


def test_without_new_events_a_run_does_nothing(shop, evening):
    report = springtide(shop, "run", "all", "--until-end")
    assert (report["samples"]["events"], report["train"]["samples"], report["train"]["commits"]) == (0, 0, 0)


def test_status_shows_lag_versions_and_topics(shop, evening):
    status = springtide(shop, "status")
    assert [place["lag"] for place in status["join"]["inputs"].values()] == [0, 0]
    [trainer] = status["trainer"]
    assert (trainer["lag_records"], trainer["halted"]) == (0, None)
    assert trainer["version"] == current(shop)["version"]
    assert {"impressions", "clicks", "samples", "dead-letters", "deltas"} <= {t["topic"] for t in status["logs"]}


def test_versions_show_what_their_deltas_sent(shop, evening):
    versions = springtide(shop, "versions", "--bytes")["versions"]
    assert [v["version"] for v in versions] == [v["version"] for v in springtide(shop, "versions")["versions"]]
    with closing(open_log(Project.open(shop))) as log:
        sizes = [len(record.value) for record in log.read("deltas", 0, 0)]
    assert [v["delta_bytes"] for v in versions] == sizes[-len(versions) :]
    for version in versions:
        parts = [version[f"{part}_bytes"] for part in ("weights", "keys", "dense", "header")]
        assert (sum(parts), min(parts) >= 0) == (version["delta_bytes"], True)
        assert sum(version[f"rows_{bits}_bits"] for bits in (4, 8, 16, 32)) == version["rows_sent"]
    assert [v["measured_loss"] for v in versions if v["current"]] == [None]


def test_the_tables_of_what_deltas_sent_fit_100_columns(shop, evening):
    shown = call("versions", "--bytes", "--project", shop).out.splitlines()
    count = len(springtide(shop, "versions")["versions"])
    titles = [at for at, line in enumerate(shown) if line in ("bytes of deltas", "rows of deltas")]
    assert [titles[1] - titles[0], len(shown) - titles[1]] == [count + 2] * 2
    assert max(map(len, shown)) <= 100


def test_versions_are_a_lineage_with_digests(shop, evening):
    versions = springtide(shop, "versions")["versions"]
    assert [v["parent"] for v in versions] == [None, *(v["version"] for v in versions[:-1])]
    assert len({v["digest"] for v in versions}) == len(versions)
    assert [v["current"] for v in versions] == [False] * (len(versions) - 1) + [True]


def test_inspect_shows_the_row_that_is_exported(shop, evening):
    shown = springtide(shop, "inspect", "user", "u3")
    rows = table_of(shop, "rows", "user").set_index("key")
    [row], key = shown["rows"], int(shown["key"])
    assert np.array_equal(np.float32(row["weights"]), rows.loc[key, "weights"])
    assert row["count"] == rows.loc[key, "count"]
    assert row["served_bits"] == table_of(shop, "served", "user").set_index("key").loc[key, "bits"]


def test_inspect_of_a_value_never_seen_has_no_row(shop, evening):
    assert springtide(shop, "inspect", "user", "nobody")["rows"] == []


def test_importance_lists_values_in_order(shop, evening):
    keys = springtide(shop, "importance", "item", "--top", 5)["keys"]
    assert len(keys) == 5
    assert [k["importance"] for k in keys] == sorted((k["importance"] for k in keys), reverse=True)
    assert all(k["key"] == springtide(shop, "inspect", "item", k["value"])["key"] for k in keys)


def test_samples_of_a_version_are_those_it_learned_from(shop, evening):
    before, _ = evening
    samples = table_of(shop, "samples", "--version", before)
    assert samples["impression_at"].max() < START_MS + EVENING * 10_000 <= samples_of(shop)["impression_at"].max()


@pytest.mark.parametrize("level", ["incremental", "full"])
def test_publish_writes_the_requested_level_and_each_change_only_once(shop, evening, level):
    would = springtide(shop, "publish", "--level", level, "--dry-run")["would_publish"]
    assert all(row == {"level": level, "version": current(shop)["version"]} for row in would)
    made = springtide(shop, "publish", "--level", level)["published"]
    for file in made:
        assert (file["level"], file["version"]) == (level, current(shop)["version"])
        assert Path(file["path"]).stat().st_size == file["bytes"]
    if level == "full":
        rows = [len(table_of(shop, "rows", field)) for field in ("user", "item")]
        assert made[0]["rows"] >= sum(rows)
    assert springtide(shop, "status")["trainer"][0]["published"][level] == current(shop)["version"]
    if level == "incremental":
        assert springtide(shop, "publish", "--level", level)["published"] == []


READABLE = [
    "config check",
    "status",
    "versions",
    "versions --bytes",
    "inspect user u3",
    "importance item",
    "publish --level full --dry-run",
    "rollback --before 2025-06-18T00:00:00Z --dry-run",
    "quarantine add 10..20 --dry-run",
    "quarantine add --where position<3 --dry-run",
    "quarantine list",
    "resume --dry-run",
    "run samples --until-end",
    "run train --until-end",
    "run all --until-end",
    "export samples --out {out}",
    "export rows item --out {out}",
    "export weights item --out {out}",
    "export weights item --format fp16 --out {out} --dry-run",
    "export served item --out {out}",
    "export dead-letters --out {out}",
    "export rows item --out {out} --dry-run",
]


@pytest.mark.parametrize("words", READABLE)
def test_output_is_text_unless_json_is_requested(shop, evening, words):
    arguments = words.format(out=shop / "out.parquet").split()
    plain = call(*arguments, "--project", shop)
    assert (plain.code, plain.err) == (0, "")
    assert plain.out.strip()
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(plain.out)
    assert not any(sign in plain.out for sign in ("Traceback", "{", "None", "object at"))
    machine = call(*arguments, "--project", shop, "--json")
    assert (machine.code, machine.err) == (0, "")
    assert machine.result


@pytest.mark.parametrize("what", ["samples", "rows item", "weights item", "served item", "dead-letters"])
def test_a_dry_run_of_export_counts_what_it_would_write_and_writes_nothing(shop, evening, what):
    out = shop / "planned.parquet"
    planned = springtide(shop, "export", *what.split(), "--out", out, "--dry-run")
    assert not out.exists()
    written = springtide(shop, "export", *what.split(), "--out", out)
    assert planned == {"would_write": written.pop("written"), **written}
    assert written["rows"] == len(pd.read_parquet(out))
    out.unlink()


def test_exported_weights_are_those_of_the_rows(shop, evening):
    out = shop / "weights.parquet"
    springtide(shop, "export", "weights", "item", "--format", "fp32", "--out", out)
    weights = pd.read_parquet(out)
    springtide(shop, "export", "rows", "item", "--out", out)
    rows = pd.read_parquet(out)
    assert weights["key"].tolist() == rows["key"].tolist()
    assert np.stack(weights["weights"]).tobytes() == np.stack(rows["weights"]).tobytes()


def test_weights_of_a_table_that_the_version_has_in_another_form_are_refused(shop, evening, tmp_path):
    copied = shutil.copytree(shop, tmp_path / "shop")
    config = copied / "springtide.toml"
    text = config.read_text()
    assert "dim = 8" in text
    config.write_text(text.replace("dim = 8", "dim = 12"))
    refused = call("export", "weights", "item", "--out", tmp_path / "x.parquet", "--project", copied)
    assert (refused.code, (tmp_path / "x.parquet").exists()) == (3, False)
    assert re.search(r"has of table item dim 8 in \d+ bytes a row, the configuration dim 12 in", refused.err)


def test_no_command_prints_a_time_in_another_form_or_a_key_that_a_script_rounds(shop, evening):
    for words in READABLE:
        if not words.startswith(("run", "publish")):
            result = call(*words.format(out=shop / "out.parquet").split(), "--project", shop, "--json").result
            for name, value in leaves_of(result):
                assert not name.endswith("_ms"), (words, name)
                assert name not in ("key", "handle") or isinstance(value, str | None), (words, name)
                if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value):
                    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", value), (words, name, value)


def leaves_of(value, name=""):
    """Every name of a JSON value with its plain value."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else ((name, item) for item in value)
        return [leaf for key, item in items for leaf in leaves_of(item, key)]
    return [(name, value)]


def test_an_incremental_without_changes_is_reported(shop, evening):
    call("publish", "--level", "incremental", "--project", shop)
    done = call("publish", "--level", "incremental", "--project", shop)
    assert done.code == 0
    assert "there are no changes since the last incremental" in done.err


@pytest.fixture
def copy(shop, evening, tmp_path):
    """A copy of the shop that the test may change."""
    import shutil

    return shutil.copytree(shop, tmp_path / "shop")


def test_a_rollback_restores_serving_and_training_and_skips_the_undone_samples(copy, evening):
    target, _ = evening
    served = table_of(copy, "served", "item", "--version", target)
    undone = current(copy)
    plan = springtide(copy, "rollback", "--before", START_MS + EVENING * 10_000, "--dry-run")["plan"]
    assert plan["shards"][0]["target"] == target
    assert current(copy) == undone
    done = springtide(copy, "rollback", "--before", START_MS + EVENING * 10_000)
    assert done["plan"] == plan
    assert done["done"]["shards"][0]["undone"] == undone["version"]
    assert current(copy)["version"].startswith("g1/")
    pd.testing.assert_frame_equal(table_of(copy, "served", "item"), served)
    [quarantine] = springtide(copy, "quarantine", "list")["quarantines"]
    assert quarantine["reason"].startswith("rollback to before ")
    assert springtide(copy, "run", "all", "--until-end")["train"]["samples"] == 0
    feed(copy, make_events(3, 300, first=2 * EVENING), "night")
    report = springtide(copy, "run", "all", "--until-end")
    assert report["train"]["samples"] == sum(report["samples"]["samples"].values()) > 300


def test_a_rollback_to_a_version_learns_the_rest_again_after_its_quarantine_is_removed(copy, evening):
    target, report = evening
    springtide(copy, "rollback", "--to", target)
    [quarantine] = springtide(copy, "quarantine", "list")["quarantines"]
    assert springtide(copy, "quarantine", "remove", quarantine["id"], "--dry-run")["dry_run"] is True
    assert springtide(copy, "quarantine", "list")["quarantines"][0]["removed_at"] is None
    springtide(copy, "quarantine", "remove", quarantine["id"])
    assert springtide(copy, "quarantine", "list")["quarantines"][0]["removed_at"]
    assert springtide(copy, "run", "train", "--until-end")["samples"] == report["train"]["samples"]


def test_a_quarantine_is_skipped_from_then_on(copy, evening):
    target, report = evening
    springtide(copy, "rollback", "--to", target, "--quarantine", "10..20")
    samples = samples_of(copy)
    at = samples["impression_at"].where(samples["click_at"].isna(), samples["click_at"])
    start = START_MS + EVENING * 10_000
    added = springtide(copy, "quarantine", "add", f"{start}..{start + 1_000_000}", "--reason", "bots")
    listed = {q["id"]: q for q in springtide(copy, "quarantine", "list")["quarantines"]}
    assert listed[added["id"]]["reason"] == "bots"
    skipped = int(((at >= start) & (at < start + 1_000_000)).sum())
    assert skipped > 0
    assert springtide(copy, "run", "train", "--until-end")["samples"] == report["train"]["samples"] - skipped
