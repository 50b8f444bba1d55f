"""A shop on the live cluster beside its twin in process, and what the tests of jobs on Flink look at."""

import time
import uuid
from pathlib import Path

import pandas as pd

from tests.command_line import feed, freshet, make_events, make_shop, samples_of

ROWS = 500
WAIT_S = 90.0
SHARDED = {"[logs]\n": "[logs]\npartitions = 2\nshards = 2\n"}


class Shop:
    """A project on the cluster, and a twin whose jobs run in process over the same events."""

    def __init__(self, root, cluster, replaced):
        self.cluster = cluster
        self.project = make_shop(root / "live", replaced)
        self.twin = make_shop(root / "twin", replaced)
        with (self.project / "freshet.toml").open("a") as file:
            file.write(f'\n[flink]\nrest = "{cluster.rest_url}"\njar = "{cluster.base_jar}"\ncheckpoint_every_s = 1\n')
        self._fed = 0

    def feed(self, pieces=1, close=False):
        """The next events, into both."""
        for piece in range(self._fed, self._fed + pieces):
            for folder in (self.project, self.twin):
                feed(folder, make_events(7, ROWS, piece * ROWS), f"piece-{piece}", close=close and piece + 1 == pieces)
        self._fed += pieces
        freshet(self.twin, "run", "samples", "--until-end")

    def run(self, job="samples", *options):
        started = freshet(self.project, "run", job, "--runner", "flink", *options)["jobs"]
        return {row["job"]: row for row in started}

    def stop(self):
        return freshet(self.project, "stop")["stopped"]

    def job(self, name="samples"):
        return next(row for row in freshet(self.project, "status")["jobs"] if row["job"] == name)

    def wait_until_joined(self):
        """Return once the live project has said what its twin has; fail where it says anything else."""
        wanted, ends_s = samples_of(self.twin), time.monotonic() + WAIT_S
        while len(found := samples_of(self.project)) < len(wanted):
            assert time.monotonic() < ends_s, (len(found), len(wanted), self.job())
            time.sleep(0.2)
        pd.testing.assert_frame_equal(found, wanted)

    def wait_for(self, reached):
        ends_s = time.monotonic() + WAIT_S
        while not reached():
            assert time.monotonic() < ends_s, freshet(self.project, "status")
            time.sleep(0.2)


class ShopOnKafka(Shop):
    """The live project's logs are on the cluster's broker."""

    def __init__(self, root, cluster, replaced=None):
        super().__init__(root, cluster, replaced)
        settings = self.project / "freshet.toml"
        engine = f'engine = "kafka"\nbootstrap = "{cluster.bootstrap}"\nprefix = "{uuid.uuid4().hex[:8]}."\n'
        settings.write_text(settings.read_text().replace("[logs]\n", f"[logs]\n{engine}", 1))


def workers(cluster):
    """Process ids of the Python workers that this cluster's TaskManager started."""
    parent, found = cluster.running()["taskmanager-1"].pid, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == parent and b"freshet-worker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def newest(project):
    """The version that is CURRENT of shard 0; None before the first commit."""
    return next((row for row in freshet(project, "versions")["versions"] if row["current"]), None)


def current(project):
    """Digest and position of CURRENT, by shard."""
    listed = freshet(project, "versions")["versions"]
    return [(row["digest"], row["position"]) for row in listed if row["current"]]
