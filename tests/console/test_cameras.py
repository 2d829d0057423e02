"""The pages of cameras without a browser: a live test first, changes, who was quicker, masks and zones as lines."""

import re
from html import unescape

import pytest

from tests.support.console import API, Console, form
from worker.fleet.registry import CameraRegistry, decode_camera

SOURCE = "rtsp://127.0.0.1:9/cam"


def defined(console: Console, camera_id: str = "door") -> dict[str, object]:
    rows = CameraRegistry(console.parts.redis(), console.parts.config.fleet).cameras()
    (row,) = [row for row in rows if row.definition.camera_id == camera_id]
    camera = decode_camera(row.definition.document or "", camera_id)
    return camera.model_dump() | {"source": camera.source.get_secret_value(), "paused": row.definition.paused}


@pytest.fixture
def door(console: Console) -> Console:
    """A console with one camera."""
    console.as_role("admin").post(
        f"{API}/cameras", json={"camera_id": "door", "source": "rtsp://a:s3cret@127.0.0.1:9/1"}
    )
    return console


def test_a_camera_without_a_picture_is_added_only_if_that_is_wanted(console: Console) -> None:
    admin = console.as_role("admin")
    typed = {"camera_id": "gate", "source": SOURCE, "user": "ad min", "password": "p@ss/w:rd"}
    for do in ("test", "add"):
        told = form(admin, "/add-camera", "/add-camera", **typed, do=do)
        assert (told.status_code, "There is no picture:" in told.text) == (200, True)
        assert f'value="{SOURCE}"' in told.text, "what was typed is still there"
        assert "p@ss" not in told.text
    assert admin.get(f"{API}/cameras").json()["total"] == 0
    added = form(admin, "/add-camera", "/add-camera", **typed, do="add", anyway="true")
    assert added.headers.get("location") == "/cameras/gate?said=added", added.text
    assert defined(console, "gate")["source"] == "rtsp://ad%20min:p%40ss%2Fw%3Ard@127.0.0.1:9/cam"
    page = admin.get(added.headers["location"]).text
    assert "rtsp://***@127.0.0.1:9/cam" in page
    assert "p%40ss" not in page
    again = form(admin, "/add-camera", "/add-camera", **typed, do="add", anyway="true")
    assert (again.status_code, "already" in again.text) == (409, True)
    for source in ("/etc/passwd", "rtsp://[", "x" * 1999):
        wrong = form(admin, "/add-camera", "/add-camera", camera_id="x", source=source, do="add", anyway="true")
        assert (wrong.status_code, 'role="alert"' in wrong.text) == (422, True), source


def test_a_camera_is_changed_paused_and_removed_and_keeps_its_password(door: Console) -> None:
    admin = door.as_role("admin")
    form(admin, "/cameras/door", "/cameras/door", rotate="90", flip="none", threshold="0,45", transport="udp")
    now = defined(door)
    assert (now["rotate"], now["threshold"], now["transport"]) == (90, 0.45, "udp")
    assert now["source"] == "rtsp://a:s3cret@127.0.0.1:9/1"
    form(admin, "/cameras/door", "/cameras/door/pause")
    assert defined(door)["paused"] is True
    form(admin, "/cameras/door", "/cameras/door/pause")
    assert defined(door)["paused"] is False
    gone = form(admin, "/cameras/door", "/cameras/door/remove").headers["location"]
    assert "The camera was removed" in admin.get(gone).text
    viewer = door.as_role("viewer")
    assert viewer.get("/add-camera").status_code == 403
    assert "/add-camera" not in viewer.get("/cameras").text


def test_who_was_slower_is_told_and_what_they_typed_is_still_there(door: Console) -> None:
    one, other = door.as_role("admin"), door.as_role("admin")
    etag = unescape(re.findall(r'name="etag" value="([^"]+)"', one.get("/cameras/door").text)[0])
    form(other, "/cameras/door", "/cameras/door", rotate="90")
    csrf = one.headers["X-CSRF-Token"]
    typed = {"csrf": csrf, "etag": etag, "rotate": "180", "threshold": "0.7"}
    late = one.post("/cameras/door", data=typed)
    assert (late.status_code, "Somebody else has changed this meanwhile" in late.text) == (412, True)
    assert 'value="0.7"' in late.text
    assert defined(door)["rotate"] == 90
    fresh = unescape(re.findall(r'name="etag" value="([^"]+)"', late.text)[0])
    assert one.post("/cameras/door", data=typed | {"etag": fresh}).status_code == 303
    drawn = one.post("/cameras/door/areas", data={"csrf": csrf, "etag": etag, "areas": "mask: 0,0 1,0 1,1"})
    assert (drawn.status_code, "mask: 0,0 1,0 1,1" in drawn.text) == (412, True)
    assert (defined(door)["rotate"], defined(door)["masks"]) == (180, ())


def test_masks_and_zones_are_lines_where_there_is_no_script(door: Console) -> None:
    admin = door.as_role("admin")
    lines = "mask: 0,0 0.3,0 0.3,0.4\nzone the till: 0.5,0 1,0 1,1 0.5,1\n"
    form(admin, "/cameras/door/areas", "/cameras/door/areas", areas=lines)
    now = defined(door)
    assert now["masks"] == (((0, 0), (0.3, 0), (0.3, 0.4)),)
    assert now["zones"] == {"the till": ((0.5, 0), (1, 0), (1, 1), (0.5, 1))}
    assert lines in admin.get("/cameras/door/areas").text
    for wrong in ("mask: 0,0 1,1", "zone: 0,0 1,0 1,1", "nonsense", "mask: 0,0 1,0 9,9", "zone a: 0,0 1,0 x,1",
                  "zone a: 0,0 1,0 1,1\nzone a: 0,0 1,0 1,1"):  # fmt: skip
        told = form(admin, "/cameras/door/areas", "/cameras/door/areas", areas=wrong)
        assert (told.status_code, wrong.splitlines()[0] in told.text) == (422, True), wrong
    assert defined(door)["masks"] == now["masks"]
