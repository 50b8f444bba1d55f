"""Files in an S3 server: the contract, faults on the way to it, local copies, and what a store refuses."""

import uuid

import pytest

from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.store import ACCESS_KEY, BUCKET, SECRET_KEY
from pipeline.configuration.deployment.services import Cluster
from pipeline.errors import FilesError
from pipeline.files.interface import StoredFile, StoredFolder
from pipeline.files.local_copies import LocalCopies
from pipeline.files.object_store import ObjectStoreFiles
from tests.live.files.unreliable_proxy import UnreliableProxy
from tests.support.command.ports import free_port_range
from tests.support.world.files_contract import FilesContract


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The port of a running S3 server."""
    made = LocalCluster(Cluster(store_port=free_port_range(1)), tmp_path_factory.mktemp("store"))
    try:
        made.up(["store"])
        yield made.settings.store_port
    finally:
        made.down(wipe=True)


@pytest.fixture
def connect(server, tmp_path, monkeypatch):
    """Returns files below one prefix, by a port, a deadline, a bucket, a budget of copies."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    prefix = f"project-{uuid.uuid4().hex}/state"

    def files(port=server, deadline_s=30.0, bucket=BUCKET, copies_bytes=1 << 30):
        options = {"endpoint": f"http://127.0.0.1:{port}", "region": "local"}
        copies = LocalCopies(tmp_path / "copies", copies_bytes)
        return ObjectStoreFiles(f"s3://{bucket}/{prefix}", copies, deadline_s, options)

    return files


@pytest.fixture
def files(connect):
    return connect()


class TestObjectStore(FilesContract):
    def test_a_copy_is_fetched_once_and_the_least_recently_used_go_beyond_the_budget(self, connect, tmp_path):
        files = connect(copies_bytes=25 << 20)
        stored = [StoredFile(files, f"versions/{number}") for number in range(3)]
        for number, file in enumerate(stored):
            file.write([bytes([number]) * (10 << 20)])
        paths = [file.local() for file in stored[:2]]
        written = paths[0].stat().st_ino
        stored[0].local()
        assert paths[0].stat().st_ino == written
        stored[2].local()
        assert sorted(path.name for path in (tmp_path / "copies").rglob("*") if path.is_file()) == ["0", "2"]
        assert stored[1].local().read_bytes() == b"\1" * (10 << 20)

    def test_requests_that_fail_are_repeated_and_nothing_is_torn(self, server, connect):
        contents = {f"versions/{number}": bytes([number]) * (5 << 20) for number in range(6)}
        with UnreliableProxy(server, failing=0.002) as proxy:
            files = connect(proxy.port)
            for name, content in contents.items():
                StoredFile(files, name).write([content] * 4)
                assert StoredFile(files, name).read() == content * 4
            listed = [name for name, _ in StoredFolder(files, "versions").list()]
            assert sorted(listed) == [str(number) for number in range(6)]
            assert proxy.failed > 0

    def test_a_store_that_says_slow_down_is_waited_for(self, server, connect):
        with UnreliableProxy(server, throttled=6) as proxy:
            StoredFile(connect(proxy.port), "versions/slow").write([b"arrived"])
            assert StoredFile(connect(), "versions/slow").read() == b"arrived"
            assert proxy.throttled == 0

    def test_a_store_out_of_reach_is_an_error_when_the_deadline_has_passed(self, connect):
        files = connect(port=free_port_range(1), deadline_s=1.0)
        for attempt in (lambda: StoredFile(files, "a/b").write([b"x"]), StoredFile(files, "a/b").read):
            with pytest.raises(FilesError, match=r"s3://springtide/\S+/a/b cannot be read or written: .*is the store"):
                attempt()

    def test_wrong_credentials_and_a_missing_bucket_are_named(self, connect, monkeypatch):
        with pytest.raises(FilesError, match="the bucket does not exist"):
            StoredFile(connect(bucket="elsewhere"), "a/b").write([b"x"])
        with pytest.raises(FilesError, match="the bucket does not exist"):
            list(StoredFolder(connect(bucket="elsewhere"), "a").list())
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(FilesError, match="access is refused"):
            StoredFile(connect(), "a/b").write([b"x"])
