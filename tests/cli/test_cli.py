"""Every command has help and an example; every error is one clear line with a documented exit code."""

import json
import re
import shlex
import subprocess

import pytest
import typer
from rich import markup

from pipeline.cli.app import EXIT_CODES, app
from pipeline.errors import SpringtideError
from tests.support.command.command_line import REPO, call, feed, make_events, make_shop, springtide

ROOT = typer.main.get_command(app)


def leaves(command, path=()):
    """Every leaf command with its path."""
    if not hasattr(command, "commands"):
        return [(path, command)]
    return [leaf for name, part in command.commands.items() for leaf in leaves(part, (*path, name))]


LEAVES = [pytest.param(path, command, id=" ".join(path)) for path, command in leaves(ROOT)]


def example_of(command) -> str:
    lines = [line.strip() for line in command.help.splitlines()]
    examples = [line.removeprefix("Example: ") for line in lines if line.startswith("Example: ")]
    assert len(examples) == 1, command.help
    return examples[0]


@pytest.mark.parametrize(("path", "command"), LEAVES)
def test_the_example_in_a_commands_help_is_valid(path, command):
    words = shlex.split(example_of(command))
    assert words[: len(path) + 1] == ["springtide", *path]
    context = command.make_context("example", words[len(path) + 1 :])
    assert not context.args


@pytest.mark.parametrize(("path", "command"), LEAVES)
def test_every_command_supports_json_and_has_help(path, command):
    options = {name for parameter in command.params for name in parameter.opts}
    assert "--json" in options
    shown = call(*path, "--help")
    assert shown.code == 0
    assert "Example: springtide" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(("path", "command"), LEAVES)
def test_help_is_shown_verbatim(path, command):
    texts = [command.help, *(parameter.help or "" for parameter in command.params)]
    assert [markup.render(text).plain for text in texts] == texts
    # Typer adds brackets and dots to the names of optional and repeated arguments.
    assert not re.search(r"[\[…]|\.{3}", " ".join(parameter.metavar or "" for parameter in command.params))


def test_every_command_with_a_one_time_effect_has_a_dry_run():
    options = {" ".join(path): {n for p in command.params for n in p.opts} for path, command in leaves(ROOT)}
    dry = {name for name, found in options.items() if "--dry-run" in found}
    fed = {"init", "ingest impressions", "ingest clicks", "ingest feedback", "ingest items", "heartbeat"}
    changed = {"publish", "rollback", "quarantine add", "quarantine remove", "resume", "dead-letters replay", "skip"}
    written = {
        "export samples",
        "export rows",
        "export weights",
        "export served",
        "export items",
        "export dead-letters",
        "demo",
        "restore-ledger",
        "migrate-state",
    }
    assert dry == fed | changed | written | {"topics create", "cluster up", "cluster down", "stop"}


def test_every_error_has_a_documented_exit_code():
    def tree(kind):
        return [kind, *(below for part in kind.__subclasses__() for below in tree(part))]

    documented = {int(part.split()[0]) for part in EXIT_CODES.removeprefix("Exit codes: ").split(", ")}
    assert {kind.exit_code for kind in tree(SpringtideError)} <= documented


def test_every_command_that_a_message_recommends_exists():
    known = {" ".join(path): {n for p in command.params for n in p.opts} for path, command in leaves(ROOT)}
    advice = re.compile(r"(?:run|hint|then|,) *:? *springtide ([a-z][a-z-]*(?: [a-z-]+)*)")
    for path in sorted((REPO / "pipeline").rglob("*.py")):
        for words in advice.findall(path.read_text(encoding="utf-8")):
            command = next((name for name in known if f"{words} ".startswith(f"{name} ")), None)
            assert command, f"{path.name} recommends springtide {words}"
            assert {w for w in words.split() if w.startswith("--")} <= known[command], (
                f"{path.name}: springtide {words}"
            )


