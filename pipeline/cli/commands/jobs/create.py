"""Commands that create and check a project: `init` and `config check`."""

import sys
from dataclasses import asdict
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.terminal.options import HERE, AsJson, DryRun, ProjectFolder
from pipeline.cli.terminal.output import print_result, user_output_on_stderr, writing_stdout
from pipeline.cluster.java.jars import check_versions
from pipeline.configuration.project import Project
from pipeline.configuration.reference import reference_tables, reference_text
from pipeline.errors import ConfigError, InputError
from pipeline.features.plan import FeaturePlan

STARTER_FILES = ("springtide.toml", "model.py")


class GalleryModel(StrEnum):
    """Published models, by the name of their folder in `pipeline/cli/gallery`."""

    LR = "lr"
    FM = "fm"
    DEEPFM = "deepfm"
    DLRM = "dlrm"
    DCN = "dcn"
    DIN = "din"
    MMOE = "mmoe"
    ESMM = "esmm"
    CASCADE = "cascade"
    TWO_TOWER = "two_tower"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(init)
    config = typer.Typer(help="Check the configuration; every setting.", no_args_is_help=True)
    config.command("check")(check)
    config.command("reference")(reference)
    app.add_typer(config, name="config")


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to create or use.")],
    model: Annotated[GalleryModel | None, typer.Option(help="A published model. Default: a small one.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Create a project: a working springtide.toml and model.py.

    Example: springtide init shop --model deepfm
    """
    present = [name for name in STARTER_FILES if (folder / name).exists()]
    if present:
        raise InputError(f"{folder} already has {' and '.join(present)}. hint: choose another folder")
    written = [str(folder / name) for name in STARTER_FILES]
    if dry_run:
        print_result({"would_write": written}, as_json)
        return
    folder.mkdir(parents=True, exist_ok=True)
    starter = resources.files("pipeline.cli") / (f"gallery/{model}" if model else "starter")
    for name in STARTER_FILES:
        (folder / name).write_text((starter / name).read_text(encoding="utf-8"), encoding="utf-8")
    print_result({"written": written}, as_json)


def check(project: ProjectFolder = HERE, as_json: AsJson = False) -> None:
    """Report all problems of springtide.toml and of the model, which takes one training step on a tiny batch.

    Example: springtide config check --project shop
    """
    # TensorFlow takes seconds to import and only some commands need it.
    from pipeline.model.dense import DenseModel
    from pipeline.serving.items.attributes import Attributes

    opened = Project.open(project)
    config, root = opened.config, opened.root
    conditions = config.recall.attributes if config.recall else {}
    problems: list[str] = []
    for part in (
        lambda: FeaturePlan(config, root),
        lambda: DenseModel(config, root).try_step(),
        lambda: check_versions(config.cluster.versions),
        lambda: Attributes(conditions, config.events.impressions.columns),
    ):
        try:
            with user_output_on_stderr():
                part()
        except ConfigError as failure:
            problems.append(str(failure))
    if problems:
        raise ConfigError("\n".join(problems))
    names = [field.name for field in config.fields] + [number.name for number in config.dense]
    print_result({"project": str(root), "inputs": names, "problems": []}, as_json)


def reference(as_json: AsJson = False) -> None:
    """Print every setting of springtide.toml with type, default, bounds and meaning, as Markdown.

    Example: springtide config reference
    """
    if as_json:
        print_result({"tables": [asdict(table) for table in reference_tables()]}, as_json)
    else:
        with writing_stdout():
            sys.stdout.write(reference_text())
