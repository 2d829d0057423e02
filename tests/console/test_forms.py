"""Forms that cannot be taken come back as they were sent, whatever the reason; what is sent twice is done once."""

import io
import re
import threading
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.command_line import RETAIL
from tests.support.console import API, PASSWORD, Console, console_config, form, running_console
from worker.api.parts import Parts
from worker.gallery.contents import NewSample
from worker.gallery.groups import Group


def hidden(client: httpx.Client, page: str, path: str) -> dict[str, str]:
    """What a page has put into its form for ``path``."""
    found = re.search(rf'<form[^>]*action="{re.escape(path)}"[^>]*>(.*?)</form>', client.get(page).text, re.DOTALL)
    assert found, f"{page} has no form for {path}"
    return {
        name: unescape(value) for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', found[1])
    }


def came_back(client: httpx.Client, answer: httpx.Response, **changes: str) -> httpx.Response:
    """Logs in on the page that asks who it is, as a browser would."""
    given = {name: unescape(value) for name, value in re.findall(r'name="(kept)" value="([^"]*)"', answer.text)}
    return client.post("/login", data=given | {"name": "operator", "password": PASSWORD} | changes)


def expire(console: Console, client: httpx.Client) -> None:
    console.parts.sessions.end(client.cookies["facestream_session"])


def people(parts: Parts) -> list[str]:
    return [person.name for person in parts.people()]


def test_a_session_that_ends_in_the_middle_of_a_form_loses_nothing(console: Console) -> None:
    client = console.as_role("operator")
    given = hidden(client, "/people/p-bob", "/people/p-bob/rename")
    expire(console, client)
    asked = client.post("/people/p-bob/rename", data=given | {"identity_name": 'Rob "the <b>" Bobson'})
    assert (asked.status_code, "comes back once you have logged in" in asked.text) == (401, True)
    assert came_back(client, asked, password="wrong password").text.count('name="kept"') == 1, "a wrong password, too"
    page = came_back(client, asked)
    assert page.status_code == 200
    assert "Nothing was sent yet, and what you typed is still here" in page.text
    assert 'value="Rob &quot;the &lt;b&gt;&quot; Bobson"' in page.text
    assert "<h1><bdi>Bob</bdi></h1>" in page.text, "nothing was changed yet"
    again = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text.partition("/rename")[2]))
    assert unescape(again["etag"]) == given["etag"], "a change by somebody else meanwhile would still be noticed"
    assert again["csrf"] != given["csrf"]


def test_every_kind_of_field_comes_back_and_files_and_passwords_are_named(console: Console) -> None:
    console.parts.gallery().set_group("family", Group())
    console.parts.gallery().set_group("staff", Group())
    admin = console.as_role("admin")
    expire(console, admin)
    rule = {
        "name": "at the back", "who": "unknown", "not_group": "staff", "weekday": ["sat", "sun"], "after": "20:00",
        "time_zone": "Europe/Berlin", "apprise": "ntfys://one\nntfys://two", "webhook_secret": "sixteen characters",
        "webhook": "https://u:pass@example.org/x", "people": "Anna\r\nBob",
    }  # fmt: skip
    text = came_back(admin, admin.post("/rules", data=rule), name="admin").text
    shown = text[text.index('action="/rules"') :]
    assert 'name="name" value="at the back"' in shown
    assert '<option value="unknown" selected>' in shown
    assert 'name="enabled" value="on">' in shown, "a box that was not ticked"
    assert re.findall(r'name="not_group" value="(\w+)" checked', shown) == ["staff"]
    assert re.findall(r'name="weekday" value="(\w+)" checked', shown) == ["sat", "sun"]
    assert re.search(r'<textarea name="people"[^>]*>\s*Anna\r?\nBob</textarea>', shown)
    assert re.search(r"<textarea[^>]*>\s*ntfys://one\nntfys://two</textarea>", shown)
    assert "Type again what may hold a password: Webhook, Secret of the webhook" in shown
    assert "sixteen characters" not in text
    assert "u:pass" not in text
    operator = console.as_role("operator")
    expire(console, operator)
    photos = [("photos", ("a.jpg", b"1", "image/jpeg")), ("photos", ("b.jpg", b"2", "image/jpeg"))]
    page = came_back(operator, operator.post("/people", data={"identity_name": "Carla"}, files=photos)).text
    assert re.search(r'name="identity_name"[^>]* value="Carla"', page)
    assert "Choose these files again: a.jpg, b.jpg" in page
    assert "<details open><summary>Add somebody" in page


