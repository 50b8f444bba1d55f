"""Runbooks: they have one structure and one index, and every command and setting in them exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from pipeline import errors
from pipeline.cli.app import app
from pipeline.configuration.config import Config
from pipeline.configuration.section import Section

FOLDER = Path(__file__).parents[2] / "runbooks"
TEXTS = {path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8") for path in sorted(FOLDER.rglob("*.md"))}
REFERENCE = {
    "README.md",
    "metrics.md",
    "kubernetes.md",
    "configuration.md",
    "limits.md",
    "models.md",
    "field-importance.md",
}
RUNBOOKS = sorted(set(TEXTS) - REFERENCE)
ALERTS = [
    rule
    for group in yaml.safe_load((FOLDER / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]


def command_lines(text):
    """Every `springtide …` in code, without comments."""
    blocks = re.findall(r"^ *```sh\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip().partition(" #")[0] for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?```", "", text, flags=re.DOTALL | re.MULTILINE))
    return [line for line in (*lines, *inline) if re.match(r"springtide( |$)", line)]


COMMANDS = [(name, line) for name, text in TEXTS.items() for line in command_lines(text)]


def settings_of(section, path=""):
    """Every setting of springtide.toml, by its path; lists of tables count as one table."""
    for name, field in section.model_fields.items():
        inner = [t for t in (field.annotation, *typer_args(field.annotation)) if is_section(t)]
        yield path + name
        for one in inner:
            yield from settings_of(one, f"{path}{name}.")


def typer_args(annotation):
    return [inner for arg in getattr(annotation, "__args__", ()) for inner in (arg, *typer_args(arg))]


def is_section(found):
    return isinstance(found, type) and issubclass(found, Section)


def test_command_lines_are_found():
    text = "say `springtide stop train`, not `springtide-worker`\n\n"
    text += "  ```sh\n  springtide status  # all\n  ls\n  ```\nor `springtide`"
    assert command_lines(text) == ["springtide status ", "springtide stop train", "springtide"]
    assert len(COMMANDS) > 60


def parse(line):
    """Raises TyperException if the command, an argument or an option does not exist."""
    context = typer.main.get_command(app).make_context("springtide", shlex.split(line)[1:])
    while hasattr(context.command, "commands"):
        called, inner, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = inner.make_context(called, rest, parent=context)


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_a_command_line_parses(name, line):
    parse(line)


@pytest.mark.parametrize(
    "line", ["springtide halt", "springtide stop --now", "springtide rollback 3", "springtide cluster"]
)
def test_a_command_line_that_does_not_exist_is_refused(line):
    with pytest.raises(typer.TyperException):
        parse(line)


@pytest.mark.parametrize("name", RUNBOOKS)
def test_a_runbook_has_the_four_parts_and_fits_two_screens(name):
    text = TEXTS[name]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert len(text.splitlines()) <= 60


@pytest.mark.parametrize("name", TEXTS)
def test_links_refer_to_existing_files(name):
    for link in re.findall(r"\]\(([^)#]+)\)", TEXTS[name]):
        assert (FOLDER / name).parent.joinpath(link).exists(), link


def test_the_index_names_every_runbook_and_every_alert_with_its_runbook():
    rows = [line for line in TEXTS["README.md"].splitlines() if line.startswith("| ")][1:]
    linked = {re.search(r"\(([\w/-]+\.md)\)", row)[1]: set(re.findall(r"Springtide\w+", row)) for row in rows}
    assert set(linked) == set(TEXTS) - {"README.md"}
    wanted = {
        name: {a["alert"] for a in ALERTS if a["annotations"]["runbook"] == f"runbooks/{name}"} for name in linked
    }
    assert linked == wanted


@pytest.mark.parametrize("name", TEXTS)
def test_settings_and_errors_in_runbooks_exist(name):
    known = set(settings_of(Config)) | {f"fields.{s}" for s in ("expiry", "admission")}
    tops = {setting.partition(".")[0] for setting in known}
    text = re.sub(r"```.*?```", "", TEXTS[name], flags=re.DOTALL)
    dotted = {s for s in re.findall(r"`([a-z_]+\.[a-z_.]+)`", text) if s.partition(".")[0] in tops}
    assert {s for s in dotted if not s.endswith((".toml", ".py", ".jar"))} <= known
    assert {table for table in re.findall(r"`\[([a-z_.]+)\]`", text)} <= known
    named = set(re.findall(r"`?\b([A-Z][a-z]\w+Error)\b", text))
    assert named <= {n for n in vars(errors) if n.endswith("Error")}
