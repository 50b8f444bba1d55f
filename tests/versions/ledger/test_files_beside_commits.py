"""What no version needs is listed while versions are committed."""

import threading
from concurrent.futures import ThreadPoolExecutor

from tests.support.synthetic.trainer import SyntheticTrainer, project_at


def test_a_version_that_is_committed_while_files_are_listed_is_no_damage(tmp_path):
    trainer, committed = SyntheticTrainer(project_at(tmp_path)), threading.Event()
    trainer.run(1)

    def list_files() -> int:
        listed = 0
        while not committed.is_set():
            trainer.store.ledger.unneeded_files(0)
            listed += 1
        return listed

    with ThreadPoolExecutor(2) as threads:
        listings = [threads.submit(list_files) for _ in range(2)]
        try:
            trainer.run(60)
        finally:
            committed.set()
        assert min(listing.result() for listing in listings) > 60
    assert trainer.store.ledger.unneeded_files(0) == []
    trainer.close()
