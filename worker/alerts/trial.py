"""A rule is tried: each receiver gets one message that says that it is a test, at once, and no alert is noted."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from worker.alerts.delivery import Alert, AwayError, RejectedError, deliver
from worker.alerts.rules import Rule
from worker.events.codec import event_id, sighting_id
from worker.hosts import HostPolicy
from worker.types import Event

_CAMERA: Final = "test"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back from a receiver; ``problem`` is empty if it took the message."""

    receiver: str
    address: str
    problem: str


def try_rule(rule: Rule, policy: HostPolicy) -> list[Outcome]:
    """Sends the test to all receivers at the same time; returns within the time that one delivery may last."""
    made = datetime.now(UTC)
    seen = sighting_id(_CAMERA, made, 0)
    event = Event(
        event_id=event_id(seen, "started"), type="started", camera_id=_CAMERA, track_id=0, sighting_id=seen,
        identity_id="", identity_name="", similarity=None, threshold=None, margin=None, quality=None,
        box=(0.0, 0.0, 0.0, 0.0), frame_size=(0, 0), captured_at=made, started_at=made, ended_at=None, pts_s=0.0,
        model_id="", gallery_version=0, worker_id=_CAMERA, epoch=0,
    )  # fmt: skip
    text = f"This is a test of the rule {rule.name!r}: nobody was seen."
    alert = Alert(
        f"test-{secrets.token_hex(8)}", rule.name, f"facestream: test of {rule.name}", text, event, is_test=True
    )

    def told(receiver: str, address: str) -> Outcome:
        try:
            deliver(alert, address, rule.webhook_secret if address == rule.webhook else "", policy)
        except (AwayError, RejectedError) as error:
            return Outcome(receiver, address, str(error))
        return Outcome(receiver, address, "")

    with ThreadPoolExecutor(len(rule.receivers)) as pool:
        return list(pool.map(told, rule.receivers, rule.receivers.values()))