def test_the_people_of_a_rule_are_names_one_a_line_however_many_there_are(console: Console) -> None:
    gallery, admin = console.parts.gallery(), console.as_role("admin")
    vector = gallery.vectors("p-bob")[0][0]
    gallery.add([NewSample(f"Person {n}", vector, f"{n}.jpg", f"x{n}", quality=0.5) for n in range(3000)])
    assert "Person 7" not in admin.get("/rules").text
    given = {"name": "r", "webhook": "https://example.org/h", "webhook_secret": "sixteen characters"}
    wrong = form(admin, "/rules", "/rules", people="Anna\r\nPerson\r\n", **given)
    assert wrong.status_code == 422
    assert "several people are called so" in wrong.text
    assert re.search(r'<textarea name="people"[^>]*>\s*Anna\r?\nPerson\s*</textarea>', wrong.text)
    form(admin, "/rules", "/rules", people="Anna\r\n p-bob \r\nPerson 2999\r\nanna", **given)
    (stored,) = console.parts.book.rules()
    third = gallery.person("Person 2999").identity_id
    assert stored.rule.people == ("p-anna", "p-bob", third)
    page = f"/rules/{stored.rule_id}"
    assert re.search(r'<textarea name="people"[^>]*>Anna\nBob\nPerson 2999</textarea>', admin.get(page).text)
    gallery.remove("Person 2999")
    kept = form(admin, page, page, name="r", people=f"Anna\r\n{third}")
    assert (kept.status_code, third in kept.text) == (422, True), "a rule about nobody would be about everybody"
    assert form(admin, page, page, name="r", people="Bob").status_code == 303
    assert console.parts.book.rules()[0].rule.people == ("p-bob",)


@pytest.mark.parametrize(
    ("page", "path", "typed", "other"),
    [
        ("/people/p-bob", "/people/p-bob/rename", {"identity_name": "Bert"}, "Rob"),
        ("/people/p-bob", "/people/p-bob/groups", {"group": "family"}, "staff"),
        ("/cameras/door", "/cameras/door", {"threshold": "0.7"}, "0.6"),
        ("/cameras/door/areas", "/cameras/door/areas", {"areas": "mask: 0,0 1,0 1,1"}, "zone till"),
        ("/rules/RULE", "/rules/RULE", {"name": "mine", "webhook": "", "time_zone": "UTC"}, "theirs"),
        ("/people", "/groups", {"group": "family", "advice": "greet"}, "call"),
    ],
)
def test_who_is_slower_sees_what_the_other_has_changed_and_still_has_what_they_typed(
    console: Console, page: str, path: str, typed: dict[str, str], other: str
) -> None:
    one, quicker = console.as_role("admin"), console.as_role("admin")
    for name in ("family", "staff"):
        console.parts.gallery().set_group(name, Group())
    quicker.post(f"{API}/cameras", json={"camera_id": "door", "source": "rtsp://127.0.0.1:9/1"})
    rule = {"name": "rule", "webhook": "https://example.org/h", "webhook_secret": "sixteen characters"}
    rule_id = quicker.post(f"{API}/rules", json=rule).json()["rule_id"]
    page, path = page.replace("RULE", rule_id), path.replace("RULE", rule_id)
    before = hidden(one, page, path)
    field = next(iter(typed))
    if page == "/cameras/door/areas":
        form(quicker, page, path, areas="zone till: 0,0 1,0 1,1")
    elif path == "/groups":
        form(quicker, page, path, group="family", advice=other)
    else:
        form(quicker, page, path, **typed | {field: other})
    late = one.post(path, data=before | typed, headers={"Referer": f"{console.address}{page}"})
    assert late.status_code == 412, late.text
    assert "Somebody else has changed this meanwhile" in late.text
    note = re.search(r'<p class="wrong" role="alert".*?</p>', late.text, re.DOTALL)
    assert note
    assert other in unescape(note[0]), "what holds now"
    value = typed["advice"] if path == "/groups" else typed[field]
    assert re.search(rf'value="{re.escape(value)}"(?: checked)?|<textarea[^>]*>\s*{re.escape(value)}', late.text)
    fresh = re.findall(r'name="etag" value="([^"]*)"', late.text[late.text.index(note[0]) - 400 :])[0]
    sent = one.post(path, data=before | typed | {"etag": unescape(fresh)})
    assert sent.status_code == 303, "the second time it takes effect"


