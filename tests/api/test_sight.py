"""Accounts and tokens that see some cameras alone: nothing of another camera is in any answer of any operation or page,
not even in a number."""

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from PIL import Image as Pillow

from tests.support.console import (
    API,
    LONG_S,
    PASSWORD,
    Console,
    add_account,
    console_config,
    form,
    keep_picture,
    of_anna,
    place_of,
    running_console,
)
from tests.support.past import AXES, MODEL, unknown
from tests.support.publishing import STREAM
from tests.support.sample_events import make_event, stream_fields
from worker.alerts.rules import Rule
from worker.api.parts import Networks, Parts
from worker.config import CameraConfig, FleetConfig
from worker.database.database import open_sqlite
from worker.fleet.registry import CameraRegistry
from worker.gallery.contents import NewSample
from worker.gallery.opening import open_gallery
from worker.history.records import PastSighting
from worker.history.store import FILE, History
from worker.redis.keys import fleet_key
from worker.service.status import CameraStatus, WorkerStatus
from worker.types import Chips, Detections, Embeddings, Image
from worker.wire import now_rfc3339

MARK = "xanadu"
"""In all that only the other camera has seen: ids of sightings and people, names, rules, reasons."""
YARD = f"yard-{MARK}"
LIKE_ANNA = (0.6 * AXES[0] + 0.8 * AXES[2]).astype(np.float32)
PAGES = (
    "/", "/sightings", "/sightings?person=Anna", "/unknown", "/unknown?ignored=true", "/people", "/people/p-anna",
    "/find", "/cameras", "/cameras/door", "/rules", "/health", "/settings", "/sightings/door_1", "/unknown/u-1",
    f"/sightings?camera={YARD}",
)  # fmt: skip
HIDDEN_PAGES = (f"/sightings/{MARK}_1", f"/unknown/u-{MARK}", f"/cameras/{YARD}")


def in_yard(number: int, **changes: Any) -> PastSighting:
    return of_anna(number, camera_id=YARD, sighting_id=f"{MARK}_{number}", **changes)


class Looker:
    """Takes every photo for one of Anna."""

    model_id, preprocessing_digest, threshold, dimension = MODEL.model_id, MODEL.preprocessing_digest, 0.5, len(AXES)

    def detect(self, images: list[Image]) -> list[Detections]:
        box = np.array([[10, 10, 60, 60]], np.float32)
        return [Detections(box, np.ones(1, np.float32), np.full((1, 5, 2), 30, np.float32)) for _ in images]

    def align(self, _image: Image, _found: Detections) -> Chips:
        return Chips(np.zeros((1, 2, 2, 3), np.uint8))

    def embed(self, _chips: Chips) -> Embeddings:
        return Embeddings(AXES[:1], self.model_id)


