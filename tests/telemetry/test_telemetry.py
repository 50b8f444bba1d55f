"""The port that a process answers Prometheus on, and who is asked for what it answers."""

import http.client
import socket

import pytest

from pipeline.errors import InputError, LogError
from pipeline.telemetry import metrics
from tests.support.scrape import parsed, scrape, url_of
from tests.support.shop import WRITTEN, make_project


@pytest.fixture(autouse=True)
def _nobody_serves_or_is_watched():
    yield
    metrics.stop_serving()
    for name in ("one", "other"):
        metrics.forget(name)


def project_on(root, port):
    return make_project(root, {**WRITTEN, "telemetry": {"port": port}})


def told():
    return parsed(metrics.text().decode())


def free_port():
    """One with free ones after it, as far as one can know."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(probe.getsockname()[1], 60_000)


def held(rows, shard="0"):
    return lambda: [metrics.JOIN_HELD.reading(rows, shard)]


def test_off_means_no_port_and_no_file(tmp_path):
    project = project_on(tmp_path, "off")
    assert metrics.serve(project, "train") is None
    assert url_of(tmp_path, "train") is None


def test_a_process_serves_one_port_however_often_it_is_asked(tmp_path):
    project = project_on(tmp_path, 0)
    port = metrics.serve(project, "train")
    assert metrics.serve(project, "train") == metrics.serve(project, "worker") == port
    assert url_of(tmp_path, "worker") is None
    assert scrape(url_of(tmp_path, "train"))("springtide_disk_free_bytes") > 0


def test_the_address_goes_when_the_process_stops_serving(tmp_path):
    port = metrics.serve(project_on(tmp_path, 0), "train")
    metrics.stop_serving()
    assert url_of(tmp_path, "train") is None
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", port).connect()


def test_the_address_of_a_successor_stays(tmp_path):
    metrics.serve(project_on(tmp_path, 0), "train")
    (tmp_path / "state" / "telemetry" / "train.json").write_text('[{"targets": ["127.0.0.1:9"], "labels": {}}]')
    metrics.stop_serving()
    assert url_of(tmp_path, "train") == "http://127.0.0.1:9/metrics"


def test_a_taken_port_gives_way_to_the_next_free_one(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        first = taken.getsockname()[1]
        port = metrics.serve(project_on(tmp_path, first), "train")
    assert first < port < first + metrics.PORTS
    assert scrape(url_of(tmp_path, "train"))("springtide_disk_size_bytes") > 0


def test_where_no_port_is_free_the_error_names_the_setting(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 65_535))
        taken.listen()
        with pytest.raises(InputError, match=r"65535.*telemetry\.port = 0"):
            metrics.serve(project_on(tmp_path, 65_535), "train")


def test_readers_are_asked_at_every_scrape():
    rows = [3]
    metrics.watch("one", lambda: held(rows[0])())
    assert told()("springtide_join_held_impressions", shard="0") == 3
    rows[0] = 4
    assert told()("springtide_join_held_impressions", shard="0") == 4


def test_readers_of_several_shards_share_a_metric():
    metrics.watch("one", held(3, "0"))
    metrics.watch("other", held(5, "1"))
    assert told().all("springtide_join_held_impressions") == {"0": 3, "1": 5}


def test_a_later_reader_of_a_name_replaces_an_earlier_one_and_a_forgotten_one_is_silent():
    metrics.watch("one", held(3))
    metrics.watch("one", held(7))
    assert told().all("springtide_join_held_impressions") == {"0": 7}
    metrics.forget("one")
    assert told().all("springtide_join_held_impressions") == {}


def test_a_reader_that_fails_is_counted_and_hides_no_other():
    def fail():
        yield metrics.JOIN_HELD.reading(1, "9")
        raise LogError("topic clicks does not exist")

    metrics.watch("one", fail)
    metrics.watch("other", held(5))
    before = told()("springtide_reading_failures_total", reader="one")
    shown = told()
    assert shown.all("springtide_join_held_impressions") == {"0": 5}
    assert told()("springtide_reading_failures_total", reader="one") > (before or 0)


def test_a_name_that_ends_in_total_is_a_counter():
    metrics.watch("one", lambda: [metrics.JOIN_EVENTS.reading(2, 0), *held(1)()])
    text = metrics.text().decode()
    assert "# TYPE springtide_join_events_total counter" in text
    assert "# TYPE springtide_join_held_impressions gauge" in text
