"""Carries out the kills at a site under load, and measures the recovery from each."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from tests.torture.head import Head
from tests.torture.load import Load
from tests.torture.schedule import Kill, Plan
from tests.torture.site import Site

Progress = Callable[[str], None]
Row = dict[str, Any]
_ENDS_AT = {"planned": "rollback.after_plan", "published": "rollback.after_delta"}
"""The crash points at which a rollback is interrupted."""


class Striker:
    """Kills by plan, and restores as an operator would."""

    def __init__(self, site: Site, load: Load, head: Head, progress: Progress) -> None:
        self._site, self._load, self._head, self._progress = site, load, head, progress
        self._clock = site.project.clock

    def strike(self, plan: Plan) -> list[Row]:
        """Carry out the plan; returns a row per kill with the seconds until each stage was at the head again.

        A kill followed by a hasty one has no recovery times.
        """
        followed = [kill.hasty for kill in plan.kills[1:]] + [False]
        struck: list[Row] = []
        ends_s = self._clock.monotonic_s() + (plan.within_s or float("inf"))
        for kill, hasty_next in zip(plan.kills, followed, strict=True):
            if self._clock.monotonic_s() > ends_s:
                break
            self._clock.wait(kill.pause_s)
            row = asdict(kill) | self._carry_out(kill)
            began_s = row.pop("began_s")
            row["restored_s"] = round(self._clock.monotonic_s() - began_s, 1)
            row["recovered_s"] = None if hasty_next else self._head.wait(began_s)
            struck.append(row)
            done = f"{len(struck)} of {len(plan.kills)}: {kill.victim}{' during a rollback' if kill.rollback_s else ''}"
            self._progress(f"{done}, restored {row['restored_s']}, {row['recovered_s']}")
        return struck

    def _carry_out(self, kill: Kill) -> Row:
        what, _, victim = kill.victim.partition(" ")
        if what == "zombie":
            return self._make_zombie(victim)
        if what == "rollback":
            return self._interrupt_rollback(kill, _ENDS_AT[victim])
        if what == "absent":
            return self._leave_absent(kill, victim)
        return self._kill_during_rollback(kill) if kill.rollback_s is not None else self._kill(kill)

    def _kill(self, kill: Kill) -> Row:
        began_s = self._clock.monotonic_s()
        pids = self._site.kill(kill.victim)
        self._clock.wait(kill.outage_s)
        self._site.restore(kill.victim)
        return {"pids": pids, "began_s": began_s}

    def _leave_absent(self, kill: Kill, victim: str) -> Row:
        """Restart late; meanwhile `springtide status` must report every job as stalled."""
        began_s = self._clock.monotonic_s()
        pids = self._site.kill(victim)
        self._clock.wait(kill.outage_s)
        stalled = {row["job"]: row["stalled"] for row in self._site.jobs()}
        assert all(stalled.values()), f"status does not report the jobs as stalled: {stalled}"
        self._site.restore(victim)
        return {"pids": pids, "stalled": stalled, "began_s": began_s}

    def _make_zombie(self, victim: str) -> Row:
        frozen = self._site.freeze(victim)
        self._head.wait(self._clock.monotonic_s())
        began_s = self._clock.monotonic_s()
        self._site.thaw(frozen)
        return {"pids": [frozen], "began_s": began_s}

    def _kill_during_rollback(self, kill: Kill) -> Row:
        range_ms = self._learn_bad_data()
        process = self._site.begin_rollback(range_ms)
        self._clock.wait(kill.rollback_s or 0.0)
        row = self._kill(kill)
        done = self._site.result_of(process, "rollback")["done"]
        return row | {"rollback": _rollback_row(range_ms, done)}

    def _interrupt_rollback(self, kill: Kill, point: str) -> Row:
        range_ms = self._learn_bad_data()
        began_s = self._clock.monotonic_s()
        process = self._site.begin_rollback(range_ms, crash_at=point)
        process.wait()
        assert process.returncode < 0, f"the rollback was not killed at {point}, it ended with {process.returncode}"
        self._clock.wait(kill.outage_s)
        done = self._site.finish_rollback()
        return {"pids": [process.pid], "rollback": _rollback_row(range_ms, done), "began_s": began_s}

    def _learn_bad_data(self) -> tuple[int, int]:
        """Produce bad data; returns its time range once every shard has learned from it."""
        range_ms = self._load.contaminate()
        self._head.wait_until_learned(range_ms[1])
        return range_ms


def recovery_of(struck: list[Row]) -> Row:
    """By victim, of the kills with recovery times: the number, and the seconds until the last stage was at the head."""
    found: dict[str, list[float]] = {}
    for row in struck:
        if row["recovered_s"]:
            found.setdefault(row["victim"], []).append(max(row["recovered_s"].values()))
    return {
        victim: {"kills": len(times), "median": float(np.median(times)), "max": max(times)}
        for victim, times in sorted(found.items())
    }


def _rollback_row(range_ms: tuple[int, int], done: Row) -> Row:
    undone = [(shard["undone"], shard["target"], shard["version"]) for shard in done["shards"]]
    return {"quarantined_ms": range_ms, "undone_target_version": undone}
