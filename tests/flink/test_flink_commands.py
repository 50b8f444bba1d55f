"""`run --runner flink`, `stop` and `status` without a real cluster: refused options, and which cluster is used."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pipeline.cluster.ports import free_port
from pipeline.flink.resume import LastSubmission, write_last_submission
from tests.support.command.command_line import call, make_shop, springtide

NAMES = {"samples": "springtide-model-samples", "train": "springtide-model-train"}


class Flink:
    """Flink's REST interface of a cluster on which both jobs run until they are stopped."""

    def __init__(self):
        self.running = dict(NAMES)

    def respond(self, path):
        if path == "/jobs/overview":
            return {"jobs": [{"jid": job, "name": n, "state": "RUNNING"} for job, n in self.running.items()]}
        job, resource = re.fullmatch(r"(?:/jobs/)?(\w+|/overview)/?(\w*).*", path).groups()
        if resource == "stop":
            del self.running[job]
            return {"request-id": "1"}
        if resource == "savepoints":
            return {"status": {"id": "COMPLETED"}, "operation": {"location": f"file:/{job}"}}
        if resource:
            return [] if resource == "metrics" else {}
        vertices = [{"status": "RUNNING", "tasks": {"RUNNING": 1}}]
        return {"name": job, "state": "RUNNING" if job in self.running else "FINISHED", "vertices": vertices}


@pytest.fixture
def flink():
    """A real HTTP server on this machine, at `address`."""
    flink = Flink()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.dumps(flink.respond(self.path)).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    flink.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield flink
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def shop(tmp_path, flink):
    """A project configured for the cluster."""
    project = make_shop(tmp_path / "shop")
    with (project / "springtide.toml").open("a") as file:
        file.write(f'\n[flink]\nrest = "{flink.address}"\n')
    return project


@pytest.mark.parametrize(
    ("named", "stopped"), [((), {"samples", "train"}), (("all",), {"samples", "train"}), (("train",), {"train"})]
)
def test_stop_ends_the_jobs_that_are_named(shop, flink, named, stopped):
    assert {row["job"] for row in springtide(shop, "stop", *named)["stopped"]} == stopped
    assert set(NAMES) - set(flink.running) == stopped


def test_a_dry_run_of_stop_names_the_running_jobs_and_stops_none(shop, flink):
    planned = springtide(shop, "stop", "--dry-run")["would_stop"]
    assert {row["job"]: row["id"] for row in planned}.keys() == {"samples", "train"}
    assert set(flink.running) == set(NAMES)
    assert springtide(shop, "stop", "train")["stopped"][0]["id"] in [row["id"] for row in planned]
    assert [row["job"] for row in springtide(shop, "stop", "--dry-run")["would_stop"]] == ["samples"]


def test_an_unknown_job_is_refused_before_any_job_is_stopped(shop, flink):
    done = call("stop", "train", "tarin", "--project", shop)
    assert (done.code, done.err) == (3, "error: job tarin does not exist. known: samples, train, all\n")
    assert flink.running == NAMES


@pytest.mark.parametrize(
    ("setting", "place", "hint"),
    [
        ("", "state/cluster/flink/base.jar", "springtide cluster up writes it"),
        ('jar = "own.jar"', "own.jar", "correct it, or remove it to use that of the local cluster"),
    ],
)
def test_the_jar_path_is_relative_to_the_project_not_the_working_directory(
    shop, flink, monkeypatch, setting, place, hint
):
    flink.running.clear()
    (shop.parent / "own.jar").touch()
    monkeypatch.chdir(shop.parent)
    with (shop / "springtide.toml").open("a") as file:
        file.write(setting)
    done = call("run", "samples", "--runner", "flink", "--project", shop, "--json")
    assert done.code == 2
    assert done.result["error"] == f"flink.jar: {shop / place} does not exist. hint: {hint}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "samples --runner flink --until-end",
            "--until-end needs --runner local: jobs on Flink follow the logs",
        ),
        ("train --runner flink --migrate", "run: springtide run train --until-end --migrate"),
        ("all --runner flink --migrate --until-end", "run: springtide run train --until-end --migrate"),
        ("samples --until-end --from-logs", "--from-logs needs --runner flink, got --runner local. hint: "),
        (
            "train --until-end --flink-master a:1",
            "--flink-master needs --runner flink, got --runner local. hint: ",
        ),
        ("all --until-end --flink-master a:1", "--flink-master needs --runner flink, got --runner local. hint: "),
        ("all --runner flink --flink-master a:b", "--flink-master: 'a:b' is not an http or https address. hint: "),
    ],
)
def test_an_option_of_the_other_runner_is_refused(shop, words, message):
    done = call("run", *words.split(), "--project", shop)
    assert (done.code, done.out, len(done.err.splitlines())) == (3, "", 1)
    assert message in done.err


def test_flink_master_selects_the_cluster_for_status_and_stop(shop, flink):
    settings = shop / "springtide.toml"
    settings.write_text(settings.read_text().replace(flink.address, f"127.0.0.1:{free_port()}"))
    there = ("--flink-master", flink.address)
    assert not any(row["submitted"] for row in springtide(shop, "run", "all", "--runner", "flink", *there)["jobs"])
    write_last_submission(shop / "state" / "flink", "train", LastSubmission("train", "form"))
    assert [row["state"] for row in springtide(shop, "status")["jobs"]] == ["UNKNOWN"]
    assert [row["state"] for row in springtide(shop, "status", *there)["jobs"]] == ["RUNNING"]
    assert call("stop", "--project", shop).code == 12
    assert [row["job"] for row in springtide(shop, "stop", *there)["stopped"]] == ["samples", "train"]
