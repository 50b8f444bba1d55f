"""A configuration with columns of every type that a set of keys may have, and files of keys."""

from pathlib import Path

from pipeline.configuration.config import parse_config

WRITTEN = {
    "name": "shop",
    "logs": {"shards": 1},
    "events": {
        "key": ["id"],
        "impressions": {
            "columns": {
                "id": "int", "user": "string", "device": "uint", "tags": "strings", "seen": "ints", "price": "float",
            }
        },
        "clicks": {"columns": {"id": "int"}},
    },
    "model": {"batch_size": 64, "learning_rate": 0.05},
    "fields": [
        {"name": "who", "columns": ["user"], "dim": 4},
        {"name": "tags", "columns": ["tags"], "dim": 2, "pooling": "mean"},
        {"name": "pair", "columns": ["user", "device"], "dim": 2},
        {"name": "hour", "columns": ["at"], "transform": "hour", "dim": 2},
        {"name": "cents", "columns": ["price"], "transform": "log2", "dim": 2},
    ],
}  # fmt: skip
CONFIG = parse_config(WRITTEN)


def file_of(folder: Path, content: str | bytes) -> Path:
    """A file of keys in `folder`, which replaces the one before."""
    path = folder / "keys.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
