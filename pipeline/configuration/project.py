"""A project: a folder with `springtide.toml`, `model.py` and the state folder, which holds all durable state."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.configuration.config import Config, load_config
from pipeline.files.folder import FolderFiles
from pipeline.files.interface import Files, StoredFolder
from pipeline.files.local_copies import LocalCopies
from pipeline.files.object_store import ObjectStoreFiles
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

    @cached_property
    def files(self) -> Files:
        """What holds the files of versions, published files and halted batches. Raises FilesError."""
        config = self.config.files
        if config.url is None:
            return FolderFiles(self.state)
        folder = self.root / config.copies if config.copies else self.state / "copies"
        copies = LocalCopies(folder, config.copies_bytes)
        return ObjectStoreFiles(config.url, copies, config.deadline_s, config.options)

    @property
    def versions(self) -> Path:
        """The ledger."""
        return self.state / "versions"

    @property
    def version_files(self) -> StoredFolder:
        """Files of the trainer's versions."""
        return StoredFolder(self.files, "versions")

    @property
    def published(self) -> StoredFolder:
        """Files of incremental deltas and full snapshots for serving."""
        return StoredFolder(self.files, "published")

    @property
    def halted(self) -> StoredFolder:
        """Batches and records that halted a shard."""
        return StoredFolder(self.files, "halted")

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
