"""An embedded log that has lost its ledger."""

import shutil


def lose_ledger(logs, content=None):
    """Lose the ledger of one shard below the folder `logs`; `content` is what is found in its place."""
    topic = logs / "ledger"
    if content is None:
        shutil.rmtree(topic)
        return
    for path in topic.glob("*.sqlite*"):
        path.unlink()
    for partition in range(2):
        (topic / f"{partition}.sqlite").write_bytes(content)
