"""The pages without a browser: what they hold, whom they let do what, and what forms change."""

import io
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as Pillow

from tests.support.console import (
    API,
    LONG_S,
    PASSWORD,
    Console,
    console_config,
    form,
    keep_picture,
    of_anna,
    running_console,
    serving,
)
from tests.support.past import AXES, MODEL, unknown
from tests.support.publishing import stored
from tests.support.sample_events import make_event
from worker.api.parts import Parts
from worker.console.app import make_console
from worker.console.pages import HERE, sureness
from worker.events.codec import sighting_id
from worker.gallery.contents import NewSample
from worker.gallery.opening import open_gallery

PAGES = (
    "/", "/sightings", "/sightings/door_1", "/unknown", "/people", "/people/p-anna", "/find", "/health",
    "/sightings?person=Anna", "/sightings?unknown=u-1&since=2026-01-01T00:00", "/people?q=nobody",
    "/unknown/u-1", "/unknown?ignored=true", "/cameras", "/settings",
)  # fmt: skip


def jpeg(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(image).save(out, "JPEG")
    return out.getvalue()


def names(console: Console) -> list[str]:
    return [person.name for person in open_gallery(console.parts.gallery_path).people()]


def test_every_page_is_for_who_is_logged_in_and_asks_nobody_else_for_anything(console: Console) -> None:
    viewer, nobody = console.as_role("viewer"), console.anybody()
    for path in PAGES:
        answer = viewer.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert '<form method="post" action="/p' not in answer.text, "a viewer is offered nothing to change"
        assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', answer.text)
        assert not re.findall(r"<script(?![^>]*src=)|<style| style=| on\w+=", answer.text), "nothing inline"
        refused = nobody.get(path)
        assert (refused.status_code, refused.headers["location"].partition("?")[0]) == (303, "/login")
    for file in (HERE / "static").iterdir():
        assert not re.findall(r"https?://(?!www\.w3\.org/)", file.read_text()), file.name


def test_who_logs_in_comes_to_where_they_wanted_to_go_and_nowhere_else(console: Console) -> None:
    client = console.anybody()
    to = client.get("/people?q=Anna").headers["location"]
    assert client.post(to, data={"name": "viewer", "password": "wrong password"}).status_code == 401
    assert client.post(to, data={"name": "viewer", "password": PASSWORD}).headers["location"] == "/people?q=Anna"
    for elsewhere in ("https://evil.example", "//evil.example", "/\\evil.example", "evil"):
        answer = console.anybody().post(
            "/login", params={"to": elsewhere}, data={"name": "viewer", "password": PASSWORD}
        )
        assert answer.headers["location"] == "/", elsewhere
    assert form(client, "/", "/logout").headers["location"] == "/login"
    assert client.get("/").status_code == 303


def test_the_first_start_makes_an_admin_on_a_page(tmp_path: Path, redis_url: str) -> None:
    app = make_console(Parts(console_config(tmp_path, redis_url)))
    given = {"code": app.state.first_code.code, "name": "Zoë", "password": PASSWORD, "again": PASSWORD}
    with serving(app) as address, httpx.Client(base_url=address) as client:
        assert client.get("/login").headers["location"] == "/setup"
        assert client.post("/setup", data=given | {"again": "other"}).status_code == 422
        assert client.post("/setup", data=given | {"code": "guess"}).status_code == 403
        assert client.post("/setup", data=given).headers["location"] == "/"
        assert '<bdi class="me">Zoë</bdi>' in client.get("/").text
        assert client.get("/setup").headers["location"] == "/login"


def test_no_form_works_from_another_page_or_for_who_may_only_look(console: Console) -> None:
    operator, viewer = console.as_role("operator"), console.as_role("viewer")
    forms = {
        "/people/p-bob/rename": {"identity_name": "Rob", "etag": "*"}, "/people/p-bob/remove": {"etag": "*"},
        "/unknown/u-1/name": {"identity_name": "Eve"}, "/unknown/u-1/merge": {"other": "u-2"},
        "/unknown/u-1/forget": {}, "/unknown/undo": {"steps": "x"}, "/unknown/u-1/split": {"ids": "door_3"},
        "/unknown/some": {"do": "ignore", "ids": "u-1"}, "/sightings/door_1/correct": {"etag": "*"},
        "/sightings/door_1/undo": {"etag": "*"}, "/people/p-bob/samples/x/remove": {"etag": "*"},
    }  # fmt: skip
    csrf = viewer.headers["X-CSRF-Token"]
    for path, fields in forms.items():
        assert operator.post(path, data=fields | {"csrf": csrf}).status_code == 403, path
        assert viewer.post(path, data=fields | {"csrf": csrf}).status_code == 403, path
        assert console.anybody().post(path, data=fields).status_code == 401, path
    assert names(console) == ["Anna", "Bob"]


def test_a_stranger_gets_a_name_beside_the_number_that_says_what_it_risks(console: Console, redis_url: str) -> None:
    client = console.as_role("operator")
    text = client.get("/unknown").text
    assert "similar by 0.60" in text
    assert "below the 0.50" not in text
    assert "names somebody from a similarity of 0.50 on" in text
    assert "calibrate the gallery to learn it" in text
    open_gallery(console.parts.gallery_path).set_thresholds(0.5, {}, {"default": {"fmr": 1e-4, "fpir": 0.002}})
    assert "1 in 500 strangers is taken for somebody" in client.get("/unknown").text
    answer = form(client, "/unknown", "/unknown/u-1/name", identity_name="Carla")
    told = client.get(answer.headers["location"]).text
    assert "Past sightings were corrected" in told
    assert "Carla" in told
    assert [event.identity_name for event in stored(redis_url)] == ["Carla", "Carla"]
    assert names(console) == ["Anna", "Bob", "Carla"]


@pytest.mark.parametrize(
    ("similarity", "threshold", "word"),
    [
        (0.7, 0.5, "clearly"),
        (0.56, 0.5, "likely"),
        (0.51, 0.5, "just"),
        (0.49, 0.5, "hardly"),
        (0.96, 0.91, "clearly"),
        (0.92, 0.91, "likely"),
        (1.0, 1.0, "just"),
        (None, 0.5, ""),
    ],
)
def test_a_word_says_how_sure_a_name_is_whatever_the_model(
    similarity: float | None, threshold: float, word: str
) -> None:
    assert str(sureness(similarity, threshold)) == word


def test_two_unknown_people_are_merged_parted_and_forgotten(console: Console) -> None:
    client = console.as_role("operator")
    merged = form(client, "/unknown", "/unknown/u-1/merge", other="u-2").headers["location"]
    assert "Seen 3 times" in client.get(merged).text
    undone = form(client, merged, "/unknown/undo").headers["location"]
    assert "Undone" in client.get(undone).text
    form(client, "/unknown", "/unknown/u-2/forget")
    assert "u-2" not in client.get("/unknown").text
    gone = client.post("/unknown/u-2/forget", data={"csrf": client.headers["X-CSRF-Token"]})
    assert (gone.status_code, "named, forgotten or expired" in gone.text) == (404, True)


def test_two_entries_of_one_person_are_made_one_after_what_changes_was_shown(console: Console) -> None:
    client = console.as_role("operator")
    page = "/people/p-bob/merge?other=Anna"
    shown = client.get(page).text
    for told in (
        "<bdi>Bob</bdi> and <bdi>Anna</bdi> one person?", "2 get the name of", "similar by 0.00, below the 0.50",
        "How often that is wrong is not known here",
    ):  # fmt: skip
        assert told in shown
    done = form(client, page, "/people/p-bob/merge").headers["location"]
    assert names(console) == ["Bob"]
    told = client.get(done).text
    assert "Two people are one now." in told
    assert "Merged with this person" in told
    undone = form(client, done, "/unknown/undo").headers["location"]
    assert undone.startswith("/people/p-bob")
    assert "Undone." in client.get(undone).text
    assert names(console) == ["Anna", "Bob"]
    for other, problem in (("Nobody", "nobody enrolled is called so"), ("Bob", "choose somebody else")):
        asked = client.get("/people/p-bob/merge", params={"other": other}).text
        assert problem in asked
        assert f'value="{other}"' in asked
    stale = form(client, page, "/people/p-bob/merge", etag='"old"')
    assert (stale.status_code, names(console)) == (412, ["Anna", "Bob"])
    assert console.as_role("viewer").get(page).status_code == 403


def chosen(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/unknown/some", data={"csrf": client.headers["X-CSRF-Token"]} | fields)


def test_several_unknown_people_are_named_as_one_and_that_is_undone(console: Console) -> None:
    client = console.as_role("operator")
    said = client.get(chosen(client, do="name", ids=["u-1", "u-2"], identity_name="Carla").headers["location"]).text
    assert "<bdi>Carla</bdi></a> now" in said
    assert "Nobody unknown is remembered" in said
    assert len(open_gallery(console.parts.gallery_path).person("Carla").samples) == 2
    (steps,) = re.findall(r'name="steps" value="([^"]+)"', said)
    client.post("/unknown/undo", data={"csrf": client.headers["X-CSRF-Token"], "steps": steps})
    assert names(console) == ["Anna", "Bob"]
    text = client.get("/unknown").text
    assert "u-1" in text
    assert "u-2" in text
    assert chosen(client, do="name", identity_name="Carla").status_code == 422, "nobody is chosen"


def test_several_unknown_people_are_ignored_shown_apart_asked_about_again_and_forgotten(console: Console) -> None:
    client = console.as_role("operator")
    chosen(client, do="ignore", ids=["u-1", "u-2"])
    assert "u-1" not in client.get("/unknown").text
    assert "u-1" in client.get("/unknown?ignored=true").text
    chosen(client, do="heed", ids=["u-1", "u-2"])
    assert "u-1" in client.get("/unknown").text
    chosen(client, do="forget", ids=["u-1", "u-2"])
    assert "Nobody unknown is remembered" in client.get("/unknown").text


def test_an_unknown_person_who_is_two_is_split(console: Console) -> None:
    client = console.as_role("operator")
    csrf = {"csrf": client.headers["X-CSRF-Token"]}
    assert 'value="door_4"' in client.get("/unknown/u-1").text
    split = client.post("/unknown/u-1/split", data=csrf | {"ids": ["door_4"]}).headers["location"]
    assert "One person is two now" in client.get(split).text
    assert client.get("/unknown").text.count("Seen once") == 3
    assert client.post("/unknown/u-1/split", data=csrf).status_code == 422


def test_unknown_people_who_look_like_one_person_are_named_by_one_button(console: Console) -> None:
    like = (0.45 * AXES[0] + np.sqrt(1 - 0.45**2) * AXES[5]).astype(np.float32)
    with console.parts.history() as history:
        history.write([], [unknown("u-3", like)], keep_s=LONG_S, remember_s=LONG_S)
    client = console.as_role("operator")
    text = client.get("/unknown").text
    assert "These 2 look like <bdi>Anna</bdi>: 0.45 to 0.60" in text
    assert "2 past sightings are theirs" in text
    assert re.search(r"similar by 0\.45, below the 0\.50 from which a camera names", text)
    chosen(client, do="name", ids=["u-1", "u-3"], identity_name="Anna")
    assert names(console) == ["Anna", "Bob"]
    assert "u-3" not in client.get("/unknown").text


def test_not_this_person_is_said_and_taken_back(console: Console) -> None:
    client = console.as_role("operator")
    said = form(client, "/sightings/door_1", "/sightings/door_1/correct", name="Bob").headers["location"]
    assert "<h1><bdi>Bob</bdi></h1>" in client.get(said).text
    undone = form(client, "/sightings/door_1", "/sightings/door_1/undo").headers["location"]
    assert "<h1><bdi>Anna</bdi></h1>" in client.get(undone).text
    wrong = form(client, "/sightings/door_1", "/sightings/door_1/correct", name="Nobody")
    assert (wrong.status_code, "knows nobody called" in wrong.text) == (409, True)


def test_two_who_edit_one_person_are_told(console: Console) -> None:
    one, other = console.as_role("operator"), console.as_role("admin")
    etag = re.findall(r'name="etag" value="([^"]+)"', one.get("/people/p-bob").text)[0]
    assert form(other, "/people/p-bob", "/people/p-bob/rename", identity_name="Rob").status_code == 303
    late = one.post(
        "/people/p-bob/rename",
        data={"csrf": one.headers["X-CSRF-Token"], "etag": unescape(etag), "identity_name": "Bert"},
    )
    assert (late.status_code, "changed this meanwhile" in late.text) == (412, True)
    form(one, "/people/p-bob", "/people/p-bob/remove")
    assert names(console) == ["Anna"]


def test_people_are_shown_with_where_they_were_seen_last_and_a_consent_that_ends(console: Console) -> None:
    client = console.as_role("operator")
    text = client.get("/people").text
    assert "door_2" in text
    assert "Not seen yet" in text
    day = (datetime.now(UTC) + timedelta(days=5)).date().isoformat()
    said = form(client, "/people/p-bob", "/people/p-bob/consent", until=day, basis="contract").headers["location"]
    assert "The consent is noted." in client.get(said).text
    text = client.get("/people").text
    assert f"consent ends {day}" in text
    assert "The consent of one person ends within 30 days." in text
    assert "Anna" not in client.get("/people?consent=ending").text
    wrong = form(client, "/people/p-bob", "/people/p-bob/consent", until="soon")
    assert (wrong.status_code, "is not a day" in wrong.text) == (422, True)


def test_names_are_text_whatever_is_in_them(console: Console) -> None:
    client = console.as_role("operator")
    form(client, "/people/p-bob", "/people/p-bob/rename", identity_name='<img src=x onerror="alert(1)">')
    for path in ("/people", "/people/p-bob", "/unknown", "/sightings"):
        text = client.get(path).text
        assert "&lt;img src=x" in text
        assert "<img src=x" not in text


def test_a_picture_is_shown_or_a_drawn_head_and_only_to_a_session(console: Console, tmp_path: Path) -> None:
    keep_picture(tmp_path / "pictures", of_anna(1))
    client = console.as_role("viewer")
    past = client.get("/faces/door_1?px=64")
    assert (past.headers["content-type"], past.headers["cache-control"]) == ("image/jpeg", "private, max-age=300")
    at = datetime.now(UTC)
    going = make_event(camera_id="door", started_at=at, sighting_id=sighting_id("door", at, 1))
    keep_picture(tmp_path / "pictures", going)
    now = client.get(f"/faces/{going.sighting_id}")
    assert (now.headers["content-type"], now.headers["cache-control"]) == ("image/jpeg", "private, max-age=5")
    for none in (
        "door_2",
        "door_2026-03-01T08:30:00.123Z_7",
        "door_2026-99-01T08:30:00.123Z_7",
    ):
        assert client.get(f"/faces/{none}").headers["content-type"] == "image/svg+xml", none
    assert client.get("/faces/..%2F..%2Fetc%2Fpasswd").status_code == 404
    assert console.anybody().get("/faces/door_1").status_code == 303


@pytest.mark.data
def test_photos_are_dropped_on_pages(tmp_path: Path, redis_url: str, test_data: Path) -> None:
    from tests.support.command_line import RETAIL

    photo = next(path for path in sorted((test_data / "photos" / "train" / "obama").iterdir()))
    config = console_config(
        tmp_path, redis_url, model=RETAIL, models_dir=str(test_data / "models"), detection={"detector": "yunet"}
    )
    with running_console(config, filled=False) as console:
        client = console.as_role("operator")
        fields: Any = {"csrf": client.headers["X-CSRF-Token"], "identity_name": "Barack"}
        files = [("photos", (photo.name, photo.read_bytes())), ("photos", ("b.jpg", b"no picture"))]
        told = client.post("/people", data=fields, files=files).text
        assert "taken" in told
        assert "not taken" in told
        assert "is not a picture" in told
        found = client.post("/find", data=fields, files={"photo": (photo.name, photo.read_bytes())})
        assert "0 sightings are similar by" in found.text
        none = client.post("/find", data=fields, files={"photo": ("b.jpg", b"no picture")})
        assert (none.status_code, "is not a picture" in none.text) == (200, True)
        nobody = client.post(
            "/find", data=fields, files={"photo": ("c.jpg", jpeg(np.full((6000, 6000, 3), 90, np.uint8)))}
        )
        assert "no face found" in nobody.text, "36 megapixels are read"
        several = (test_data / "photos" / "test" / "obama_and_biden.jpg").read_bytes()
        asked = client.post("/find", data=fields, files={"photo": ("d.jpg", several)}).text
        assert "The photo shows 3 people" in asked
        for face in re.findall(r'name="face" value="([^"]+)"', asked):
            chosen = client.post("/find", data=fields | {"face": unescape(face)}).text
            assert "The person who is looked for" in chosen
            assert "sightings are similar by" in chosen
        broken = client.post("/find", data=fields | {"face": "%%%"})
        assert (broken.status_code, "Choose a photo" in broken.text) == (200, True)
        told = client.post(f"{API}/faces", files={"photo": ("d.jpg", several)}).json()["items"]
        assert [face["face"] for face in told] == [0, 1, 2]
        assert told[0]["box"][0] < told[1]["box"][0]
        unclear = client.post(f"{API}/search", files={"photo": ("d.jpg", several)})
        assert (unclear.status_code, "face=0 to face=2" in unclear.json()["detail"]) == (422, True)
        assert client.post(f"{API}/search?face=1", files={"photo": ("d.jpg", several)}).json()["items"] == []
        assert client.post(f"{API}/search?face=3", files={"photo": ("d.jpg", several)}).status_code == 422


def test_without_redis_pages_say_so_and_show_the_rest(tmp_path: Path) -> None:
    with running_console(console_config(tmp_path, "redis://127.0.0.1:1/0")) as console:
        client = console.as_role("operator")
        for path in PAGES:
            assert client.get(path).status_code == 200, path
        assert "cannot be reached" in client.get("/").text
        assert "cannot be reached" in client.get("/health").text
        refused = form(client, "/unknown", "/unknown/u-1/name", identity_name="Eve")
        assert (refused.status_code, "cannot be reached" in refused.text) == (503, True)
        assert 'value="Eve"' in refused.text, "what was typed is still there"
        assert names(console) == ["Anna", "Bob"], "nothing was changed"


def test_no_page_is_heavy_with_hundreds_of_people(console: Console, tmp_path: Path) -> None:
    """Below 200 kB with all that a browser loads beside it, except pictures of faces, which it loads when they show."""
    gallery = open_gallery(console.parts.gallery_path)
    vector = gallery.vectors("p-bob")[0][0]
    gallery.add([NewSample(f"Person with a name {n}", vector, f"{n}.jpg", f"x{n}", quality=0.5) for n in range(300)])
    assert gallery.model_id == MODEL.model_id
    client = console.as_role("operator")
    beside = sum(file.stat().st_size for file in (HERE / "static").iterdir())
    for path in PAGES:
        assert beside + len(client.get(path).content) < 100_000, path
