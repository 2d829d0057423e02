"""A progress bar on standard error, on terminals only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Bar:
    """Counts what is done. The total may become known later."""

    def __init__(self, set_total: Callable[[int], None], advance: Callable[[int], None]) -> None:
        self.set_total = set_total
        self.advance = advance


@contextmanager
def progress_bar(description: str, total: int | None = None) -> Iterator[Bar]:
    """Shows ``description`` and a bar until the block ends."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield Bar(lambda total: progress.update(task, total=total), lambda count: progress.advance(task, count))
