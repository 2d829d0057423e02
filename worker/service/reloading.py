"""The configuration file of a running worker: what may change live is taken up, all else waits for a restart.

A file that cannot be used is refused whole, and the configuration in force stays.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from worker.audit_log import note
from worker.background import BackgroundTask, Heartbeats
from worker.config import Config, ConfigOrigin
from worker.errors import ConfigError
from worker.logs import get_logger
from worker.observer import Observer

LIVE: Final = frozenset({"cameras", "recognition", "log"})
"""The sections that change without a restart: cameras, thresholds and all else that decides on a track, log level."""

_log = get_logger(__name__)


class Reloader:
    """Watches the file that ``origin`` names, from a thread of its own.

    ``apply(config)`` is called with each new configuration in force. The file's content is watched, not its date:
    Kubernetes swaps a link, editors write a new file.
    """

    def __init__(
        self,
        origin: ConfigOrigin,
        config: Config,
        apply: Callable[[Config], None],
        observer: Observer | None = None,
        *,
        check: Callable[[Config], None] = lambda _config: None,
        heartbeats: Heartbeats | None = None,
        poll_s: float = 2.0,
        audit_folder: Path | None = None,
    ) -> None:
        self._origin = origin
        self._config = config
        self._apply = apply
        self._check = check
        self._observer = observer or Observer()
        self._poll_s = poll_s
        self._audit_folder = audit_folder
        self._digest = self._read_digest()
        self._asked = False
        self._task = BackgroundTask("configuration", self._look, interval_s=poll_s, heartbeats=heartbeats)

    def start(self) -> None:
        self._task.start()

    def reload(self) -> None:
        """Asks for the file to be read again now, changed or not. Returns at once; safe in a signal handler."""
        self._asked = True
        self._task.wake()

    def close(self) -> None:
        self._task.stop(self._poll_s + 1)

    def _look(self) -> None:
        asked, self._asked = self._asked, False
        digest = self._read_digest()
        if not self._task.stopping and (asked or digest != self._digest):
            self._digest = digest
            self._take_up()

    def _read_digest(self) -> str:
        try:
            return hashlib.sha256(self._origin.path.read_bytes()).hexdigest() if self._origin.path else ""
        except OSError as error:
            return f"unreadable: {error.errno}"

    def _take_up(self) -> None:
        try:
            new = self._origin.load()
            self._check(new)
        except ConfigError as problem:
            self._observer.config_reloaded("refused")
            _log.error("the changed configuration is refused; the one in force stays", problem=str(problem))
            return
        changed = {name for name in Config.model_fields if getattr(new, name) != getattr(self._config, name)}
        if waiting := sorted(changed - LIVE):
            _log.warning("changed settings that need a restart are not in force", settings=", ".join(waiting))
        live = changed & LIVE
        if live:
            # Only what changes live: nothing else of the file may come into force piece by piece.
            self._config = self._config.model_copy(update={name: getattr(new, name) for name in live})
            self._apply(self._config)
        if changed:
            note(
                self._audit_folder,
                "configuration changed",
                sections=", ".join(sorted(changed)),
                digest=self._digest[:16],
            )
        self._observer.config_reloaded("taken" if not waiting else "restart_needed")
        _log.info("configuration read again", changed=", ".join(sorted(live)) or "nothing")
