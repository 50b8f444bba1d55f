"""The port that a process answers Prometheus on, and who is asked for what it answers."""

import http.client
import socket

import pytest

from pipeline.ground import telemetry
from pipeline.ground.errors import InputError, LogError
from tests.scrape import parsed, scrape, url_of
from tests.shop import WRITTEN, make_project


@pytest.fixture(autouse=True)
def _nobody_serves_or_is_watched():
    yield
    telemetry.stop_serving()
    for name in ("one", "other"):
        telemetry.forget(name)


def project_on(root, port):
    return make_project(root, {**WRITTEN, "telemetry": {"port": port}})


def told():
    return parsed(telemetry.text().decode())


def free_port():
    """One with free ones after it, as far as one can know."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(probe.getsockname()[1], 60_000)


def held(rows, shard="0"):
    return lambda: [telemetry.JOIN_HELD.reading(rows, shard)]


def test_off_means_no_port_and_no_file(tmp_path):
    project = project_on(tmp_path, "off")
    assert telemetry.serve(project, "train") is None
    assert url_of(tmp_path, "train") is None


def test_a_process_serves_one_port_however_often_it_is_asked(tmp_path):
    project = project_on(tmp_path, 0)
    port = telemetry.serve(project, "train")
    assert telemetry.serve(project, "train") == telemetry.serve(project, "worker") == port
    assert url_of(tmp_path, "worker") is None
    assert scrape(url_of(tmp_path, "train"))("freshet_disk_free_bytes") > 0


def test_the_address_goes_when_the_process_stops_serving(tmp_path):
    port = telemetry.serve(project_on(tmp_path, 0), "train")
    telemetry.stop_serving()
    assert url_of(tmp_path, "train") is None
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", port).connect()


def test_the_address_of_a_successor_stays(tmp_path):
    telemetry.serve(project_on(tmp_path, 0), "train")
    (tmp_path / "state" / "telemetry" / "train.json").write_text('[{"targets": ["127.0.0.1:9"], "labels": {}}]')
    telemetry.stop_serving()
    assert url_of(tmp_path, "train") == "http://127.0.0.1:9/metrics"


def test_a_taken_port_gives_way_to_the_next_free_one(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        first = taken.getsockname()[1]
        port = telemetry.serve(project_on(tmp_path, first), "train")
    assert first < port < first + telemetry.PORTS
    assert scrape(url_of(tmp_path, "train"))("freshet_disk_size_bytes") > 0


def test_where_no_port_is_free_the_error_names_the_setting(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 65_535))
        taken.listen()
        with pytest.raises(InputError, match=r"65535.*telemetry\.port = 0"):
            telemetry.serve(project_on(tmp_path, 65_535), "train")


def test_readers_are_asked_at_every_scrape():
    rows = [3]
    telemetry.watch("one", lambda: held(rows[0])())
    assert told()("freshet_join_held_impressions", shard="0") == 3
    rows[0] = 4
    assert told()("freshet_join_held_impressions", shard="0") == 4


def test_readers_of_several_shards_share_a_metric():
    telemetry.watch("one", held(3, "0"))
    telemetry.watch("other", held(5, "1"))
    assert told().all("freshet_join_held_impressions") == {"0": 3, "1": 5}


def test_a_later_reader_of_a_name_replaces_an_earlier_one_and_a_forgotten_one_is_silent():
    telemetry.watch("one", held(3))
    telemetry.watch("one", held(7))
    assert told().all("freshet_join_held_impressions") == {"0": 7}
    telemetry.forget("one")
    assert told().all("freshet_join_held_impressions") == {}


def test_a_reader_that_fails_is_counted_and_hides_no_other():
    def fail():
        yield telemetry.JOIN_HELD.reading(1, "9")
        raise LogError("topic clicks does not exist")

    telemetry.watch("one", fail)
    telemetry.watch("other", held(5))
    before = told()("freshet_reading_failures_total", reader="one")
    metrics = told()
    assert metrics.all("freshet_join_held_impressions") == {"0": 5}
    assert told()("freshet_reading_failures_total", reader="one") > (before or 0)


def test_a_name_that_ends_in_total_is_a_counter():
    telemetry.watch("one", lambda: [telemetry.JOIN_EVENTS.reading(2, 0), *held(1)()])
    text = telemetry.text().decode()
    assert "# TYPE freshet_join_events_total counter" in text
    assert "# TYPE freshet_join_held_impressions gauge" in text
