"""Logging: structlog on standard error, for people or as JSON, without credentials.

Records of libraries (``logging``, ``warnings``) go the same way.
"""

import logging
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from worker.config import LogConfig
from worker.names import screen_text
from worker.redaction import redact

_SECRET_NAME: Final = re.compile(r"passw|pwd$|secret|token|api_?key|credential|authorization", re.IGNORECASE)
_REPEATS: Final = 5
_REPEAT_WINDOW_S: Final = 60.0
_REMEMBERED: Final = 1000


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module. Before :func:`configure`, ``logging`` itself writes warnings to standard error."""
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            *_PROCESSORS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return cast(structlog.stdlib.BoundLogger, logger)


def configure(config: LogConfig, stream: TextIO | None = None, *, worker_id: str = "") -> None:
    """Sends all logs of the process to ``stream`` (default: standard error). May be called again.

    ``worker_id`` is written in each line, since the logs of a fleet may be read in one place.
    """
    stream = stream or sys.stderr
    human = config.format == "human" or (config.format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *_PROCESSORS],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                partial(_name_worker, worker_id),
                _renderer(stream, human=human),
            ],
        )
    )
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    for previous in [old for old in root.handlers if getattr(old, "of_facestream", False)]:
        root.removeHandler(previous)
    handler.of_facestream = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    set_level(config.level)
    logging.captureWarnings(True)


def set_level(level: str) -> None:
    """From now on, nothing below ``level`` (as in :class:`LogConfig`) is logged. May be called at any time."""
    logging.getLogger("worker").setLevel(level.upper())


class RepeatFilter(logging.Filter):
    """Lets a warning or error of the same logger, text and camera pass five times a minute.

    The first one that passes afterwards says how many were ``suppressed``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        fields = record.msg if isinstance(record.msg, dict) else {"event": record.msg}
        key = record.name, str(fields.get("event")), str(fields.get("camera_id"))
        now_s = time.monotonic()
        begun_s, count = self._seen.pop(key, (now_s, 0))
        suppressed = count - _REPEATS
        if now_s - begun_s > _REPEAT_WINDOW_S:
            begun_s, count = now_s, 0
            if suppressed > 0 and isinstance(record.msg, dict):
                record.msg["suppressed"] = suppressed
        self._seen[key] = begun_s, count + 1
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return count < _REPEATS


def redact_fields(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """A structlog processor that takes credentials out of every value, whatever its type, and what a terminal obeys."""
    for name, value in fields.items():
        if not name.startswith("_"):
            fields[name] = _clean(name, value)
    return fields


def _name_worker(worker_id: str, _logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    if worker_id:
        fields.setdefault("worker_id", worker_id)
    return fields


def _clean(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SECRET_NAME.search(name):
        return "***"
    if isinstance(value, str):
        return screen_text(redact(value))
    if isinstance(value, Mapping):
        return {str(key): _clean(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(name, inner) for inner in value]
    if isinstance(value, BaseException):
        return screen_text(redact(f"{type(value).__name__}: {value}"))
    if hasattr(value, "shape"):
        return f"<{type(value).__name__} of shape {value.shape}>"
    return screen_text(redact(str(value)))


def _renderer(stream: TextIO, *, human: bool) -> Processor:
    if human:
        return structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
    return structlog.processors.JSONRenderer(ensure_ascii=False)


_PROCESSORS: Final[list[Processor]] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
    redact_fields,
]
