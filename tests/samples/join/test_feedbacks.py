"""Several feedbacks: which labels a sample decides, on their own windows and policies, and what the state retains."""

import pytest

from pipeline.configuration.config import parse_config
from pipeline.errors import MigrationError
from pipeline.samples.join.join import Join
from tests.support.join_bench import Bench, D, R, S, W
from tests.support.world.join_state import decode_join, encode_join

LONG = 4 * W


def config_of(**policies):
    """Clicks and likes with the window W, purchases with a longer one; policies by feedback."""
    columns = {"request": "string", "item": "int"}
    durations = {"click": (W, W), "like": (W, W), "purchase": (LONG, 2 * LONG)}
    events = {
        kind: {
            "columns": columns,
            "window_s": window / 1000,
            "horizon_s": horizon / 1000,
            "policy": policies.get(kind, "wait"),
        }
        for kind, (window, horizon) in durations.items()
    }
    return parse_config(
        {
            "events": {
                "key": ["request", "item"],
                "disorder_s": D / 1000,
                "impressions": {"columns": columns},
                **events,
            },
            "samples": {"key_retention_s": R / 1000},
            "fields": [{"name": "item", "columns": ["item"]}],
        }
    )


class FeedbackBench(Bench):
    """A bench whose join has several feedbacks; `rows` are its samples as (kind, labels, observed until)."""

    def __init__(self, **policies):
        super().__init__()
        self.reset(config_of(**policies))

    @classmethod
    def of(cls, config):
        bench = cls()
        bench.reset(config)
        return bench

    def reset(self, config):
        self.config, self.partitions = config, dict.fromkeys(config.input_topics, 1)
        self.join = Join(config, 0, self.partitions)

    def event(self, kind, at, item=1):
        return self.feed(kind, 0, at, {"request": "r", "item": item})

    @property
    def rows(self):
        names = self.config.label_names
        return [
            (s["kind"], {n: s[n] for n in names if s[n] is not None}, s["observed_until"] - S) for s in self.samples
        ]


def test_labels_whose_windows_close_together_are_one_sample():
    bench = FeedbackBench()
    bench.event("impressions", S)
    bench.watermark(S + LONG)
    assert bench.rows == [("negative", {"click": 0, "like": 0}, W), ("negative", {"purchase": 0}, LONG)]
    assert [s["feedback"] for s in bench.samples] == [None, None]


def test_a_positive_decides_its_own_label_and_leaves_the_others_open():
    bench = FeedbackBench()
    bench.event("impressions", S)
    bench.event("like", S + 5)
    assert bench.finish().rows == [("positive", {"like": 1}, 5)]
    assert (bench.samples[0]["feedback"], bench.samples[0]["click_at"]) == ("like", S + 5)
    bench.event("purchase", S + 7)
    bench.watermark(S + LONG)
    assert bench.rows[1:] == [("positive", {"purchase": 1}, 7), ("negative", {"click": 0}, W)]


def test_a_compensation_touches_only_its_label():
    bench = FeedbackBench()
    bench.event("impressions", S)
    bench.watermark(S + W)
    bench.event("click", S + W + 3)
    bench.finish()
    assert bench.rows == [("negative", {"click": 0, "like": 0}, W), ("compensation", {"click": 1}, W + 3)]
    assert bench.samples[1]["negative_written"] is True


