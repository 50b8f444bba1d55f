"""Opens the items of a project as a replica has them, for commands."""

from pipeline.configuration.project import Project
from pipeline.errors import ConfigError, InputError
from pipeline.logs.interface.log import Log
from pipeline.serving.items.item_view import ItemView
from pipeline.serving.replica import Replica


def open_items(project: Project, log: Log) -> tuple[Replica, ItemView]:
    """A replica with the newest published version, and all items embedded by it.

    Raises:
        ConfigError: the project has no `[recall]`.
        InputError: no version is published, or there are no items.
        LogError: the log is not available.
    """
    if project.config.recall is None:
        raise ConfigError(f"model {project.config.name} recalls no items. hint: declare [recall]")
    replica = Replica.for_predictions(project, log)
    replica.catch_up()
    if not replica.ready:
        raise InputError(f"model {project.config.name} has no published version. run: springtide run all")
    view = ItemView(project, replica, log)
    if not view.refresh():
        raise InputError(f"model {project.config.name} has no items. run: springtide ingest items")
    return replica, view
