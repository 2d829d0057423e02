"""How far behind the consumer groups are, told to the metrics every few seconds."""

import threading
from collections.abc import Callable
from typing import Final

from worker.events.consumer.streams import stream_lag
from worker.logs import get_logger
from worker.metrics import Observer
from worker.redis.client import REDIS_ERRORS, Client
from worker.redis.errors import reply_of

_EVERY_S: Final = 10.0
_BEAT_S: Final = 1.0

_log = get_logger(__name__)


class LagReporter:
    """Tells ``observer`` the lag of each group of ``stream``, from a thread of its own; nothing while Redis is away."""

    def __init__(
        self, client: Client, stream: str, observer: Observer, heartbeat: Callable[[], None] = lambda: None
    ) -> None:
        self._client = client
        self._stream = stream
        self._observer = observer
        self._heartbeat = heartbeat
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream-lag", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops; does not wait for a reply that is outstanding."""
        self._closing.set()
        self._thread.join(_BEAT_S)

    def _run(self) -> None:
        told = False
        while not self._closing.is_set():
            self._heartbeat()
            try:
                lags = stream_lag(self._client, self._stream)
                told = False
            except REDIS_ERRORS as error:
                lags = {}
                if not told and not self._closing.is_set():
                    _log.info("the lag of consumer groups is not known", reason=reply_of(error))
                told = True
            self._observer.stream_lag(lags)
            for _ in range(int(_EVERY_S / _BEAT_S)):
                if self._closing.wait(_BEAT_S):
                    return
                self._heartbeat()