def test_what_cannot_be_is_said_above_the_form_as_it_was_sent(console: Console) -> None:
    client = console.as_role("operator")
    wrong = form(client, "/people", "/groups", group="family", threshold="much", advice="greet them")
    assert wrong.status_code == 422
    assert "is not a threshold" in wrong.text
    assert 'value="much"' in wrong.text
    assert 'value="greet them"' in wrong.text
    taken = form(client, "/people/p-bob", "/people/p-bob/rename", identity_name="Anna")
    assert taken.status_code == 409
    assert re.search(r'role="alert".*?name="identity_name" value="Anna"', taken.text, re.DOTALL)
    long = form(client, "/people/p-bob", "/people/p-bob/rename", identity_name="x" * 300)
    assert (long.status_code, "x" * 300 in long.text) == (422, True)
    gone = client.post("/unknown/u-9/name", data={"csrf": client.headers["X-CSRF-Token"], "identity_name": "Dora"})
    assert (gone.status_code, "Dora" in gone.text) == (404, True), "no page has the form any more"


def test_a_page_of_another_log_in_still_keeps_what_was_typed(console: Console) -> None:
    client = console.as_role("operator")
    given = hidden(client, "/people/p-bob", "/people/p-bob/rename")
    back = client.post("/people/p-bob/rename", data=given | {"csrf": "of before", "identity_name": "Rob"})
    assert (back.status_code, 'value="Rob"' in back.text) == (403, True)
    assert people(console.parts) == ["Anna", "Bob"]


def test_a_form_of_another_site_is_refused_and_shows_nothing_of_what_it_says(console: Console) -> None:
    client = console.as_role("operator")
    given = hidden(client, "/people/p-bob", "/people/p-bob/rename") | {"identity_name": "Eve"}
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", ""):
        for path, fields in (("/people/p-bob/rename", given), ("/login", {"name": "viewer", "password": PASSWORD})):
            answer = client.post(path, data=fields, headers={"Origin": origin})
            assert (answer.status_code, "Eve" in answer.text) == (403, False), (origin, path)
            assert "set-cookie" not in answer.headers
        log_in = client.post(
            f"{API}/session", json={"name": "viewer", "password": PASSWORD}, headers={"Origin": origin}
        )
        assert log_in.json()["detail"].startswith("a page of another site")
    ours = client.post("/people/p-bob/rename", data=given, headers={"Origin": console.address})
    assert ours.status_code == 303
    assert people(console.parts) == ["Anna", "Eve"]


def test_a_form_that_is_sent_twice_is_done_once(console: Console) -> None:
    client = console.as_role("operator")
    given = hidden(client, "/unknown", "/unknown/u-1/name") | {"identity_name": "Carla"}
    answers: list[httpx.Response] = []
    cookies, csrf = client.cookies, client.headers["X-CSRF-Token"]

    def send() -> None:
        with httpx.Client(base_url=console.address, cookies=cookies, headers={"X-CSRF-Token": csrf}) as other:
            answers.append(other.post("/unknown/u-1/name", data=given, timeout=90))

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {303}
    assert len({answer.headers["location"] for answer in answers}) == 1, "all see what the first one did"
    assert people(console.parts) == ["Anna", "Bob", "Carla"]
    assert len(console.parts.gallery().person("Carla").samples) == 1
    once_more = hidden(client, "/people/p-bob", "/people/p-bob/rename") | {"identity_name": "Anna"}
    assert [client.post("/people/p-bob/rename", data=once_more).status_code for _ in range(2)] == [409, 409]


def test_what_was_typed_survives_a_database_that_is_away(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.errors import DatabaseUnavailableError

    client = console.as_role("operator")
    given = hidden(client, "/people/p-bob", "/people/p-bob/rename") | {"identity_name": "Rob"}

    def away(_secret: str) -> Any:
        raise DatabaseUnavailableError("the database cannot be reached")

    with monkeypatch.context() as broken:
        broken.setattr(console.parts.sessions, "of", away)
        page = client.get("/people")
        assert (page.status_code, page.headers["refresh"]) == (503, "5"), "the page comes back by itself"
        refused = client.post("/people/p-bob/rename", data=given)
    assert (refused.status_code, "Send it again" in refused.text) == (503, True)
    kept = {
        unescape(name): unescape(value)
        for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', refused.text)
    }
    assert client.post("/people/p-bob/rename", data=kept).status_code == 303
    assert people(console.parts) == ["Anna", "Rob"]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["x" * 100_000, "\x00\x01\x7f\u202e\ud7ff", "\u0000", "ሴ" * 5000, "../../etc/passwd"])
