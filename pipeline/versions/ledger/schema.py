"""The tables of the ledger. A change to them raises the version."""

from pipeline.versions.ledger.sealed_tables import Schema, Table

SCHEMA = Schema(
    5,
    (
        Table(
            "shard",
            (
                "shard INTEGER PRIMARY KEY", "shards INTEGER NOT NULL", "epoch INTEGER NOT NULL", "generation INTEGER",
                "sequence INTEGER",
            ),
        ),
        Table(
            "version",
            (
                "shard INTEGER NOT NULL", "generation INTEGER NOT NULL", "sequence INTEGER NOT NULL",
                "shards INTEGER NOT NULL", "parent_generation INTEGER", "parent_sequence INTEGER",
                "epoch INTEGER NOT NULL", "path TEXT NOT NULL", "file_digest TEXT NOT NULL", "touched_path TEXT",
                "touched_digest TEXT", '"offset" INTEGER NOT NULL', '"row" INTEGER NOT NULL',
                "first_at_ms INTEGER NOT NULL", "last_at_ms INTEGER NOT NULL", "digest TEXT NOT NULL",
                "served_digest TEXT NOT NULL", "size_bytes INTEGER NOT NULL", "rows_touched INTEGER NOT NULL",
                "samples_seen INTEGER NOT NULL", "committed_at_ms INTEGER NOT NULL", "full INTEGER NOT NULL",
                "pinned INTEGER NOT NULL",
            ),
            key=("shard", "generation", "sequence"),
        ),
        Table(
            "change_file",
            (
                "path TEXT PRIMARY KEY", "shard INTEGER NOT NULL", "shards INTEGER NOT NULL",
                "generation INTEGER NOT NULL", "sequence INTEGER NOT NULL", "after_generation INTEGER",
                "after_sequence INTEGER", "size_bytes INTEGER NOT NULL", "digest TEXT NOT NULL",
            ),
        ),
        Table(
            "generation",
            (
                "generation INTEGER NOT NULL", "shard INTEGER NOT NULL", "target_generation INTEGER NOT NULL",
                "target_sequence INTEGER NOT NULL", "raised_at_ms INTEGER NOT NULL",
            ),
            key=("generation", "shard"),
        ),
        Table(
            "quarantine",
            (
                "id INTEGER PRIMARY KEY", "reason TEXT NOT NULL", "from_ms INTEGER", "to_ms INTEGER", "shard INTEGER",
                "from_offset INTEGER", "from_row INTEGER", "to_offset INTEGER", "to_row INTEGER",
                "added_at_ms INTEGER NOT NULL", "removed_at_ms INTEGER", "selection TEXT",
            ),
        ),
        Table(
            "halted",
            (
                "id INTEGER PRIMARY KEY", "shard INTEGER NOT NULL", "reason TEXT NOT NULL", "batch_file TEXT NOT NULL",
                "at_ms INTEGER NOT NULL", "cleared_at_ms INTEGER",
            ),
        ),
        Table(
            "rollback",
            (
                "id INTEGER PRIMARY KEY", "generation INTEGER NOT NULL", "state TEXT NOT NULL", "shards TEXT NOT NULL",
                "quarantine INTEGER NOT NULL", "document TEXT NOT NULL", "audit TEXT NOT NULL",
                "begun_at_ms INTEGER NOT NULL",
            ),
        ),
        Table(
            "published",
            (
                "level TEXT NOT NULL", "shard INTEGER NOT NULL", "shards INTEGER NOT NULL",
                "generation INTEGER NOT NULL", "sequence INTEGER NOT NULL", "path TEXT NOT NULL",
                "at_ms INTEGER NOT NULL",
            ),
            key=("level", "shard", "generation", "sequence"),
        ),
    ),
    "CREATE INDEX version_by_parent ON version (shard, parent_generation, parent_sequence);"
    "CREATE INDEX change_file_by_shard ON change_file (shard);",
)  # fmt: skip
