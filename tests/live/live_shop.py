"""A project on the live cluster, and a shop with a twin in process over the same events."""

import shutil
import time
import uuid
from pathlib import Path

import pandas as pd
import psutil

from tests.support.command.command_line import feed, make_events, make_shop, samples_of, springtide

ROWS = 500
# An upper bound: a worker that imports TensorFlow beside others takes most of a minute on a slow machine.
WAIT_S = 300.0
_POLL_EVERY_S = 0.2
_POLL_SHARE = 1 / 5
"""The most of the time that polls take: each reads the complete log, beside the jobs that are waited for."""
SHARDED = {"[logs]\n": "[logs]\npartitions = 2\nshards = 2\n"}


class Live:
    """A project whose jobs run on the cluster."""

    def __init__(self, project, cluster):
        self.project, self.cluster = project, cluster
        # Larger bundles than by default: with two clusters at work the looks for full ones would fill the processors.
        flink = f'\n[flink]\nrest = "{cluster.rest_url}"\njar = "{cluster.base_jar}"\ncheckpoint_every_s = 1\n'
        with (project / "springtide.toml").open("a") as file:
            file.write(f"{flink}bundle_ms = 50\n")

    def run(self, job="samples", *options):
        started = springtide(self.project, "run", job, "--runner", "flink", *options)["jobs"]
        return {row["job"]: row for row in started}

    def stop(self):
        return springtide(self.project, "stop")["stopped"]

    def job(self, name="samples"):
        return next(row for row in springtide(self.project, "status")["jobs"] if row["job"] == name)

    def wait_for_samples(self, wanted):
        """Return once the project has emitted exactly `wanted`, in the order of `samples_of`."""
        found = _polled(
            lambda: samples_of(self.project),
            lambda found: len(found) >= len(wanted),
            lambda found: (len(found), len(wanted), self.job()),
        )
        pd.testing.assert_frame_equal(found, wanted)

    def wait_for(self, reached):
        _polled(reached, bool, lambda _: springtide(self.project, "status"))


def _polled(poll, enough, state):
    """The first result of `poll` that is `enough`. Raises AssertionError with `state` of the last one after WAIT_S."""
    ends_s = time.monotonic() + WAIT_S
    while True:
        began_s = time.monotonic()
        if enough(found := poll()):
            return found
        assert time.monotonic() < ends_s, state(found)
        time.sleep(max(_POLL_EVERY_S, (time.monotonic() - began_s) * (1 / _POLL_SHARE - 1)))


class Shop(Live):
    """A shop on the cluster, and a twin whose jobs run in process over the same events."""

    def __init__(self, root, cluster, replaced):
        super().__init__(make_shop(root / "live", replaced), cluster)
        self.twin = make_shop(root / "twin", replaced)
        self._fed = 0

    def feed(self, pieces=1, close=False):
        """Append the next events to both."""
        for _ in range(pieces - 1):
            self.append(self.next_events())
        self.append(self.next_events(), close)
        self.join_twin()

    def next_events(self):
        self._fed += 1
        return make_events(7, ROWS, (self._fed - 1) * ROWS)

    def append(self, events, close=False):
        """Append these events to both."""
        for folder in (self.project, self.twin):
            feed(folder, events, f"piece-{self._fed}", close=close)

    def run_both(self, *command):
        """Run a command on both."""
        return [springtide(folder, *command) for folder in (self.project, self.twin)]

    def declare(self, lines):
        """Append lines to both configurations."""
        for folder in (self.project, self.twin):
            with (folder / "springtide.toml").open("a") as file:
                file.write(lines)

    def join_twin(self):
        springtide(self.twin, "run", "samples", "--until-end")

    def change(self, replaced):
        """Replace strings of both configurations."""
        for folder in (self.project, self.twin):
            change(folder, replaced)

    def wait_until_joined(self):
        """Return once the live project has emitted the samples of its twin; fail if it emits others."""
        self.wait_for_samples(samples_of(self.twin))


class ShopOnKafka(Shop):
    """A shop whose live logs are on the cluster's broker."""

    def __init__(self, root, cluster, replaced=None):
        super().__init__(root, cluster, replaced)
        settings = self.project / "springtide.toml"
        engine = f'engine = "kafka"\nbootstrap = "{cluster.bootstrap}"\nprefix = "{uuid.uuid4().hex[:8]}."\n'
        settings.write_text(settings.read_text().replace("[logs]\n", f"[logs]\n{engine}", 1))


def change(project, replaced):
    """Replace strings of a project's springtide.toml."""
    path = project / "springtide.toml"
    text = path.read_text()
    for old, new in replaced.items():
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)


def reference_project(project):
    """A new project with only the configuration, model and samples log of `project`."""
    reference = project.parent / "reference"
    reference.mkdir()
    for name in ("springtide.toml", "model.py"):
        shutil.copy(project / name, reference)
    copy_samples(reference, project)
    return reference


def copy_samples(project, source):
    """Replace the samples log of `project` by a copy of the one of `source`."""
    logs = Path("state", "logs", "samples")
    shutil.rmtree(project / logs, ignore_errors=True)
    shutil.copytree(source / logs, project / logs)


def workers(cluster):
    """Process ids of the Python workers that this cluster's TaskManagers started."""
    parents = {process.pid for name, process in cluster.running().items() if name.startswith("taskmanager")}
    children = [p for p in psutil.process_iter(["ppid", "cmdline"]) if p.info["ppid"] in parents]
    return [p.pid for p in children if any("springtide-worker" in part for part in p.info["cmdline"] or ())]


def latest(project):
    """The version that is CURRENT of shard 0; None before the first commit."""
    return next((row for row in springtide(project, "versions")["versions"] if row["current"]), None)


def current(project):
    """Digest and position of CURRENT, by shard."""
    listed = springtide(project, "versions")["versions"]
    return [(row["digest"], row["position"]) for row in listed if row["current"]]
