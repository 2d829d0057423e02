"""The tables of ``facestream status``: columns as wide as what stands in them, and reasons on lines of their own."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rich.text import Text

from worker.cli.screen import columns_of, count_of, fit, padded, people_of, wrapped
from worker.names import screen_cell

if TYPE_CHECKING:
    from worker.service.status import CameraStatus, DatabaseStatus, WorkerStatus

_GAP: Final = "  "
_NARROW: Final = 16
"""Columns for the first column where there are few; a longer name stands on a line of its own."""
_COLOURS: Final = {"streaming": "green", "ended": "green", "ready": "green", "paused": "yellow", "silent": "yellow"}
_CAMERA_HEADS: Final = ("camera", "state", "fps", "p95", "drops/s", "last event", "worker")
_WORKER_HEADS: Final = ("worker", "state", "cameras", "load", "outbox", "up", "gallery")


@dataclass(slots=True)
class Row:
    """The columns of a line, and what stands below it."""

    columns: list[str]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # All of it was written to Redis, or answered, by somebody else.
        self.columns = [screen_cell(column) for column in self.columns]
        self.notes = [screen_cell(note) for note in self.notes]


def status_text(
    workers: "Sequence[WorkerStatus]", unowned: dict[str, str], problems: Sequence[str], width: int | None
) -> Text:
    """Cameras, those first that nobody reads or that do not stream, and then workers, for ``width`` columns
    (None: as many as it takes)."""
    rows = [Row([camera_id, state, *[""] * 5]) for camera_id, state in sorted(unowned.items())]
    text = Text()
    text.append_text(_table(_CAMERA_HEADS, rows + _camera_rows(workers), width))
    text.append("\n")
    text.append_text(_table(_WORKER_HEADS, _worker_rows(workers), width))
    for hint in [*_hints(workers), *problems]:
        text.append(f"\n{wrapped(screen_cell(hint), width, '')}\n")
    return text


def _hints(workers: "Sequence[WorkerStatus]") -> list[str]:
    hints = []
    if not workers:
        hints.append(
            "No worker has reported. Those of a fleet do (run --fleet), if Redis and the name of the fleet are the "
            "same. A worker without a fleet is asked itself: facestream status --worker http://HOST:9464"
        )
    hints += [
        f"Several workers are called {name}: give each a name of its own with --worker-id."
        for name in _repeated(workers)
    ]
    return hints


def _camera_rows(workers: "Sequence[WorkerStatus]") -> list[Row]:
    from worker.service.status import condition_of

    rows: list[tuple[bool, str, Row]] = []
    for worker in workers:
        condition = condition_of(worker)
        for camera in _current(worker, workers):
            state = f"worker {condition}" if condition in ("silent", "gone") else camera.state
            row = Row(
                [
                    camera.camera_id,
                    state,
                    f"{camera.fps:.1f}",
                    "" if camera.latency_p95_s is None else f"{1000 * camera.latency_p95_s:.0f} ms",
                    f"{camera.dropped_per_s:.1f}",
                    "never" if camera.last_event_age_s is None else f"{age(camera.last_event_age_s)} ago",
                    _name_of(worker, workers),
                ],
                [camera.reason] if camera.reason else [],
            )
            rows.append((state in {"streaming", "ended"}, camera.camera_id, row))
    return [row for _streams, _id, row in sorted(rows, key=lambda each: each[:2])]


def _worker_rows(workers: "Sequence[WorkerStatus]") -> list[Row]:
    from worker.service.status import age_s, condition_of

    rows = []
    for worker in workers:
        condition = condition_of(worker)
        gone = condition in ("silent", "gone")
        rows.append(
            Row(
                [
                    _name_of(worker, workers),
                    condition,
                    str(len(_current(worker, workers))),
                    "" if worker.load is None or gone else f"{worker.load:.0%}",
                    str(worker.outbox_events),
                    "" if gone else age(worker.uptime_s),
                    f"{people_of(worker.gallery_people)}, v{worker.gallery_version}",
                ],
                [f"last heard of {age(age_s(worker))} ago"] * gone
                + ([_database_note(worker.database)] if worker.database is not None and not gone else [])
                + [f"{name}: {reason}" for name, reason in {**worker.reasons, **worker.warnings}.items() if not gone],
            )
        )
    return rows


def _database_note(database: "DatabaseStatus") -> str:
    parts = ["reachable" if database.reachable else f"away ({database.problem})"]
    if database.copy_age_s is not None:
        parts.append(f"copy of the gallery {age(database.copy_age_s)} old")
    parts.append(f"{count_of(database.waiting_rows, 'row')} waiting")
    parts.append(f"layout {database.layout}")
    return f"database: {', '.join(parts)}"


def _current(worker: "WorkerStatus", workers: "Sequence[WorkerStatus]") -> "list[CameraStatus]":
    """The cameras of a worker that no other one has taken over: a dead one's last words on those are out of date."""
    newest: dict[str, int] = {}
    for camera in (camera for each in workers for camera in each.cameras):
        newest[camera.camera_id] = max(camera.epoch, newest.get(camera.camera_id, 0))
    return [camera for camera in worker.cameras if camera.epoch == newest[camera.camera_id]]


def _name_of(worker: "WorkerStatus", workers: "Sequence[WorkerStatus]") -> str:
    """The name of a worker, with its process where another one has the same name."""
    return f"{worker.worker_id} ({worker.process})" if worker.worker_id in _repeated(workers) else worker.worker_id


def _repeated(workers: "Sequence[WorkerStatus]") -> list[str]:
    names = Counter(worker.worker_id for worker in workers)
    return [name for name, count in names.items() if count > 1]


def _table(heads: Sequence[str], rows: Sequence[Row], width: int | None) -> Text:
    """A table in ``width`` columns. What does not fit there is not cut: the last columns go below their row, and so
    does what follows a long name in the first."""

    def line_of(columns: Sequence[str]) -> str:
        return fit([padded(*cell) for cell in zip(columns, widths, strict=False)], width) + "\n"

    widths = [max(map(columns_of, column)) for column in zip(heads, *(row.columns for row in rows), strict=True)]
    gaps = len(_GAP) * (len(widths) - 1)
    if width is not None and sum(widths) + gaps > width:
        widths[0] = min(widths[0], _NARROW)
    last_below = width is not None and sum(widths) + gaps > width
    shown = len(heads) - last_below
    text = Text(style="default")
    text.append(line_of(heads[:shown]), style="bold")
    for row in rows:
        name, columns = row.columns[0], row.columns[:shown]
        if columns_of(name) > widths[0]:
            text.append(f"{wrapped(name, width, '')}\n")
            columns = ["", *columns[1:]]
        line = Text(line_of(columns))
        begin = widths[0] + len(_GAP)
        line.stylize(_COLOURS.get(columns[1], "red"), begin, begin + len(columns[1]))
        text.append_text(line)
        below = [f"{heads[-1]}: {row.columns[-1]}"] if last_below and row.columns[-1] else []
        for note in below + row.notes:
            text.append(wrapped(note, width) + "\n")
    return text


def age(seconds: float) -> str:
    """``3 s``, ``5 min``, ``2 h``, ``4 d``."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
