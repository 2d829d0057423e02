"""The threads of a console that read events, ask the rules, and deliver alerts."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from worker.alerts.book import Book, DueAlert, StoredRule
from worker.alerts.delivery import Alert, AwayError, RejectedError, deliver
from worker.alerts.rules import Rule
from worker.audit_log import note
from worker.background import BackgroundTask
from worker.config import RedisConfig
from worker.errors import ConfigError, FacestreamError, SinkError
from worker.events.consumer.blocking import Consumer, Delivery
from worker.hosts import HostPolicy
from worker.logs import get_logger
from worker.names import clean_text
from worker.observer import Observer
from worker.types import Event

GROUP: Final = "facestream-rules"
"""The consumer group in which all consoles share the events."""
_DELIVERERS: Final = 3
"""A receiver that is slow must not keep the others waiting."""
_RULES_S: Final = 1.0
_IDLE_S: Final = 1.0
_PAUSE_S: Final = 3.0
_PICTURE_S: Final = 10.0
"""For so long an alert waits for its picture."""
_OLD_S: Final = 3600.0
_COUNT_S: Final = 5.0
_STOP_S: Final = 5.0
_MOST_DELIVERIES: Final = 1000

_log = get_logger(__name__)


class Watch:
    """Carries out the rules in ``book`` on the events of ``redis``, beside all other consoles that do.

    ``is_erased`` says whether an event is about somebody who was erased: nobody is told of them. ``picture`` gives the
    face in a sighting as a JPEG, or None; ``advice`` what to do about people of some groups.
    """

    def __init__(
        self,
        book: Book,
        redis: RedisConfig,
        policy: HostPolicy,
        *,
        audit_folder: Path | None,
        is_erased: Callable[[Event], bool],
        picture: Callable[[Event], bytes | None],
        advice: Callable[[Sequence[str]], str],
        observer: Observer | None = None,
    ) -> None:
        self._book = book
        self._redis = redis
        self._policy = policy
        self._audit_folder = audit_folder
        self._is_erased = is_erased
        self._picture = picture
        self._advice = advice
        self._observer = observer or Observer()
        self._consumer: Consumer | None = None
        self._held: Delivery | None = None
        self._rules: list[StoredRule] = []
        self._rules_at_s = self._tidied_s = self._counted_s = float("-inf")
        self._reader = BackgroundTask("rules", self._read, interval_s=_PAUSE_S)
        self._deliverers = [
            BackgroundTask(f"alerts-{number}", self._deliver, interval_s=_PAUSE_S) for number in range(_DELIVERERS)
        ]

    def start(self) -> None:
        """Begins; events that came while no console ran are looked at first."""
        for task in (self._reader, *self._deliverers):
            task.start()

    def changed(self) -> None:
        """The rules have changed."""
        self._rules_at_s = float("-inf")
        self._reader.wake()

    def close(self) -> None:
        """Ends the threads. What is not delivered yet waits in the database."""
        ended = [task.stop(_STOP_S) for task in (self._reader, *self._deliverers)]
        if self._consumer is not None and ended[0]:
            self._consumer.stop()
            self._consumer.close()

    def _read(self) -> float | None:
        """One event. It is finished once its alerts are noted; what cannot be noted is tried again first."""
        rules = self._current()
        if self._consumer is None:
            if not rules:
                return _IDLE_S
            try:
                self._consumer = Consumer(self._redis, self._redis.stream, group=GROUP, max_deliveries=_MOST_DELIVERIES)
            except (SinkError, ConfigError) as error:
                _log.warning("rules wait for Redis", reason=str(error))
                return _PAUSE_S
        delivery = self._held or self._consumer.poll()
        if delivery is None:
            return 0.0
        self._held = delivery
        event = delivery.event
        # A rule is about what comes after it was made, and not about what a stream still holds of before.
        captured_s = event.captured_at.timestamp()
        rules = [] if self._is_erased(event) else self._current()
        wanted = [each for each in rules if captured_s >= each.made_s and each.rule.is_about(event)]
        new = self._book.note(event, wanted) if wanted else 0
        self._observer.rules_asked(new)
        if new:
            for task in self._deliverers:
                task.wake()
        self._consumer.done(delivery)
        self._held = None
        return 0.0

    def _current(self) -> list[StoredRule]:
        now_s = time.monotonic()
        if now_s - self._rules_at_s > _RULES_S:
            self._rules, self._rules_at_s = self._book.rules(), now_s
        return self._rules

    def _deliver(self) -> float | None:
        """One alert."""
        now_s = time.monotonic()
        if now_s - self._tidied_s > _OLD_S:
            self._tidied_s = now_s
            self._book.forget_old()
        if now_s - self._counted_s > _COUNT_S:
            self._counted_s = now_s
            waiting = self._book.waiting()
            self._observer.alerts_waiting(waiting.count, waiting.oldest_s)
        alert = self._book.take()
        if alert is None:
            return _IDLE_S
        stored = self._book.rule(alert.rule_id)
        rule = None if stored is None else stored.rule
        address = None if rule is None else rule.receivers.get(alert.receiver)
        if rule is None or address is None:
            self._book.refused(alert, "the receiver was taken out of the rule")
            self._ended(alert, "given_up")
            return 0.0
        if self._is_erased(alert.event):
            self._book.drop(alert)
            return 0.0
        picture = self._picture_for(rule, alert)
        if picture is None:
            self._book.wait(alert, _IDLE_S)
            return 0.0
        secret = rule.webhook_secret if address == rule.webhook else ""
        try:
            deliver(self._alert(rule, alert, picture), address, secret, self._policy)
        except AwayError as error:
            goes_on = self._book.away(alert, str(error))
            self._ended(alert, "postponed" if goes_on else "given_up")
            _log.warning("an alert waits", rule=alert.rule_id, reason=str(error), tries=alert.tries)
        except RejectedError as error:
            self._book.refused(alert, str(error))
            self._ended(alert, "given_up")
            _log.error("an alert is given up", rule=alert.rule_id, reason=str(error))
        else:
            subjects = filter(None, [alert.event.identity_id, alert.event.unknown_id, alert.sighting_id])
            kind = "webhook" if secret else address.partition("://")[0]
            note(self._audit_folder, "alert sent", subjects, rule=alert.rule_id, kind=kind, picture=int(bool(picture)))
            self._book.sent(alert)
            self._ended(alert, "delivered")
        return 0.0

    def _ended(self, alert: DueAlert, outcome: str) -> None:
        self._observer.alert_ended(outcome, time.time() - alert.made_s)

    def _picture_for(self, rule: Rule, alert: DueAlert) -> bytes | None:
        """The picture, empty if there is to be none; None while it may still come."""
        if not rule.picture:
            return b""
        try:
            found = self._picture(alert.event)
        except FacestreamError as error:
            _log.warning("an alert goes without its picture", reason=str(error))
            return b""
        return found if found or time.time() - alert.made_s < _PICTURE_S else b""

    def _alert(self, rule: Rule, alert: DueAlert, picture: bytes) -> Alert:
        event = alert.event
        who = clean_text(event.identity_name) or "Somebody unknown"
        at = event.captured_at.astimezone(ZoneInfo(rule.time_zone))
        groups = event.groups.split(",") if event.groups else []
        of = f" ({', '.join(groups)})" if groups else ""
        text = f"{who}{of} at {event.camera_id}, {at:%Y-%m-%d %H:%M:%S %Z}"
        if advice := self._advice(groups):
            text += f"\n{advice}"
        return Alert(alert.alert_id, rule.name, f"facestream: {rule.name}", text, event, picture)
