"""What the console tells Prometheus and probes, on a port of its own: the pages' port is for people."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.background import Heartbeats
from worker.config import Config
from worker.errors import FacestreamError
from worker.observer import Observer
from worker.service.health import Condition, Health, HealthServer

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LOOP_SILENT_S: Final = 30.0
_BEAT_S: Final = 1.0

Login = Literal["ok", "wrong", "limited"]


class ConsoleMetrics(Observer):
    """One console's metrics; ``docs/metrics.md`` describes each. Safe to use from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.heartbeats = Heartbeats()
        given: dict[str, Any] = {"namespace": "facestream_console", "registry": self.registry}
        self._requests = Counter("requests", "Requests answered", ["kind", "status"], **given)
        self._seconds = Histogram(
            "request_seconds", "Time until an answer begins", ["kind"], buckets=_SECONDS, **given
        )  # fmt: skip
        self._listeners = Gauge("listeners", "Pages and programs that follow live events", **given)
        self._sent_away = Counter("listeners_sent_away", "Followers that were too far behind", **given)
        self._delay_s = Histogram(
            "event_delay_seconds",
            "Time from an event's entry in the stream to its followers",
            buckets=_SECONDS,
            **given,
        )
        self._logins = Counter("logins", "Tries to log in", ["outcome"], **given)
        for outcome in ("ok", "wrong", "limited"):
            self._logins.labels(outcome)
        self._rules_events = Counter("rules_events", "Events about which the rules were asked", **given)
        self._alerts_raised = Counter("alerts_raised", "Alerts that rules have raised", **given)
        self._alerts = Counter("alert_deliveries", "Tries to deliver an alert", ["outcome"], **given)
        for outcome in ("delivered", "postponed", "given_up"):
            self._alerts.labels(outcome)
        self._alert_s = Histogram(
            "alert_seconds", "Time from an event's alert to its delivery", buckets=(*_SECONDS, 300, 3600), **given
        )  # fmt: skip
        self._waiting = Gauge("alerts_waiting", "Alerts of all consoles that are to be delivered", **given)
        self._oldest_s = Gauge("alert_oldest_seconds", "Age of the oldest alert that waits", **given)

    def answered(self, path: str, status: int, took_s: float) -> None:
        """A request; ``path`` is that of its address."""
        kind = _kind_of(path)
        self._requests.labels(kind, f"{status // 100}xx").inc()
        self._seconds.labels(kind).observe(took_s)

    def follow(self, listeners: int) -> None:
        """How many follow live events now."""
        self._listeners.set(listeners)

    def sent_away(self) -> None:
        """A follower was too far behind."""
        self._sent_away.inc()

    def told(self, entry_id: str) -> None:
        """The entry of the stream with this id is on its way to all who follow."""
        made_s = int(entry_id.partition("-")[0]) / 1000
        self._delay_s.observe(max(0.0, time.time() - made_s))

    def login(self, outcome: Login) -> None:
        """Somebody tried to log in."""
        self._logins.labels(outcome).inc()

    def rules_asked(self, alerts: int) -> None:
        self._rules_events.inc()
        self._alerts_raised.inc(alerts)

    def alert_ended(self, outcome: str, seconds: float) -> None:
        self._alerts.labels(outcome).inc()
        if outcome == "delivered":
            self._alert_s.observe(seconds)

    def alerts_waiting(self, count: int, oldest_s: float) -> None:
        self._waiting.set(count)
        self._oldest_s.set(oldest_s)

    async def beat(self) -> None:
        """Shows that the event loop goes round, until it is cancelled."""
        beat = self.heartbeats.watch("event loop", _LOOP_SILENT_S)
        while True:
            beat()
            await asyncio.sleep(_BEAT_S)


class Counted:
    """Around an application: tells ``metrics`` of each request."""

    def __init__(self, app: ASGIApp, metrics: ConsoleMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun_s = time.monotonic()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._metrics.answered(scope["path"], status, time.monotonic() - begun_s)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if not status:
                self._metrics.answered(scope["path"], HTTPStatus.INTERNAL_SERVER_ERROR, time.monotonic() - begun_s)
            raise


@contextmanager
def probes(config: Config, metrics: ConsoleMetrics, database: Condition, redis: Condition) -> Iterator[int | None]:
    """Serves /metrics, /healthz and /readyz for the block; gives the port, or None where there is none.

    ``database`` and ``redis`` say why they cannot be used. Without Redis the console shows what was, and is ready.

    Raises:
        FacestreamError: the port cannot be opened.
    """
    if config.console.metrics_port is None:
        yield None
        return
    health = Health(metrics.heartbeats)
    health.condition("database", database)
    health.warn("redis", redis)
    place = config.metrics.model_copy(update={"port": config.console.metrics_port})
    try:
        server = HealthServer(place, health, metrics.registry)
    except FacestreamError as error:
        raise type(error)(str(error).replace("metrics.port", "console.metrics_port")) from None
    try:
        yield server.port
    finally:
        server.close()


def _kind_of(path: str) -> str:
    _, first, *_rest = f"{path}/".split("/", 3)
    if first == "static":
        return "static"
    if path.endswith("/face") or first == "faces":
        return "picture"
    return "api" if first == "api" else "page"
