"""Rules by the API: made, changed, deleted, and carried out by a console; addresses are shown to nobody."""

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.command_line import running
from tests.support.console import (
    API,
    Console,
    add_accounts,
    console_config,
    fill,
    form,
    keep_picture,
    of_anna,
    place_of,
)
from tests.support.publishing import STREAM
from tests.support.receivers import SECRET, Receiver
from tests.support.sample_events import make_event, stream_fields
from tests.support.waiting import eventually
from worker.alerts.book import TAKEN_S, Book
from worker.alerts.rules import Rule
from worker.audit_log import LOG, AuditLog
from worker.history.shared import SharedDatabase

HOOK: dict[str, Any] = {"webhook": "https://example.org/CANARY", "webhook_secret": f"CANARY {SECRET}"}


def happens(url: str, number: int, **changes: Any) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1)
    with redis.Redis.from_url(url) as client:
        event = make_event(number, **{"type": "started", "sighting_id": f"door_{number}", "captured_at": at} | changes)
        client.xadd(STREAM, stream_fields(event))


def test_a_rule_is_made_changed_and_deleted(console: Console, tmp_path: Path) -> None:
    client = console.as_role("admin")
    client.put(f"{API}/groups/family", json={})
    made = client.post(f"{API}/rules", json={"name": "nights", "not_groups": ["family"], "after": "20:00", **HOOK})
    assert made.status_code == 201
    rule = made.json()
    assert [receiver["address"] for receiver in rule["receivers"]] == ["https://***"]
    path = f"{API}/rules/{rule['rule_id']}"
    seen = client.get(path)
    assert seen.json() == rule
    change = {"name": "late", "apprise": ["mailto://u:CANARY@127.0.0.1:25?from=a@b.org&to=c@d.org"]}
    changed = client.put(path, json=change, headers={"If-Match": seen.headers["ETag"]})
    assert [receiver["address"] for receiver in changed.json()["receivers"]] == ["https://***", "mailto://***"]
    assert client.put(path, json=change, headers={"If-Match": seen.headers["ETag"]}).status_code == 412
    # What is null stays; what is empty goes.
    kept = client.put(path, json={"name": "late", "webhook": "", "webhook_secret": ""}).json()
    assert [receiver["address"] for receiver in kept["receivers"]] == ["mailto://***"]
    listed = client.get(f"{API}/rules")
    assert [each["name"] for each in listed.json()["items"]] == ["late"]
    page = console.as_role("admin").get("/rules")
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404
    done = [(entry["action"], entry["details"].get("rule")) for entry in AuditLog(tmp_path / "people.state").entries()]
    assert [each for each in done if each[0].startswith("rule")] == [
        (f"rule {what}", rule["rule_id"]) for what in ("made", "changed", "changed", "removed")
    ], "by its id: its name may be that of a person, and the log is for good"
    everything = "".join(answer.text for answer in (made, seen, changed, listed, page))
    assert "CANARY" not in everything + (tmp_path / "people.state" / LOG).read_text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"groups": ["guests"]}, "there is no group 'guests'"),
        ({"people": ["p-nobody"]}, "nobody with the id p-nobody is enrolled"),
        ({"after": "25:00"}, "that is not a time"),
        ({"time_zone": "Mars/Olympus"}, "not a time zone"),
        ({"apprise": ["nonsense://CANARY"]}, "nonsense://*** is not an address of Apprise"),
        ({"webhook": "http://example.org/CANARY"}, "write https://"),
        ({"webhook_secret": "CANARY"}, "16 characters or more"),
        ({"weekdays": ["monday"]}, "weekdays"),
        ({"name": ""}, "name"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    console: Console, wrong: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = console.as_role("admin")
    refused = client.post(f"{API}/rules", json={"name": "r", **HOOK, **wrong})
    assert refused.status_code == 422
    assert said in refused.json()["detail"]
    assert "\n" not in refused.json()["detail"]
    assert "CANARY" not in refused.text + caplog.text
    assert client.get(f"{API}/rules").json() == {"items": []}


def test_a_console_tells_with_the_picture_that_it_keeps(console: Console, redis_url: str, tmp_path: Path) -> None:
    receiver = Receiver()
    client = console.as_role("admin")
    rule = {"name": "all", "webhook": receiver.url, "webhook_secret": SECRET, "picture": True, "people": ["p-anna"]}
    assert client.post(f"{API}/rules", json=rule).status_code == 201
    past = of_anna(7)
    keep_picture(tmp_path / "pictures", past)
    happens(redis_url, 7, sighting_id=past.sighting_id, camera_id=past.camera_id, started_at=past.started_at,
            identity_id="p-anna")  # fmt: skip
    happens(redis_url, 8, identity_id="p-bob")
    eventually(lambda: receiver.got)
    eventually(lambda: [alert["state"] for alert in client.get(f"{API}/alerts").json()["items"]] == ["sent"])
    (told,) = receiver.got
    assert len(told["picture"]) > 100
    actions = [entry["action"] for entry in AuditLog(tmp_path / "people.state").entries()]
    assert "alert sent" in actions
    receiver.close()


def test_a_rule_is_tried_and_each_receiver_says_what_came_back(console: Console, tmp_path: Path) -> None:
    receiver = Receiver()
    client = console.as_role("admin")
    rule = {
        "name": "nights", "who": "unknown", "enabled": False, "webhook": receiver.url, "webhook_secret": SECRET,
        "apprise": ["mailto://u:CANARY@127.0.0.1:9?from=a@b.org&to=c@d.org"],
    }  # fmt: skip
    rule_id = client.post(f"{API}/rules", json=rule).json()["rule_id"]
    answer = client.post(f"{API}/rules/{rule_id}/try")
    assert [(each["address"], each["taken"]) for each in answer.json()["items"]] == [
        ("http://***", True), ("mailto://***", False)
    ]  # fmt: skip
    assert answer.json()["items"][1]["problem"]
    (told,) = receiver.got
    assert (told["test"], told["rule"], told["camera_id"], told["identity_id"]) == ("true", "nights", "test", "")
    assert told["text"].startswith("This is a test of the rule")
    assert told["alert_id"].startswith("test-")
    assert client.get(f"{API}/alerts").json()["items"] == [], "nothing was seen"
    entry = [each for each in AuditLog(tmp_path / "people.state").entries() if each["action"] == "rule tried"][-1]
    assert (entry["details"]["rule"], entry["details"]["failed"]) == (rule_id, 1)
    receiver.status = 418
    page = form(client, "/rules", f"/rules/{rule_id}/try").text
    assert "status 418" in page
    listed, one = client.get("/rules").text, client.get(f"/rules/{rule_id}").text
    assert (listed.count('name="webhook_secret"'), one.count('name="webhook_secret"')) == (1, 1), "a form each"
    assert "CANARY" not in listed + one
    assert "CANARY" not in page + answer.text
    receiver.close()


@pytest.mark.slow
def test_a_console_that_is_killed_while_it_tells_loses_nothing_and_repeats_only_what_it_had_not_noted(
    tmp_path: Path, redis_url: str
) -> None:
    receiver = Receiver()
    config = console_config(tmp_path, redis_url)
    fill(config.gallery, place_of(config))
    add_accounts(config)
    database = SharedDatabase.open(place_of(config))
    book = Book(database)
    book.add(Rule(name="all", webhook=receiver.url, webhook_secret=SECRET))
    place = ["--gallery", tmp_path / "people", "--redis", redis_url, "--port", 0]

    def states() -> list[str]:
        return sorted(alert.state for alert in book.recent(9))

    with running("console", *place) as console:
        happens(redis_url, 1)
        console.until(lambda: states() == ["sent"])
        receiver.open.clear()
        happens(redis_url, 2)
        console.until(lambda: receiver.begun == 2)
        console.end(signal.SIGKILL)
    happens(redis_url, 3)
    assert len(receiver.got) == 1
    receiver.open.set()
    with running("console", *place) as console:
        console.until(lambda: states() == ["sent"] * 3, timeout_s=TAKEN_S + 120)
        console.end(signal.SIGTERM)
    told = [(got["sighting_id"], got["alert_id"]) for got in receiver.got]
    assert {sighting for sighting, _ in told} == {"door_1", "door_2", "door_3"}
    # The one that was under way may come again, by the same id: so its receiver can tell.
    assert len(set(told)) == 3
    assert [told.count(each) for each in sorted(set(told)) if each[0] != "door_2"] == [1, 1]
    database.close()
    receiver.close()