def test_labels_of_one_event_are_its_columns_and_are_decided_together():
    document = {
        "events": {
            "key": ["item"],
            "disorder_s": D / 1000,
            "impressions": {"columns": {"item": "int"}},
            "clicks": {"columns": {"item": "int"}},
            "purchase": {"columns": {"item": "int", "paid": "float"}, "window_s": W / 1000},
        },
        "samples": {"window_s": W / 1000},
        "labels": [
            {"name": "amount", "event": "purchase", "column": "paid", "loss": "squared", "range": [0.0, 100.0]},
            {"name": "click"},
            {"name": "bought", "event": "purchase"},
        ],
        "fields": [{"name": "item", "columns": ["item"]}],
    }
    bench = FeedbackBench.of(parse_config(document))
    for item in (1, 2, 3):
        bench.feed("impressions", 0, S, {"item": item})
    bench.feed("purchase", 0, S + 5, {"item": 1, "paid": 42.0})
    bench.feed("purchase", 0, S + 5, {"item": 2, "paid": 101.0})
    bench.feed("clicks", 0, S + 6, {"item": 3})
    bench.watermark(S + W)
    rows = {(s["item"], kind): labels for s, (kind, labels, _) in zip(bench.samples, bench.rows, strict=True)}
    assert rows == {
        (1, "positive"): {"amount": 42, "bought": 1},
        (1, "negative"): {"click": 0},
        (2, "negative"): {"amount": 0, "click": 0, "bought": 0},
        (3, "positive"): {"click": 1},
        (3, "negative"): {"amount": 0, "bought": 0},
    }
    assert bench.reasons == ["label_out_of_range"]


def test_policies_differ_by_feedback():
    bench = FeedbackBench(click="fake_negative", purchase="fake_negative")
    bench.event("impressions", S)
    bench.event("purchase", S + 9)
    bench.watermark(S + W)
    assert bench.rows == [
        ("negative", {"click": 0, "purchase": 0}, 0),
        ("compensation", {"purchase": 1}, 9),
        ("negative", {"like": 0}, W),
    ]


@pytest.mark.parametrize(("kind", "horizon"), [("click", 2 * W), ("purchase", 3 * LONG)])
def test_an_event_after_the_horizon_of_its_feedback_is_a_dead_letter_of_its_topic(kind, horizon):
    bench = FeedbackBench()
    bench.event("impressions", S)
    bench.event(kind, S + horizon - 1)
    bench.event(kind, S + horizon)
    bench.finish()
    assert [(d["reason"], d["topic"]) for d in bench.dead] == [("click_too_late", kind)]


def test_an_impression_is_held_as_long_as_its_longest_feedback_needs():
    bench = FeedbackBench()
    bench.event("impressions", S)
    bench.watermark(S + LONG)
    bench.event("purchase", S + 3 * LONG - 1)
    bench.finish()
    assert bench.rows[-1] == ("compensation", {"purchase": 1}, 3 * LONG - 1)


def test_one_topic_that_was_never_seen_keeps_every_window_open():
    bench = FeedbackBench()
    bench.event("impressions", S)
    for kind in ("impressions", "click", "like"):
        bench.heartbeat(kind, S + 9 * LONG)
    assert bench.finish().rows == []
    bench.heartbeat("purchase", S + W)
    assert bench.finish().rows == [("negative", {"click": 0, "like": 0}, W)]


def test_a_restored_join_retains_what_each_feedback_decided_and_waits_for():
    bench = FeedbackBench()
    bench.event("impressions", S)
    bench.event("like", S + 5)
    bench.event("purchase", S + LONG + 1)
    bench.event("click", S + 6, item=2)
    bench.finish()
    bench.restart()
    bench.event("like", S + 6)
    bench.event("impressions", S + 1, item=2)
    bench.watermark(S + LONG + 1)
    assert sorted(bench.rows[1:], key=str) == sorted(
        [
            ("positive", {"click": 1}, 6),
            ("negative", {"click": 0}, W),
            ("negative", {"like": 0}, W + 1),
            ("negative", {"purchase": 0}, LONG),
            ("compensation", {"purchase": 1}, LONG + 1),
            ("negative", {"purchase": 0}, LONG + 1),
        ],
        key=str,
    )
    assert bench.reasons == ["duplicate_click"]


def test_a_state_of_other_feedbacks_is_refused():
    bench = FeedbackBench()
    state = encode_join(bench.join)
    with pytest.raises(MigrationError, match=r"purchase.* hint: set it back, or delete the join's state"):
        decode_join(Bench().config, 0, {"impressions": 1, "clicks": 1}, state)
