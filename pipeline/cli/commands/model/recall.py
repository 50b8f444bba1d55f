"""The command `recall`: the best items for users, as a replica finds them. Read-only."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from pipeline.cli.terminal.options import HERE, AsJson, ProjectFolder, open_project
from pipeline.cli.terminal.output import print_result, user_output_on_stderr
from pipeline.cli.terminal.values import format_age
from pipeline.configuration.deployment.recall import Recall
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.features.instances import instance_of_texts
from pipeline.logs.events.convert import LIST_SEPARATOR
from pipeline.logs.open import open_log

Users = Annotated[
    list[str],
    typer.Argument(
        metavar="USER", help="Columns of one user as name=value (lists: a|b), or a JSON object for each user."
    ),
]


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(recall)


def recall(
    users: Users,
    k: Annotated[int, typer.Option("-k", "--k", help="Items for each user.")] = 10,
    filter: Annotated[
        str | None,
        typer.Option("--filter", metavar="JSON", help="Attributes of the items: an object with lists all, any, none."),
    ] = None,
    exclude: Annotated[
        str | None, typer.Option("--exclude", metavar="JSON", help="List of items to leave out.")
    ] = None,
    project: ProjectFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Show the best items for users by the newest published version, with scores, version and age.

    All items are embedded first, in this process; a replica answers requests in milliseconds.

    Example: springtide recall user=U49985 -k 5
    """
    opened = open_project(project)
    instances = _instances(opened, users)
    _check_k(opened.config.recall, k)
    with user_output_on_stderr():
        from pipeline.serving.items.open import open_items

        replica, view = open_items(opened, open_log(opened))
        found = view.recall(instances, k, view.attributes.allowed(_json(filter, "filter"), _json(exclude, "exclude")))
    event_ms = replica.status()["shards"][0]["last_at_ms"]
    names = [json.dumps(instance, ensure_ascii=False) for instance in instances]
    rows = [
        {"user": user, "rank": rank, "item": item, "score": score}
        for user, items, scores in zip(names, found.items, found.scores, strict=True)
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), 1)
    ]
    age = format_age(event_ms, opened.clock.now_ms())
    print_result({"version": found.version, "last_event_ms": event_ms, "age": age, "items": rows}, as_json)


def _json(text: str | None, option: str) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise InputError(f"{option} {text[:60]!r} is not json: {failure}") from None


def _check_k(recall: Recall | None, k: int) -> None:
    if recall is not None and not 1 <= k <= recall.max_k:
        raise InputError(f"k: got {k}, wanted an integer in 1..{recall.max_k}. hint: recall.max_k")


def _instances(project: Project, users: Sequence[str]) -> list[dict[str, Any]]:
    """The users: one of all `name=value`, and one of each JSON object. Raises InputError."""
    types = project.config.events.impressions.columns
    texts = [user.partition("=") for user in users if not user.lstrip().startswith("{")]
    found = [_json(user, "user") for user in users if user.lstrip().startswith("{")]
    for name, separator, _ in texts:
        if not separator:
            raise InputError(f"user {name!r} is neither name=value nor a JSON object. hint: {next(iter(types))}=…")
        if name not in types and name != "at":
            raise InputError(f"column {name} does not exist. known: {', '.join(types)}")
    values = {name: value for name, _, value in texts}
    if len(values) < len(texts):
        raise InputError("a column has two values. hint: a JSON object for each user")
    return ([instance_of_texts(values, types, LIST_SEPARATOR)] if values else []) + found
