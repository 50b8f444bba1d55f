"""Two partitions, two shards, one replica: a rollback restores both shards, and neither learns the bad hours again."""

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from pipeline.serving.replica import Replica
from tests.support.command.command_line import START_MS, feed, make_events, make_shop, samples_of, springtide

ROWS = 500
BAD, AFTER = 40_000, 80_000
"""Numbers of the first impressions of the bad hours and of the hours after them."""
TWO = {
    "# partitions = 1": "partitions = 2",
    "# shards = 1": "shards = 2",
    "batch_size = 256": "batch_size = 64",
    "# loss = 0.0002": "loss = 1e-9",
    "# commit_every_s = 1.0": 'commit_every_s = 1e6\ncommit_every_log_s = "off"\ncommit_every_batches = 3',
}
FIELDS = ("user", "item", "position", "hour")


def bots():
    """Events of new users who click everything."""
    impressions, _ = make_events(2, ROWS, BAD)
    impressions["user"] = "bot-" + impressions["user"]
    return impressions, pd.DataFrame({"at": impressions["at"] + 1_000, "impression_id": impressions["impression_id"]})


def exported(project, *words):
    springtide(project, "export", *words, "--out", project / "out.parquet")
    return pq.read_table(project / "out.parquet")


def currents(project) -> dict[int, str]:
    """By shard, CURRENT."""
    found = [v["version"] for v in springtide(project, "versions")["versions"] if v["current"]]
    return dict(enumerate(found))


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A day, bots, a rollback to before them, and a day after them; with the output of each step."""
    project = make_shop(tmp_path_factory.mktemp("two") / "shop", TWO)
    opened = Project.open(project)
    replica = Replica(opened, open_log(opened))
    story = {"project": project}
    feed(project, make_events(1, ROWS), "day", close=False)
    springtide(project, "heartbeat", START_MS + BAD * 10_000 - 1)
    springtide(project, "run", "all", "--until-end")
    story["targets"] = currents(project)
    feed(project, bots(), "bots", close=False)
    springtide(project, "heartbeat", START_MS + AFTER * 10_000 - 1)
    springtide(project, "run", "all", "--until-end")
    replica.catch_up()
    story["bad"], story["bad served"] = currents(project), {f: replica.export(f) for f in FIELDS}
    story["bots inspected"] = springtide(project, "inspect", "user", "bot-u3")["rows"]
    story["rollback"] = springtide(project, "rollback", "--before", START_MS + BAD * 10_000)
    replica.catch_up()
    story["served"] = {field: replica.export(field) for field in FIELDS}
    story["digests"] = [replica.digest(shard) for shard in range(2)]
    story["restored"] = currents(project)
    story["skipped"] = springtide(project, "run", "all", "--until-end")["train"]["samples"]
    feed(project, make_events(3, ROWS, AFTER), "after")
    story["continued"] = springtide(project, "run", "all", "--until-end")
    replica.catch_up()
    story["replica"] = replica
    return story


def test_both_shards_learned_the_bots_before_the_rollback(story):
    assert story["bots inspected"]
    for shard in range(2):
        assert story["bad"][shard].startswith(f"g0/s{shard}-of-2/")
        assert story["bad"][shard] != story["targets"][shard]


def test_both_shards_hold_part_of_every_sample_and_none_is_in_both(story):
    samples = samples_of(story["project"])
    assert samples.groupby(["impression_id", "kind"]).size().max() == 1
    versions = {v["version"]: v for v in springtide(story["project"], "versions")["versions"]}
    assert min(versions[target]["samples_seen"] for target in story["targets"].values()) > ROWS // 4


@pytest.mark.parametrize("field", FIELDS)
def test_after_the_rollback_the_replica_serves_the_targets_byte_for_byte(story, field):
    for shard, target in story["targets"].items():
        wanted = exported(story["project"], "served", field, "--version", target).to_pylist()
        got = [row for row in story["served"][field].to_pylist() if row["shard"] == shard]
        assert wanted
        assert got == wanted
    assert story["bad served"][field] != story["served"][field]


def test_the_rollback_reports_the_target_of_each_shard(story):
    shards = story["rollback"]["done"]["shards"]
    assert [shard["target"] for shard in shards] == list(story["targets"].values())
    assert [shard["undone"] for shard in shards] == list(story["bad"].values())
    assert [shard["version"] for shard in shards] == list(story["restored"].values())
    digests = {v["version"]: v["served_digest"] for v in springtide(story["project"], "versions")["versions"]}
    assert story["digests"] == [digests[target] for target in story["targets"].values()]


def test_the_bad_hours_are_not_learned_again(story):
    assert story["skipped"] == 0
    for user in ("bot-u3", "bot-u7"):
        assert springtide(story["project"], "inspect", "user", user)["rows"] == []


def test_training_continues_from_the_target_on_both_shards(story):
    report = story["continued"]
    assert report["train"]["samples"] == sum(report["samples"]["samples"].values()) >= ROWS
    versions = {v["version"]: v for v in springtide(story["project"], "versions")["versions"]}
    for shard, current in currents(story["project"]).items():
        assert current.startswith(f"g1/s{shard}-of-2/")
        grown = versions[current]["samples_seen"] - versions[story["targets"][shard]]["samples_seen"]
        assert 0 < grown < report["train"]["samples"]
        assert story["replica"].digest(shard) == versions[current]["served_digest"]
