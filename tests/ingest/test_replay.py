"""Replaying dead letters: a valid event becomes a sample, an invalid one a dead letter again; each is replayed once."""

from dataclasses import replace

import pytest

from pipeline.configuration.streams.logs import SCHEMAS_TOPIC
from pipeline.errors import InputError
from pipeline.ingest.replay import DEAD_LETTER_HEADER, plan_replay
from pipeline.ingest.replay import replay as replay_letters
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.interface.log import read_to_end
from tests.samples.run.test_samples_job import APPENDED, NOW, D, W, World
from tests.support.command.command_line import START_MS, feed, make_events, make_shop, springtide


def replay(world, *reasons, **options):
    plan = plan_replay(world.project, world.log, reasons, **options)
    replay_letters(world.project, world.log, plan)
    return plan


def replayed_in(world, topic):
    records = [r for p in range(world.config.logs.partitions) for run in read_to_end(world.log, topic, p) for r in run]
    return [(r.headers[DEAD_LETTER_HEADER], r.value) for r in records if DEAD_LETTER_HEADER in r.headers]


def world_with_dead_letters(tmp_path):
    """A world with dead letters: an orphan click, poison in partition 1 and a duplicate impression."""
    world = World(tmp_path)
    world.impression(0, 1)
    world.impression(0, 1)
    world.click(5, 2)
    world.append("clicks", 1, [b"poison"])
    world.heartbeat(2 * D)
    world.run()
    assert [reason for reason, *_ in world.dead()] == ["duplicate_impression", "orphan_click", "undecodable"]
    return world


def test_events_return_unchanged_to_their_partition(tmp_path):
    world = world_with_dead_letters(tmp_path)
    plan = replay(world)
    assert plan.reasons == {"duplicate_impression": 1, "orphan_click": 1, "undecodable": 1}
    (_, again), (_, first) = replayed_in(world, "impressions")[0], replayed_in(world, "clicks")[0]
    assert again == world.log.read("impressions", 1, 1)[0].value
    assert first == world.log.read("clicks", 0, 0)[0].value
    assert world.log.read("clicks", 1, 2)[0].value == b"poison"


def test_an_event_still_invalid_is_a_dead_letter_again_at_its_new_offset(tmp_path):
    world = world_with_dead_letters(tmp_path)
    replay(world)
    world.heartbeat(3 * D)
    world.run()
    assert [found for found in world.dead() if found[0] == "undecodable"] == [
        ("undecodable", "clicks", 1, 0),
        ("undecodable", "clicks", 1, 2),
    ]


def test_an_event_whose_schema_was_missing_becomes_a_sample_once_it_is_registered(tmp_path):
    world, elsewhere = World(tmp_path / "here"), World(tmp_path / "there")
    columns = world.config.events.impressions.model_copy(update={"columns": {"item": "int", "shelf": "string"}})
    newer = EventCodec(world.config.events.model_copy(update={"impressions": columns}), "impressions", elsewhere.log)
    world.append("impressions", 1, [newer.encode_event(NOW, {"item": 1, "shelf": "s"})])
    world.run()
    assert [reason for reason, *_ in world.dead()] == ["undecodable"]
    for record in elsewhere.log.read(SCHEMAS_TOPIC, 0, 0):
        world.log.append(SCHEMAS_TOPIC, 0, [record.value])
    replay(world, "undecodable")
    world.heartbeat(2 * W)
    world.run()
    assert world.samples() == [("negative", 1, NOW, 0)]


def test_a_dead_letter_is_replayed_once(tmp_path):
    world = world_with_dead_letters(tmp_path)
    replay(world, "undecodable")
    plan = replay(world)
    assert (plan.reasons, plan.replayed) == ({"duplicate_impression": 1, "orphan_click": 1}, 1)
    assert (replay(world).reasons, replay(world).replayed) == ({}, 3)
    assert len(replayed_in(world, "clicks")) == 2


def test_a_plan_changes_nothing(tmp_path):
    world = world_with_dead_letters(tmp_path)
    first, second = plan_replay(world.project, world.log), plan_replay(world.project, world.log)
    assert first == second
    assert replayed_in(world, "clicks") == replayed_in(world, "impressions") == []


def test_since_selects_by_the_append_time_of_the_dead_letter(tmp_path):
    world = world_with_dead_letters(tmp_path)
    world.project.clock.wait(5)
    world.append("clicks", 1, [b"more poison"])
    world.run()
    assert plan_replay(world.project, world.log, since_ms=APPENDED + 1).reasons == {"undecodable": 1}


def test_dead_letters_of_a_renamed_topic_are_refused(tmp_path):
    world = world_with_dead_letters(tmp_path)
    topics = world.config.topics.model_copy(update={"clicks": "taps"})
    project = replace(world.project, config=world.config.model_copy(update={"topics": topics}))
    with pytest.raises(InputError, match="is of topic clicks, the configuration has impressions, taps"):
        plan_replay(project, world.log)


def test_packed_rows_out_of_range_become_samples_once_the_skew_allows_it(tmp_path):
    shop = make_shop(tmp_path / "shop")
    settings = shop / "springtide.toml"
    settings.write_text(settings.read_text().replace("[events]", "[events]\nskew_s = 1.0", 1))
    impressions, clicks = make_events(1, 50)
    ahead = 4_000_000_000_000 - START_MS
    feed(shop, (impressions.assign(at=impressions["at"] + ahead), clicks.assign(at=clicks["at"] + ahead)), close=False)
    assert springtide(shop, "run", "samples", "--until-end")["dead_letters"] == {"time_out_of_range": 50 + len(clicks)}
    settings.write_text(settings.read_text().replace("skew_s = 1.0", "skew_s = 1e10", 1))
    planned = springtide(shop, "dead-letters", "replay", "--reason", "time_out_of_range", "--dry-run")
    assert springtide(shop, "dead-letters", "replay", "--reason", "time_out_of_range") == {**planned, "dry_run": False}
    assert planned["replayed"] == 50 + len(clicks)
    springtide(shop, "heartbeat", 4_000_100_000_000)
    samples = springtide(shop, "run", "samples", "--until-end")["samples"]
    assert samples["positive"] + samples["negative"] == 50


def test_rows_that_ingest_refused_are_counted_and_not_replayed(tmp_path):
    shop = make_shop(tmp_path / "shop")
    (shop / "bad.csv").write_text("impression_id,at,user,item,position\ni1,1750000000000,u,i,1\ni2,never,u,i,1\n")
    springtide(shop, "ingest", "impressions", shop / "bad.csv")
    assert springtide(shop, "dead-letters", "list")["dead_letters"] == [
        {"topic": "impressions", "reason": "undecodable", "letters": 1}
    ]
    result = springtide(shop, "dead-letters", "replay")
    assert (result["replayed"], result["from_files"]) == (0, 1)
