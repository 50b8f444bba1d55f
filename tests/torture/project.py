"""The market's project in three forms: on the cluster, as a twin in process, and as a reference trainer."""

from importlib import resources
from pathlib import Path

from pipeline.cluster.cluster import LocalCluster
from pipeline.configuration.project import Project

SHARDS = 2
_TRAIN = """
[train]
commit_every_s = 1

[serving]
port = 0
"""


def live_project(root: Path, cluster: LocalCluster, prefix: str = "") -> Project:
    """On the cluster; `prefix` precedes the names of its topics."""
    flink = f'\n[flink]\nrest = "{cluster.rest_url}"\njar = "{cluster.base_jar}"\ncheckpoint_every_s = 2\n'
    return _write(root, _on_kafka(cluster, prefix), flink)


def twin_project(root: Path) -> Project:
    """With a separate embedded log."""
    return _write(root, "", "")


def reference_trainer(root: Path, cluster: LocalCluster, live: Project) -> Project:
    """Learns from the live project's samples and publishes to separate topics."""
    prefix = live.config.logs.prefix
    own = "".join(f'{topic} = "reference-{topic}"\n' for topic in ("deltas", "ledger", "notices"))
    return _write(root, _on_kafka(cluster, prefix), f"\n[topics]\n{own}")


def _on_kafka(cluster: LocalCluster, prefix: str) -> str:
    return f'engine = "kafka"\nbootstrap = "{cluster.bootstrap}"\nprefix = "{prefix}"\nretry_timeout_s = 60\n'


def _write(root: Path, logs: str, more: str) -> Project:
    root.mkdir(parents=True)
    files = resources.files("pipeline.market") / "project"
    (root / "model.py").write_text((files / "model.py").read_text(encoding="utf-8"), encoding="utf-8")
    text = (files / "springtide.toml").read_text(encoding="utf-8")
    for old, new in (
        ("[logs]\npartitions = 1\nshards = 1\n", f"[logs]\n{logs}partitions = {SHARDS}\nshards = {SHARDS}\n"),
        ("batch_size = 512", "batch_size = 128"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    (root / "springtide.toml").write_text(text + _TRAIN + more, encoding="utf-8")
    return Project.open(root)