def test_no_text_of_any_length_or_kind_breaks_a_form(console: Console, text: str) -> None:
    client = console.as_role("admin")
    csrf = {"csrf": client.headers["X-CSRF-Token"]}
    for path, field in (
        ("/people/p-bob/rename", "identity_name"), ("/groups", "group"), ("/unknown/u-1/name", "identity_name"),
        ("/unknown/u-1/merge", "other"), ("/sightings/door_1/correct", "name"), ("/add-camera", "source"),
        ("/add-camera", "camera_id"), ("/rules", "name"), ("/rules", "apprise"), ("/login", "name"),
        ("/unknown/undo", "steps"), ("/settings/accounts", "name"), ("/settings/tokens", "name"),
    ):  # fmt: skip
        answer = client.post(path, data=csrf | {"etag": "*", field: text})
        assert answer.status_code < 500, (path, field, answer.text)
    for path in ("/people", "/sightings", "/unknown", "/cameras", "/settings/audit"):
        for field in ("q", "cursor", "group", "person", "since", "start", "said", "about"):
            assert client.get(path, params={field: text[:5000]}).status_code < 500, (path, field)


def test_a_cursor_that_was_tampered_with_is_refused_and_a_link_that_is_forged_leads_nowhere(console: Console) -> None:
    client = console.as_role("viewer")
    for cursor in (
        "x",
        "WzFd",
        "W10",
        "e30",
        "bnVsbA",
        "W251bGwsbnVsbF0",
        "WyJhIiwxXQ",
        "WzFlOTk5LCJhIl0",
        "%00",
        "[" * 5000,
    ):
        for path in ("/people", "/sightings", "/cameras", f"{API}/people", f"{API}/sightings", f"{API}/unknowns"):
            answer = client.get(path, params={"cursor": cursor})
            assert answer.status_code in {400, 422, 200}, (path, cursor, answer.status_code)
    for link in (
        "/people/p-nobody", "/people/..%2F..%2Fetc", "/sightings/none", "/unknown/none", "/cameras/none", "/rules/none",
        "/enter/guess", "/samples/p-anna/none", "/faces/none", "/scenes/none", "/people/%00", "/sightings/%F0%9F%8E%89",
    ):  # fmt: skip
        answer = client.get(link)
        assert answer.status_code < 500, link
        assert "Anna" not in answer.text, link
    assert client.get("/enter/guess").headers["location"] == "/", "who has a session needs no link"
    assert console.anybody().get("/enter/guess").status_code == 403


@pytest.mark.data
@pytest.mark.timeout(300)
def test_photos_of_every_kind_are_taken_or_say_why_not(tmp_path: Path, redis_url: str, test_data: Path) -> None:
    photos = test_data / "photos"
    face = next(path for path in sorted((photos / "train" / "obama").iterdir()))
    large, empty = io.BytesIO(), io.BytesIO()
    with Image.open(face) as picture:
        scale = (36_000_000 / (picture.width * picture.height)) ** 0.5
        size = (round(picture.width * scale), round(picture.height * scale))
        picture.convert("RGB").resize(size).save(large, "JPEG")
    Image.new("RGB", (600, 400), (90, 90, 90)).save(empty, "PNG")
    given = {
        "large.jpg": large.getvalue(), "nobody.png": empty.getvalue(), "text.jpg": b"no picture", "none.jpg": b"",
        "three.jpg": (photos / "test" / "obama_and_biden.jpg").read_bytes(),
    }  # fmt: skip
    config = console_config(
        tmp_path, redis_url, model=RETAIL, models_dir=str(test_data / "models"), detection={"detector": "yunet"}
    )
    with running_console(config, filled=False) as console:
        client = console.as_role("operator")
        files = [("photos", (name, content)) for name, content in given.items()]
        fields = {"csrf": client.headers["X-CSRF-Token"], "identity_name": "Barack"}
        page = client.post("/people", data=fields, files=files, timeout=120).text
        told = dict(re.findall(r"<li><bdi>(\w+\.\w+)</bdi>: <b[^>]*>((?:not )?taken)</b>", page))
        assert told == {
            "large.jpg": "taken", "nobody.png": "not taken", "text.jpg": "not taken", "none.jpg": "not taken",
            "three.jpg": "not taken",
        }  # fmt: skip
        assert people(console.parts) == ["Barack"]
        answer = client.post(
            f"{API}/people", data={"identity_name": "Nobody"}, files=[("photos", ("nobody.png", empty.getvalue()))]
        )
        assert [(photo["accepted"], photo["reason"]) for photo in answer.json()["photos"]] == [(False, "no_face")]
