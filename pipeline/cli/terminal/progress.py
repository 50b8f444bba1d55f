"""Progress bars on stderr, only if stderr is a terminal."""

from collections.abc import Callable, Iterable

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipeline.cli.terminal.output import stderr

Counts = tuple[int, int]
"""What is done, and what is known to exist."""


class ProgressBars:
    """Bars below each other, shown inside `with`."""

    def __init__(self) -> None:
        self._progress = _PolledProgress()

    def __enter__(self) -> "ProgressBars":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def add(self, title: str) -> Callable[[int, int], None]:
        """A bar; returns the function that sets its counts."""
        task = self._progress.add_task(title, total=None)
        return lambda done, known: self._progress.update(task, completed=done, total=known)

    def follow(self, title: str, read: Callable[[], Counts]) -> None:
        """A bar whose counts are read whenever it is drawn, in another thread."""
        self._progress.polled[self._progress.add_task(title, total=None)] = read


class _PolledProgress(Progress):
    def __init__(self) -> None:
        self.polled: dict[TaskID, Callable[[], Counts]] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=stderr, disable=not stderr.is_terminal)

    def get_renderables(self) -> Iterable[RenderableType]:
        for task, read in tuple(self.polled.items()):
            done, known = read()
            self.update(task, completed=done, total=known)
        yield from super().get_renderables()
