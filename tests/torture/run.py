"""One run: load, kills, verdict."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster.cluster import LocalCluster
from tests.torture import verdict
from tests.torture.head import Head
from tests.torture.load import Load
from tests.torture.project import calm_trainer, live_project, twin_project
from tests.torture.schedule import Kill, plan_kills
from tests.torture.site import Site

Say = Callable[[str], None]


def torture(cluster: LocalCluster, folder: Path, kills: int, seed: int, rate: float, say: Say) -> dict[str, Any]:
    """Torture a project in `folder` on a cluster that is up; the report, `equal` in it says whether all is well."""
    project = live_project(folder / "live", cluster)
    clock, began_s = project.clock, project.clock.monotonic_s()
    site, load = Site(cluster, project), Load(project, seed, rate)
    load.start()
    try:
        site.open()
        head = Head(site, load)
        say(f"at the head after {head.wait(began_s)}")
        struck = strike(site, head, plan_kills(kills, seed), say)
        head.close()
        load.end()
        produced_s = clock.monotonic_s() - began_s
        report = judge(site, folder, say)
        jobs = site.jobs()
    finally:
        load.end()
        site.close()
    return {
        "seed": seed,
        "rate_events_per_s": round(load.events / produced_s, 1),
        "events": load.events,
        **report,
        "submissions": site.submissions,
        "jobs": [{name: row[name] for name in ("job", "state", "restarts")} for row in jobs],
        "recovery_s": recovery_of(struck),
        "seconds": round(clock.monotonic_s() - began_s),
        "kills": struck,
    }


def strike(site: Site, head: Head, kills: Iterable[Kill], say: Say) -> list[dict[str, Any]]:
    """Kill and restore by plan; what was done, with the seconds until each stage was at the head again.

    A kill that a hasty one follows is not waited for: it has no times.
    """
    clock, struck, plan = site.project.clock, list[dict[str, Any]](), list(kills)
    for number, kill in enumerate(plan):
        clock.wait(kill.pause_s)
        began_s = clock.monotonic_s()
        pids = site.kill(kill.victim)
        row: dict[str, Any] = {**asdict(kill), "pids": pids}
        clock.wait(kill.outage_s)
        site.restore(kill.victim)
        row["restored_s"] = round(clock.monotonic_s() - began_s, 1)
        followed = number + 1 < len(plan) and plan[number + 1].hasty
        row["recovered_s"] = None if followed else head.wait(began_s)
        say(f"kill {number + 1} of {len(plan)}: {kill.victim}, restored {row['restored_s']}, {row['recovered_s']}")
        struck.append(row)
    return struck


def judge(site: Site, folder: Path, say: Say) -> dict[str, Any]:
    """Everything against an undisturbed run."""
    live, twin = site.project, twin_project(folder / "twin")
    verdict.join_calmly(live, twin)
    wanted = verdict.count_samples(twin)
    say(f"an undisturbed join gives {wanted} samples")
    verdict.wait_for_samples(site, wanted)
    samples, letters = verdict.compare_samples(live, twin), verdict.compare_letters(live, twin)
    say(f"samples {samples}, dead letters {letters}")
    calm = verdict.train_calmly(calm_trainer(folder / "calm", site.cluster))
    verdict.wait_for_trainer(site, calm)
    now = verdict.currents(live)
    verdict.wait_for_replica(site, now)
    served = verdict.served(site)
    same_model = [row["digest"] for row in now] == [row["digest"] for row in calm]
    same_replica = served == [{"version": row["version"], "served": row["served"]} for row in now]
    say(f"model {'equal' if same_model else 'differs'}, replica {'equal' if same_replica else 'differs'}")
    unlike = sum(counts[name] for counts in (samples, letters) for name in ("lost", "doubled", "differing"))
    return {
        "equal": not unlike and same_model and same_replica,
        "samples": samples,
        "dead_letters": letters,
        "model": {"equal": same_model, "live": now, "undisturbed": calm},
        "replica": {"equal": same_replica, "served": served},
    }


def recovery_of(struck: list[dict[str, Any]]) -> dict[str, Any]:
    """By victim, of the kills that were waited for: how many, and the seconds until the last stage was there."""
    found: dict[str, list[float]] = {}
    for row in struck:
        if row["recovered_s"]:
            found.setdefault(row["victim"], []).append(max(row["recovered_s"].values()))
    return {
        victim: {"kills": len(times), "median": float(np.median(times)), "max": max(times)}
        for victim, times in sorted(found.items())
    }
