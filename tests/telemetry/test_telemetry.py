"""The HTTP exporter, its target file, and the readers that supply its metrics."""

import http.client
import socket

import pytest

from pipeline.errors import InputError, LogError
from pipeline.telemetry import exporter, metrics, readers
from tests.support.command.scrape import parsed, scrape, url_of
from tests.support.shop.shop import WRITTEN, make_project


@pytest.fixture(autouse=True)
def _stop_exporter_and_readers():
    yield
    exporter.stop_exporter()
    for name in ("one", "other"):
        readers.unregister(name)


def project_on(root, port):
    return make_project(root, {**WRITTEN, "telemetry": {"port": port}})


def exported():
    return parsed(exporter.metrics_text().decode())


def free_port():
    """A free port, probably followed by free ones."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(probe.getsockname()[1], 60_000)


def held(rows, shard="0"):
    return lambda: [metrics.JOIN_HELD.reading(rows, shard)]


def test_off_means_no_port_and_no_file(tmp_path):
    project = project_on(tmp_path, "off")
    assert exporter.start_exporter(project, "train") is None
    assert url_of(tmp_path, "train") is None


def test_a_process_has_one_exporter_however_often_it_is_started(tmp_path):
    project = project_on(tmp_path, 0)
    port = exporter.start_exporter(project, "train")
    assert exporter.start_exporter(project, "train") == exporter.start_exporter(project, "worker") == port
    assert url_of(tmp_path, "worker") is None
    assert scrape(url_of(tmp_path, "train"))("springtide_disk_free_bytes") > 0


def test_the_target_file_is_removed_when_the_exporter_stops(tmp_path):
    port = exporter.start_exporter(project_on(tmp_path, 0), "train")
    exporter.stop_exporter()
    assert url_of(tmp_path, "train") is None
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", port).connect()


def test_the_target_file_of_a_successor_stays(tmp_path):
    exporter.start_exporter(project_on(tmp_path, 0), "train")
    (tmp_path / "state" / "telemetry" / "train.json").write_text('[{"targets": ["127.0.0.1:9"], "labels": {}}]')
    exporter.stop_exporter()
    assert url_of(tmp_path, "train") == "http://127.0.0.1:9/metrics"


def test_if_the_port_is_in_use_the_next_free_one_is_used(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        first = taken.getsockname()[1]
        port = exporter.start_exporter(project_on(tmp_path, first), "train")
    assert first < port < first + exporter.PORTS
    assert scrape(url_of(tmp_path, "train"))("springtide_disk_size_bytes") > 0


def test_if_no_port_is_free_the_error_names_the_setting(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 65_535))
        taken.listen()
        with pytest.raises(InputError, match=r"65535.*telemetry\.port = 0"):
            exporter.start_exporter(project_on(tmp_path, 65_535), "train")


def test_readers_are_called_at_every_scrape():
    rows = [3]
    readers.register("one", lambda: held(rows[0])())
    assert exported()("springtide_join_held_impressions", shard="0") == 3
    rows[0] = 4
    assert exported()("springtide_join_held_impressions", shard="0") == 4


def test_readers_of_several_shards_share_a_metric():
    readers.register("one", held(3, "0"))
    readers.register("other", held(5, "1"))
    assert exported().all("springtide_join_held_impressions") == {"0": 3, "1": 5}


def test_a_later_reader_of_a_name_replaces_an_earlier_one_and_an_unregistered_one_is_not_called():
    readers.register("one", held(3))
    readers.register("one", held(7))
    assert exported().all("springtide_join_held_impressions") == {"0": 7}
    readers.unregister("one")
    assert exported().all("springtide_join_held_impressions") == {}


def test_a_reader_that_fails_is_counted_and_hides_no_other():
    def fail():
        yield metrics.JOIN_HELD.reading(1, "9")
        raise LogError("topic clicks does not exist")

    readers.register("one", fail)
    readers.register("other", held(5))
    before = exported()("springtide_reading_failures_total", reader="one")
    shown = exported()
    assert shown.all("springtide_join_held_impressions") == {"0": 5}
    assert exported()("springtide_reading_failures_total", reader="one") > (before or 0)


def test_a_name_that_ends_in_total_is_a_counter():
    readers.register("one", lambda: [metrics.JOIN_EVENTS.reading(2, 0), *held(1)()])
    text = exporter.metrics_text().decode()
    assert "# TYPE springtide_join_events_total counter" in text
    assert "# TYPE springtide_join_held_impressions gauge" in text
