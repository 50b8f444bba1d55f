"""The thread that keeps the items of a replica fresh."""

import threading
from collections.abc import Callable

import structlog

from pipeline.errors import SpringtideError
from pipeline.process.clock import Clock
from pipeline.process.log_limit import LogLimit
from pipeline.serving.items.item_view import ItemView, Pause

logger = structlog.get_logger(__name__)


def keep_fresh(
    view: ItemView, clock: Clock, every_s: float, stop: threading.Event, giving_way: Callable[[], Pause]
) -> None:
    """Reread, admit and refresh until `stop` is set; every embedding gets a pause from `giving_way`.

    A failure is logged, at a bounded rate; the items and the version before stay in use. A wrong file does not prevent
    that the items before are embedded by new versions.
    """
    limit = LogLimit(clock)
    while not stop.is_set():
        for step in (view.reread, view.admit, lambda: view.refresh(giving_way())):
            try:
                step()
            except SpringtideError as failure:
                if (suppressed := limit.allow()) is not None:
                    logger.error("items cannot be embedded", problem=str(failure), suppressed=suppressed)
            except Exception:  # a fault of this program: without the thread, items would stay as they are for good
                if (suppressed := limit.allow()) is not None:
                    logger.exception("items cannot be embedded", suppressed=suppressed)
        stop.wait(every_s)
