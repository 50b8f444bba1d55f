"""One run: load, kills, verdict."""

from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.cluster.cluster import LocalCluster
from tests.torture import verdict
from tests.torture.head import Head
from tests.torture.load import Load
from tests.torture.project import live_project, reference_trainer, twin_project
from tests.torture.schedule import Plan
from tests.torture.site import Site
from tests.torture.strike import Progress, Striker, recovery_of


def torture(
    cluster: LocalCluster, folder: Path, plan: Plan, seed: int, rate: float, progress: Progress
) -> dict[str, Any]:
    """Torture a project in `folder` on a running cluster; `equal` of the report is whether every comparison passed.

    `seed` determines the events; `rate` is in impressions per second; `progress` receives lines of text.
    """
    project = live_project(folder / "live", cluster, prefix="torture.")
    clock, began_s = project.clock, project.clock.monotonic_s()
    site, load = Site(cluster, project), Load(project, seed, rate)
    load.start()
    try:
        site.open()
        head = Head(site, load)
        progress(f"at the head after {head.wait(began_s)}")
        struck = Striker(site, load, head, progress).strike(plan)
        head.close()
        load.end()
        produced_s = clock.monotonic_s() - began_s
        report = judge(site, folder, progress)
        jobs = site.jobs()
    finally:
        load.end()
        site.close()
    return {
        "seed": seed,
        "rate_events_per_s": round(load.events / produced_s, 1),
        "events": load.events,
        **report,
        "struck": dict(Counter(row["victim"] for row in struck)),
        "rollbacks": sum("rollback" in row for row in struck),
        "submissions": site.submissions,
        "jobs": [{name: row[name] for name in ("job", "state", "restarts")} for row in jobs],
        "recovery_s": recovery_of(struck),
        "seconds": round(clock.monotonic_s() - began_s),
        "kills": struck,
    }


def judge(site: Site, folder: Path, progress: Progress) -> dict[str, Any]:
    """Compare samples, dead letters, model and replica with an undisturbed run."""
    live, twin = site.project, twin_project(folder / "twin")
    verdict.join_reference(live, twin)
    wanted = verdict.count_samples(twin)
    progress(f"an undisturbed join gives {wanted} samples")
    verdict.wait_for_samples(site, wanted)
    samples, letters = verdict.compare_samples(live, twin), verdict.compare_letters(live, twin)
    progress(f"samples {samples}, dead letters {letters}")
    trainer = reference_trainer(folder / "reference", site.cluster, live)
    reference = verdict.train_reference(trainer, verdict.quarantines_of(live))
    verdict.wait_for_trainer(site, reference)
    now = verdict.currents(live)
    verdict.wait_for_replica(site, now)
    served = verdict.served(site)
    same_model = [row["digest"] for row in now] == [row["digest"] for row in reference]
    same_replica = served == [{"version": row["version"], "served": row["served"]} for row in now]
    progress(f"model {'equal' if same_model else 'differs'}, replica {'equal' if same_replica else 'differs'}")
    unlike = sum(counts[name] for counts in (samples, letters) for name in ("lost", "doubled", "differing"))
    return {
        "equal": not unlike and same_model and same_replica,
        "samples": samples,
        "dead_letters": letters,
        "model": {"equal": same_model, "live": now, "undisturbed": reference},
        "replica": {"equal": same_replica, "served": served},
    }