def fill_both(console: Console, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Beside what is there of the door: the same of another camera. Returns steps that were taken there."""
    with History.open(place_of(console.parts.config)) as history:
        seen = [
            in_yard(1), in_yard(2, identity_id="p-bob", identity_name="Bob"),
            *(in_yard(number, unknown_id=f"u-{MARK}", template=LIKE_ANNA) for number in (3, 4)),
            *(in_yard(number, unknown_id=f"u-{MARK}-2", template=AXES[4]) for number in (5, 6)),
            in_yard(7, unknown_id=f"u-{MARK}-3", template=AXES[5]), in_yard(8, unknown_id="u-1", template=LIKE_ANNA),
        ]  # fmt: skip
        people = [unknown(f"u-{MARK}", LIKE_ANNA), unknown(f"u-{MARK}-2", AXES[4]), unknown(f"u-{MARK}-3", AXES[5])]
        history.write(seen, people, keep_s=LONG_S, remember_s=LONG_S)
        _new, split = history.split_unknown(f"u-{MARK}-2", [f"{MARK}_6"])
        named = history.name_unknown(f"u-{MARK}-3", [f"{MARK}_7"], "p-bob", "Bob", ["none"])
    for past in seen:
        keep_picture(tmp_path / "pictures", past)
    gallery = open_gallery(console.parts.gallery_path)
    gallery.add([NewSample("Anna", AXES[6], f"sighting {MARK}_1", "a" * 64, quality=0.5, identity_id="p-anna")])
    gallery.set_thresholds(0.5, {"door": 0.6, YARD: 0.7}, {})
    gallery.close()
    rules = {
        place: console.parts.book.add(
            Rule(name=f"of {place}", enabled=False, cameras=cameras, apprise=("json://127.0.0.1:9",))
        )
        for place, cameras in {MARK: (YARD,), "both": ("door", YARD)}.items()
    }
    for sighting in (in_yard(1), of_anna(1)):
        event = make_event(sighting_id=sighting.sighting_id, camera_id=sighting.camera_id)
        console.parts.book.note(event, rules.values())
    while (alert := console.parts.book.take()) is not None:
        console.parts.book.sent(alert)
    cameras = [
        CameraStatus(camera_id=camera_id, state="stalled", reason=f"no frames of {camera_id}", fps=7.0)
        for camera_id in ("door", YARD)
    ]
    both = {
        "worker_id": "w-1", "version": "1", "uptime_s": 1.0, "ready": False, "reasons": {"cameras": f"{YARD} stalls"},
        "outbox_events": 0, "gallery_people": 2, "gallery_version": 1, "at": now_rfc3339(),
    }  # fmt: skip
    other = both | {"worker_id": f"w-{MARK}"}
    with redis.Redis.from_url(redis_url) as client:
        key = fleet_key(FleetConfig().name, "status")
        client.hset(key, "w-1:1", WorkerStatus(**both, cameras=cameras).model_dump_json())
        client.hset(key, "w-2:1", WorkerStatus(**other, cameras=cameras[1:]).model_dump_json())
        registry = CameraRegistry(client, FleetConfig())
        for camera_id in ("door", YARD):
            registry.add(CameraConfig(id=camera_id, source=f"rtsp://127.0.0.1:9/{camera_id}"))
        for number, camera_id in enumerate(("door", *[YARD] * 150)):
            event = make_event(number, camera_id=camera_id, sighting_id=f"{camera_id}_{number}", identity_name="Zoë")
            client.xadd(STREAM, stream_fields(event))
    return {"split": split, "named": named}


@pytest.fixture
def console(tmp_path: Path, redis_url: str) -> Iterator[Console]:
    """One whose thresholds are those of the gallery."""
    with running_console(console_config(tmp_path, redis_url, recognition={})) as running:
        yield running


@pytest.fixture
def marks(console: Console, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bool]:
    """Fills both cameras; says whether an answer tells of the other one."""
    steps = fill_both(console, redis_url, tmp_path)
    database = open_sqlite(Path(place_of(console.parts.config)) / FILE)
    add_account(database, "guard", "operator")
    database.close()
    console.parts.accounts.change("guard", cameras=("door",))
    monkeypatch.setattr(Parts, "networks", lambda _parts: Networks(Looker(), Looker()))  # type: ignore[arg-type]
    telling = re.compile("|".join([MARK, *steps.values()]))
    return lambda text: telling.search(text) is not None


def guard_of(console: Console) -> httpx.Client:
    client = console.anybody()
    answer = client.post(f"{API}/session", json={"name": "guard", "password": PASSWORD})
    client.headers["X-CSRF-Token"] = answer.json()["csrf"]
    return client


def program_of(console: Console) -> httpx.Client:
    """A token of an operator who sees everything, for one camera."""
    made = console.as_role("operator").post(
        f"{API}/tokens", json={"name": "program", "scopes": ["read", "change"], "cameras": ["door"]}
    )
    return console.anybody(Authorization=f"Bearer {made.json()['token']}")


def operations(console: Console) -> list[tuple[str, str, str, list[str]]]:
    """Id, method, path, and the names of the query of each operation; those that change nothing come first."""
    found = [
        (told["operationId"], method.upper(), path, [each["name"] for each in told.get("parameters", [])])
        for path, methods in console.app.openapi()["paths"].items()
        for method, told in methods.items()
    ]
    return sorted(found, key=lambda each: each[1] != "GET")


def asked(client: httpx.Client, operation: str, method: str, path: str, **more: Any) -> tuple[int, str]:
    """Status and all that is told."""
    if operation == "follow_events":
        text = ""
        with client.stream(method, path, headers={"Last-Event-ID": "0-0"}) as answer:
            for line in answer.iter_lines():
                text += line
                if "door_0" in line:  # the events of the other camera came after it; the next line would be theirs
                    break
        return answer.status_code, text
    if operation in {"search_photo", "enroll_person"}:
        name = "photo" if operation == "search_photo" else "photos"
        more = {"files": {name: ("a.png", png())}, "data": {"identity_name": "Dora"}}
    elif method in {"POST", "PATCH", "PUT"}:
        more = {"json": {}} | more
    answer = client.request(method, path, **more)
    return answer.status_code, f"{answer.text} {answer.headers}"


def png() -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (120, 120, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


HIDDEN = {
    "sighting_id": f"{MARK}_1", "unknown_id": f"u-{MARK}", "camera_id": YARD, "rule_id": None, "step": None,
    "sample_id": "none", "group": "none", "name": "none", "token_id": "none", "session_id": "none",
    "identity_id": "p-anna",
}  # fmt: skip
SEEN = HIDDEN | {"sighting_id": "door_1", "unknown_id": "u-1", "camera_id": "door"}
NOBODY = HIDDEN | {"sighting_id": "nobody_1", "unknown_id": "u-nobody", "camera_id": "nobody"}
BODIES: dict[str, dict[str, Any]] = {
    "merge_unknowns": {"other": "{unknown_id}"}, "split_unknown": {"sighting_ids": ["{sighting_id}"]},
    "name_unknown": {"identity_name": "Carla"}, "correct_sighting": {"identity_id": "p-bob"},
}  # fmt: skip


OF_CAMERAS = ("sighting_id", "unknown_id", "camera_id", "rule_id", "step")


def put_in(text: str, ids: dict[str, Any]) -> str:
    for name, value in ids.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


@pytest.mark.slow
@pytest.mark.parametrize("who", [guard_of, program_of])
def test_no_operation_tells_of_another_camera(
    console: Console, marks: Callable[[str], bool], who: Callable[[Console], httpx.Client]
) -> None:
    client = who(console)
    rules = {stored.rule.name: stored.rule_id for stored in console.parts.book.rules()}
    with console.parts.history() as history:
        (naming,) = history.namings_of("p-bob")
    hidden = HIDDEN | {"rule_id": rules[f"of {MARK}"], "step": naming.step}
    seen = SEEN | {"rule_id": rules["of both"], "step": "none"}
    nobody = NOBODY | {"rule_id": "nobody", "step": "nobody"}
    answered = {}
    for operation, method, path, query in operations(console):
        if operation in {"log_out", "set_up", "log_in"} or (who is program_of and method != "GET"):
            continue
        # What is asked of hidden things is answered as if they were not there.
        told = []
        for ids in (hidden, nobody):
            if method != "GET":
                ids = ids | {"identity_id": "p-nobody"}
            more = {"params": {each: ids[each] for each in query if each in ids and f"{{{each}}}" not in path}}
            if operation in BODIES:
                more["json"] = json.loads(put_in(json.dumps(BODIES[operation]), ids))
            status, text = asked(client, operation, method, put_in(path, ids), **more)
            for value in sorted(map(str, ids.values()), key=len, reverse=True):
                text = text.replace(value, "ID")
            told.append((status, text))
        assert not marks(told[0][1]), (operation, told[0])
        if set(OF_CAMERAS) & set(re.findall(r"\{(\w+)\}", path)):
            assert told[0][0] == told[1][0] >= 400, (operation, told)
        ids = seen if method == "GET" else seen | {"identity_id": "p-nobody"}
        answered[operation], text = asked(client, operation, method, put_in(path, ids))
        assert not marks(text), (operation, text)
    for operation in (
        "list_sightings", "show_sighting", "explain_sighting", "list_nearest", "list_unknowns", "show_unknown",
        "list_suggestions", "follow_events", "show_status", "list_cameras", "show_camera", "list_rules", "show_rule",
        "list_alerts", "show_person", "list_samples", "list_people", "show_settings",
    ):  # fmt: skip
        assert answered[operation] == 200, (operation, "what is seen is told")


def test_no_page_tells_of_another_camera(console: Console, marks: Callable[[str], bool]) -> None:
    guard = guard_of(console)
    for path in PAGES:
        answer = guard.get(path)
        assert answer.status_code == 200, path
        assert not marks(answer.text.replace(f'value="{YARD}"', "") if YARD in path else answer.text), path
    for path in HIDDEN_PAGES:
        gone = guard.get(path)
        other = guard.get(path.replace(MARK, "nobody"))
        assert (gone.status_code, other.status_code) == (404, 404), path
        assert gone.text.replace(MARK, "nobody") == other.text
    drawn = guard.get("/faces/nobody_1").content
    for path in (f"/faces/{MARK}_1", f"/scenes/{MARK}_1", f"/faces/{YARD}_2026-01-01T12:01:00.000Z_1"):
        answer = guard.get(path)
        assert answer.status_code == 404 or answer.content == drawn, path
    found = form_of_find(guard)
    assert "door_1" in found
    assert not marks(found)
    everything = console.as_role("operator")
    for path in ("/", "/sightings", "/unknown", "/cameras", "/rules", "/health", *HIDDEN_PAGES):
        assert marks(everything.get(path).text), f"{path} tells who sees all of it"


def form_of_find(client: httpx.Client) -> str:
    csrf = client.headers["X-CSRF-Token"]
    return client.post("/find", data={"csrf": csrf}, files={"photo": ("a.png", png())}).text


def test_numbers_count_what_is_in_sight(console: Console, marks: Callable[[str], bool]) -> None:
    guard, operator = guard_of(console), console.as_role("operator")
    assert not marks(guard.get(f"{API}/unknowns").text)

    def one(client: httpx.Client) -> dict[str, Any]:
        return dict(client.get(f"{API}/unknowns/u-1").json())

    mine, all_of_it = one(guard), one(operator)
    assert (mine["sightings"], all_of_it["sightings"]) == (1, 3)
    assert mine["cameras"] == ["door"]
    assert (mine["first_seen"], mine["last_seen"]) == ("2026-01-01T12:03:00.000Z", "2026-01-01T12:03:10.000Z")
    totals = [client.get(f"{API}/unknowns").json()["total"] for client in (guard, operator)]
    assert totals == [2, 5]
    assert [client.get(f"{API}/cameras").json()["total"] for client in (guard, operator)] == [1, 2]
    assert guard.get(f"{API}/suggestions").json()["items"][0]["sightings"] == 1
    named = guard.post(f"{API}/unknowns/u-1/name", json={"identity_name": "Carla"}).json()
    assert named["corrected"] == 1
    found = operator.get(f"{API}/sightings", params={"identity_id": named["identity_id"]}).json()["items"]
    assert {sighting["camera_id"] for sighting in found} == {"door", "yard", YARD}, "a name is of the whole person"
    assert guard.post(f"{API}/steps/{named['step']}/undo").status_code == 200
    assert one(operator)["sightings"] == 3


def test_cameras_are_changed_at_once_and_an_admin_sees_all(console: Console, marks: Callable[[str], bool]) -> None:
    guard, admin = guard_of(console), console.as_role("admin")
    assert marks(admin.get(f"{API}/sightings").text)
    program = program_of(console)
    assert guard.get(f"{API}/me").json()["cameras"] == program.get(f"{API}/me").json()["cameras"] == ["door"]
    changed = admin.patch(f"{API}/accounts/guard", json={"cameras": [YARD]})
    assert changed.json()["cameras"] == [YARD]
    assert guard.get(f"{API}/sightings/{MARK}_1").status_code == 200
    assert guard.get(f"{API}/sightings/door_1").status_code == 404
    assert admin.patch(f"{API}/accounts/guard", json={"role": "admin"}).status_code == 422
    for wrong in ([], ["no camera"], ["a" * 65]):
        assert admin.patch(f"{API}/accounts/guard", json={"cameras": wrong}).status_code == 422, wrong
    assert admin.patch(f"{API}/accounts/guard", json={"role": "admin", "cameras": None}).status_code == 200
    refused = admin.post(f"{API}/tokens", json={"name": "x", "scopes": ["manage"], "cameras": ["door"]})
    assert (refused.status_code, "sees all cameras" in refused.json()["detail"]) == (422, True)


def test_a_token_sees_no_more_than_its_account_does_today(console: Console) -> None:
    admin = console.as_role("admin")
    program = program_of(console)
    assert program.get(f"{API}/sightings/door_1").status_code == 200
    admin.patch(f"{API}/accounts/operator", json={"cameras": ["yard"]})
    assert program.get(f"{API}/me").json()["cameras"] == []
    assert program.get(f"{API}/sightings").json()["items"] == []
    operator = console.as_role("operator")
    refused = operator.post(f"{API}/tokens", json={"name": "x", "scopes": ["read"], "cameras": ["door"]})
    assert (refused.status_code, "these cameras: yard" in refused.json()["detail"]) == (422, True)


def test_who_listens_is_asked_anew_when_their_cameras_change(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.api.live.HEARTBEAT_S", 0.05)
    admin, operator = console.as_role("admin"), console.as_role("operator")
    with operator.stream("GET", f"{API}/events") as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry")
        admin.patch(f"{API}/accounts/operator", json={"cameras": ["door"]})
        told = [line for line in lines if line.startswith("data")]
    assert told == [], "the stream ends; the page comes back as who it is now"


def test_a_page_lets_an_admin_choose_cameras(console: Console, marks: Callable[[str], bool]) -> None:
    admin = console.as_role("admin")
    page = admin.get("/settings/accounts/viewer").text
    assert f'value="{YARD}"' in page
    saved = form(admin, "/settings/accounts/viewer", "/settings/accounts/viewer", role="viewer", camera="door")
    assert saved.status_code == 303
    viewer = console.as_role("viewer")
    assert viewer.get(f"{API}/me").json()["cameras"] == ["door"]
    assert "You see these cameras" in viewer.get("/settings").text
    assert not marks(viewer.get("/settings").text)


def test_a_repeated_request_is_not_answered_with_what_another_sight_has_seen(tmp_path: Path, redis_url: str) -> None:
    with running_console(console_config(tmp_path, redis_url)) as console:
        operator, program = console.as_role("operator"), program_of(console)
        key = {"Idempotency-Key": "k"}
        asked_for = {"identity_name": "Carla"}
        first = operator.post(f"{API}/unknowns/u-1/name", json=asked_for, headers=key)
        assert first.json()["corrected"] == 2
        again = program.post(f"{API}/unknowns/u-1/name", json=asked_for, headers=key)
        assert again.status_code == 422
