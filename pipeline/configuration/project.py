"""A project: a folder with `springtide.toml`, `model.py` and the state folder, which holds all durable state."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.configuration.config import Config, load_config
from pipeline.process.clock import Clock, SystemClock


@dataclass(frozen=True)
class Project:
    """The project's configuration, folders and clock. Thread-safe."""

    root: Path
    config: Config
    clock: Clock

    @classmethod
    def open(cls, root: Path, clock: Clock | None = None) -> "Project":
        """The project in folder `root`. Raises ConfigError."""
        root = root.resolve()
        return cls(root, load_config(root / "springtide.toml"), clock or SystemClock())

    @property
    def state(self) -> Path:
        return self.root / self.config.state_dir

    @property
    def logs(self) -> Path:
        return self.root / self.config.logs.path if self.config.logs.path else self.state / "logs"

    @property
    def join_state(self) -> Path:
        """The saved state of the join."""
        return self.state / "samples"

    @property
    def alignment(self) -> Path:
        """Progress files that live readers exchange for event-time alignment."""
        return self.state / "alignment"

    @property
    def versions(self) -> Path:
        """The ledger and the trainer's versions."""
        return self.state / "versions"

    @property
    def published(self) -> Path:
        """Files of incremental deltas and full snapshots for serving."""
        return self.state / "published"

    @property
    def publish_requests(self) -> Path:
        """By shard, the lock of its trainers and an operator's request for a full snapshot."""
        return self.state / "publish"

    @property
    def cluster(self) -> Path:
        """The local Kafka and Flink: data, settings and logs."""
        return self.root / self.config.cluster.folder if self.config.cluster.folder else self.state / "cluster"

    @property
    def telemetry(self) -> Path:
        """Target files of Prometheus's service discovery."""
        return self.state / "telemetry"