def test_without_a_command_the_help_is_shown():
    shown = call()
    assert "Usage" in shown.out + shown.err
    assert "Exit codes" in shown.out + shown.err


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Joined, not trained."""
    project = make_shop(tmp_path_factory.mktemp("shop") / "project")
    feed(project, make_events(1, 40))
    springtide(project, "run", "samples", "--until-end")
    return project


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("status --nonsense", 2, "No such option: --nonsense"),
        ("nonsense", 2, "No such command 'nonsense'"),
        ("publish --level hourly", 2, "'hourly' is not one of"),
        ("export samples", 2, "Missing option '--out'"),
        ("quarantine remove one", 2, "Invalid value for 'id'"),
        ("ingest impressions absent.csv", 3, "absent.csv"),
        ("ingest impressions picture.png", 3, "picture.png"),
        ("ingest purchase absent.csv", 3, "there are no events purchase, known: impressions, clicks. hint: declare"),
        ("heartbeat tomorrow", 3, "time tomorrow is neither ISO 8601 nor milliseconds. hint: "),
        ("quarantine add 2026-01-31", 3, "range 2026-01-31 has no two dots. hint: "),
        ("quarantine add 20..10", 3, "range 20..10 ends at 10, not after its start 20. hint: "),
        ("inspect colour red", 3, "field colour does not exist. known: user, item, position, hour"),
        ("importance colour", 3, "table colour does not exist. known: user, item, position, hour"),
        ("importance item", 3, "holds no version yet. run: springtide run train --until-end"),
        ("importance", 3, "importance of rows needs a table. hint: springtide importance TABLE, or --fields"),
        ("importance item --samples 9", 3, "--samples 9 is of use with --fields only. hint: springtide importance"),
        ("importance item --seed 0", 3, "--seed 0 is of use with --fields only"),
        ("importance --fields", 3, "holds no version yet. run: springtide run train --until-end"),
        ("importance --fields --top 3", 3, "--top 3 is of no use with --fields"),
        ("importance --fields --samples 0", 2, "Invalid value for '--samples'"),
        ("importance --fields --out absent/x.png", 3, "absent/x.png cannot be written: No such file or directory"),
        ("importance colour --fields", 3, "input colour does not exist. known: user, item, position, hour"),
        ("precision", 3, "holds no version yet. run: springtide run train --until-end"),
        ("precision colour", 3, "table colour does not exist. known: user, item, position, hour"),
        ("precision --samples 1", 2, "Invalid value for '--samples'"),
        ("precision --out x.png", 3, "--out x.png is of use with --samples only. hint: springtide precision --samples"),
        ("precision --samples 9 --out absent/x.png", 3, "absent/x.png cannot be written: No such file or directory"),
        ("publish --level full --part fine", 3, "part fine does not exist. hint: declare [[parts]]"),
        ("publish --level full", 3, "holds no version yet. run: springtide run train --until-end"),
        ("export rows item --out /tmp/x.parquet", 3, "holds no version yet"),
        ("export samples --out absent/x.parquet", 3, "absent/x.parquet cannot be written: No such file or directory"),
        ("export served colour --out x.parquet", 3, "table colour does not exist"),
        ("export weights colour --out x.parquet", 3, "table colour does not exist"),
        ("export weights item --out x.parquet --format int3", 3, "format int3 does not exist. known: fp32, fp16, int8"),
        ("export weights item --out x.parquet", 3, "holds no version yet. run: springtide run train --until-end"),
        ("rollback", 10, "rollback needs either --before TIME or --to VERSION"),
        ("rollback --before 2025-06-15T00:00:00Z", 10, "there is no version yet, so nothing to undo"),
        ("rollback --to g0/s0-of-1/7", 11, "g0/s0-of-1/7"),
        ("rollback --to seven", 3, "seven"),
        ("quarantine remove 7", 11, "quarantine 7 is not in force. run: springtide quarantine list"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(shop, words, code, message):
    plain = call(*shlex.split(words), "--project", shop)
    assert (plain.code, plain.out) == (code, "")
    assert len(plain.err.splitlines()) == 1
    assert plain.err.startswith("error: ")
    assert message in plain.err
    machine = call(*shlex.split(words), "--project", shop, "--json")
    assert machine.code == machine.result["exit_code"] == code
    assert message in machine.result["error"]


def test_in_a_folder_without_a_project_the_error_names_the_command_that_creates_one(tmp_path):
    done = call("status", "--project", tmp_path)
    assert done.code == 2
    assert done.err == f"error: {tmp_path}/springtide.toml does not exist. run: springtide init {tmp_path}\n"


def test_a_project_with_the_former_file_name_is_refused_with_the_command_that_renames_it(tmp_path):
    make_shop(tmp_path / "shop")
    (tmp_path / "shop" / "springtide.toml").rename(tmp_path / "shop" / "freshet.toml")
    done = call("config", "check", "--project", tmp_path / "shop")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    subprocess.run(shlex.split(done.err.partition("run: ")[2]), check=True)
    assert call("config", "check", "--project", tmp_path / "shop").code == 0


def test_every_problem_of_the_configuration_is_reported_with_its_path(tmp_path):
    project = make_shop(
        tmp_path / "shop",
        {
            "window_s = 600": 'window_s = -1\nwindow = "long"',
            'build = "model:build"': "bild = 1",
            "disorder_s": "order",
        },
    )
    done = call("config", "check", "--project", project)
    assert done.code == 2
    for path in (
        "samples.window_s: ",
        "samples.window: unknown key",
        "model.bild: unknown key",
        "events.order: unknown",
    ):
        assert path in done.err
    assert "has 4 problem(s)" in done.err
    assert call("config", "check", "--project", project, "--json").result["kind"] == "ConfigError"


def test_problems_of_features_and_model_are_reported_together(tmp_path):
    project = make_shop(tmp_path / "shop", {'transform = "hour"': 'transform = "hours"'})
    (project / "model.py").write_text("def build(inputs):\n    return None\n")
    done = call("config", "check", "--project", project)
    assert done.code == 2
    assert "hours" in done.err
    assert "model:build" in done.err
    assert "Traceback" not in done.err


def test_a_version_of_an_unknown_component_is_reported(tmp_path):
    project = make_shop(tmp_path / "shop")
    with (project / "springtide.toml").open("a") as file:
        file.write('\n[cluster]\nversions = { "kafka.verson" = "4.1.1" }\n')
    done = call("config", "check", "--project", project)
    assert done.code == 2
    assert "error: cluster.versions.kafka.verson is no property of pom.xml. known: kafka.version, " in done.err


def test_a_file_that_is_not_toml_is_named(tmp_path):
    (tmp_path / "springtide.toml").write_text("name = ")
    done = call("config", "check", "--project", tmp_path)
    assert done.code == 2
    assert done.err.startswith(f"error: {tmp_path}/springtide.toml is not TOML: ")


def test_init_refuses_to_overwrite(tmp_path):
    assert call("init", tmp_path).code == 0
    (tmp_path / "model.py").write_text("mine")
    done = call("init", tmp_path)
    assert done.code == 3
    assert "already has springtide.toml and model.py" in done.err
    assert (tmp_path / "model.py").read_text() == "mine"


def test_a_changed_number_of_shards_is_refused_once_topics_exist(tmp_path):
    project = make_shop(tmp_path / "shop")
    springtide(project, "status")
    text = (project / "springtide.toml").read_text()
    (project / "springtide.toml").write_text(text.replace("# shards = 1", "shards = 2"))
    done = call("status", "--project", project)
    assert done.code == 4
    assert "Traceback" not in done.err


def test_a_halt_is_shown_and_persists_until_it_is_resumed(tmp_path):
    project = make_shop(tmp_path / "shop", {"# loss_limit = 50.0": "loss_limit = 1e-9"})
    feed(project, make_events(1, 300))
    stopped = call("run", "all", "--until-end", "--project", project)
    assert stopped.code == 9
    assert "by springtide quarantine add FROM..TO, then springtide resume" in stopped.err
    again = call("run", "train", "--until-end", "--project", project, "--json")
    assert again.code == again.result["exit_code"] == 9
    halted = springtide(project, "status")["trainer"][0]["halted"]
    assert "limit 1e-09" in halted["reason"]
    assert (project / halted["batch"]).exists()
    text = (project / "springtide.toml").read_text()
    (project / "springtide.toml").write_text(text.replace("loss_limit = 1e-9", "loss_limit = 50.0"))
    assert springtide(project, "resume", "--dry-run") == {"resumed_shards": [0], "dry_run": True}
    assert call("run", "train", "--until-end", "--project", project).code == 9
    assert springtide(project, "resume") == {"resumed_shards": [0], "dry_run": False}
    assert springtide(project, "run", "train", "--until-end")["samples"] > 256


def test_a_changed_configuration_needs_migrate(tmp_path):
    project = make_shop(tmp_path / "shop")
    feed(project, make_events(1, 300))
    springtide(project, "run", "all", "--until-end")
    text = (project / "springtide.toml").read_text()
    (project / "springtide.toml").write_text(text.replace("dim = 8", "dim = 4", 1).replace("dim = 8", "dim = 4", 1))
    refused = call("run", "train", "--until-end", "--project", project)
    assert refused.code == 8
    assert "field item changed; field user changed" in refused.err
    assert springtide(project, "run", "train", "--until-end", "--migrate")["commits"] == 1
    assert springtide(project, "run", "train", "--until-end")["samples"] == 0


def test_a_damaged_version_is_named(tmp_path):
    project = make_shop(tmp_path / "shop")
    feed(project, make_events(1, 300))
    springtide(project, "run", "all", "--until-end")
    for path in (project / "state" / "versions").rglob("*"):
        if (
            path.is_file()
            and path.suffix not in (".sqlite", ".sqlite-wal", ".sqlite-shm")
            and path.stat().st_size > 200
        ):
            damaged = bytearray(path.read_bytes())
            damaged[len(damaged) // 2] ^= 1
            path.write_bytes(damaged)
    done = call("export", "rows", "item", "--out", project / "x.parquet", "--project", project, "--json")
    assert done.code == done.result["exit_code"] == 6
    assert done.result["kind"] == "DamagedError"
    assert str(project / "state" / "versions") in done.result["error"]
    assert json.loads(done.out)
    assert not (project / "x.parquet").exists()
