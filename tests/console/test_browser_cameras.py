"""The pages of cameras in a real browser: a live test on a real RTSP server, areas by mouse and by keyboard."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.support.console import API, Console
from tests.support.rtsp import RtspServer, camera_with_login
from worker.api.camera_documents import CameraDocument

pytestmark = pytest.mark.slow

Enter = Callable[..., Page]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtspServer]:
    with camera_with_login(tmp_path_factory.mktemp("clips"), "admin:s3cret") as running:
        yield running


def stored(console: Console, camera_id: str = "door") -> CameraDocument:
    return CameraDocument.model_validate(console.as_role("viewer").get(f"{API}/cameras/{camera_id}").json())


def test_a_camera_is_tested_and_added(enter: Enter, console: Console, server: RtspServer) -> None:
    page = enter("admin")
    page.get_by_role("link", name="Cameras").click()
    page.get_by_role("link", name="Add a camera").click()
    page.get_by_label("Name").fill("door")
    page.get_by_label("Address").fill(server.url("/cam"))
    page.get_by_label("User").fill("admin")
    page.get_by_label("Password").fill("wr0ng")
    page.get_by_role("button", name="Test", exact=True).click()
    expect(page.locator("#tried")).to_contain_text("There is no picture:", timeout=60_000)
    page.get_by_label("Password").fill("s3cret")
    page.get_by_role("button", name="Test", exact=True).click()
    expect(page.locator("#tried")).to_contain_text("It works: 320×240", timeout=60_000)
    expect(page.get_by_alt_text("What the camera shows")).to_be_visible()
    page.get_by_role("button", name="Test and add").click()
    expect(page.get_by_role("status")).to_contain_text("The camera was added", timeout=60_000)
    assert "s3cret" not in page.content()
    assert stored(console).state == "nobody reads it"


def test_masks_and_zones_are_drawn_by_keyboard_and_by_mouse(enter: Enter, console: Console, server: RtspServer) -> None:
    given = {"camera_id": "door", "source": server.url("/cam", "admin:s3cret")}
    assert console.as_role("admin").post(f"{API}/cameras", json=given).status_code == 201
    page = enter("admin")
    page.goto(f"{console.address}/cameras/door")
    page.get_by_role("link", name="Draw them on a picture").click()
    page.get_by_role("button", name="New zone").press("Enter")
    corner = page.get_by_role("button", name="Zone 1, corner 1 of 4")
    expect(corner).to_be_focused()
    for key in ("ArrowLeft", "Shift+ArrowUp", "ArrowUp", "+"):
        page.keyboard.press(key)
    expect(page.get_by_role("button", name="Zone 1, corner 2 of 5")).to_be_focused()
    page.keyboard.press("Delete")
    page.get_by_label("Name").fill("till")
    page.get_by_role("button", name="Store").press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("Stored")
    assert stored(console).zones == {"till": ((0.34, 0.29), (0.65, 0.35), (0.65, 0.65), (0.35, 0.65))}
    page.get_by_role("button", name="New mask").click()
    page.get_by_role("button", name="Remove: Mask 1").click()
    canvas = page.locator("#canvas")

    def drag(begin: tuple[float, float], end: tuple[float, float]) -> None:
        canvas.evaluate("canvas => canvas.scrollIntoView()")
        frame = canvas.bounding_box()
        assert frame is not None
        places = [(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in (begin, end)]
        page.mouse.move(*places[0])
        page.mouse.down()
        page.mouse.move(*places[1])
        page.mouse.up()

    drag((0.1, 0.1), (0.3, 0.2))
    drag((0.3, 0.2), (0.25, 0.25))
    expect(page.get_by_role("button", name="Mask 1, corner 3 of 4: 25 %, 25 %")).to_be_visible()
    page.get_by_role("button", name="Remove: till").click()
    page.get_by_role("button", name="Store").click()
    expect(page.get_by_role("status").first).to_contain_text("Stored")
    ((first, _, third, _),) = stored(console).masks
    assert (*first, *third) == pytest.approx((0.1, 0.1, 0.25, 0.25), abs=0.01)
    assert stored(console).zones == {}
