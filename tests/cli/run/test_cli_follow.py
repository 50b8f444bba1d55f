"""Commands that run until a signal: a run ends cleanly and the next one continues; a replica applies new versions."""

import json
import signal
import time
import urllib.error
import urllib.request

import pytest

from tests.support.command.command_line import START_MS, feed, make_events, make_shop, springtide, start

ROWS = 300
TIMEOUT_S = 90
INSTANCE = {"user": "u3", "item": "i2", "position": 1, "at": START_MS}


def until(result, process):
    """The first true result, while the process runs."""
    began_at_s = time.monotonic()
    while not (found := result()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began_at_s < TIMEOUT_S
        time.sleep(0.05)
    return found


def samples_learned(project) -> int:
    return max((v["samples_seen"] for v in springtide(project, "versions")["versions"]), default=0)


def samples_joined(report) -> int:
    return sum(report["samples"]["samples"].values())


@pytest.fixture
def shop(tmp_path):
    project = make_shop(tmp_path / "shop", {"# port = 8501": "port = 0"})
    feed(project, make_events(1, ROWS))
    return project


def test_ctrl_c_ends_a_run_cleanly_and_the_next_one_continues(shop):
    running = start(shop, "run", "all")
    try:
        first = until(
            lambda: springtide(shop, "status")["trainer"][0]["lag_records"] == 0 and samples_learned(shop), running
        )
        feed(shop, make_events(1, ROWS, first=40_000), "more")
        until(lambda: samples_learned(shop) > first, running)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=TIMEOUT_S)
    finally:
        running.kill()
    assert (running.returncode, err) == (
        0,
        "following the logs; press Ctrl-C to stop\nstopping after the current round\n",
    )
    report = json.loads(out)
    before, joined = samples_learned(shop), samples_joined(report)
    assert report["train"]["samples"] == before <= joined  # the signal may come between the two jobs' turns
    feed(shop, make_events(1, ROWS, first=80_000), "last")
    continued = springtide(shop, "run", "all", "--until-end")
    assert before + continued["train"]["samples"] == samples_learned(shop) == joined + samples_joined(continued)


def request_json(url: str, body=None):
    """(status, JSON) of a request."""
    request = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def test_a_replica_serves_predictions_applies_new_versions_and_ends_on_sigterm(shop):
    springtide(shop, "run", "all", "--until-end")
    serving = start(shop, "replica")
    try:
        ready = json.loads(serving.stdout.readline())
        url = f"http://{ready['host']}:{ready['port']}/v1/models/model"
        until(lambda: request_json(url)[1]["model_version_status"][0]["state"] == "AVAILABLE", serving)
        version = request_json(url)[1]["model_version_status"][0]["version"]
        status, before = request_json(f"{url}:predict", {"instances": [INSTANCE]})
        assert status == 200
        assert 0 < before["predictions"][0][0] < 1
        feed(shop, make_events(1, ROWS, first=40_000), "more")
        springtide(shop, "run", "all", "--until-end")
        until(lambda: int(request_json(url)[1]["model_version_status"][0]["version"]) > int(version), serving)
        assert request_json(f"{url}:predict", {"instances": [INSTANCE]})[1] != before
        assert request_json(f"{url}:predict", {"instances": [{"colour": "red"}]})[0] == 400
        serving.send_signal(signal.SIGTERM)
        out, err = serving.communicate(timeout=TIMEOUT_S)
    finally:
        serving.kill()
    assert (serving.returncode, out) == (0, "")
    assert f"serving {url}:predict" in err
    assert "Traceback" not in err
