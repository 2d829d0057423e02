"""How the pages look in a real browser: at every width, light and dark, with nothing on them and with much."""

from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.support.console import API, PASSWORD, Console, console_config, running_console
from tests.support.publishing import STREAM
from tests.support.sample_events import make_event, stream_fields
from worker.config import FleetConfig
from worker.gallery.groups import Group
from worker.redis.keys import fleet_key
from worker.service.status import CameraStatus, WorkerStatus
from worker.wire import now_rfc3339

pytestmark = pytest.mark.slow

Enter = Callable[..., Page]
EMPTY = (
    "/", "/sightings", "/unknown", "/unknown?ignored=true", "/people", "/find", "/cameras", "/rules", "/health",
    "/settings", "/settings/audit", "/findings", "/erasures", "/add-camera", "/people?q=nobody", "/cameras?wrong=true",
    "/people/none", "/sightings?since=never", "/runbooks/camera-down", "/runbooks/README", "/settings/accounts/viewer",
    "/settings/audit?about=nobody",
)  # fmt: skip
"""Pages that are there although nothing else is."""
PAGES = (
    *EMPTY, "/sightings/door_1", "/sightings/door_3", "/unknown/u-1", "/unknown/u-1/erase", "/people/p-anna",
    "/people/p-anna/erase", "/people?group=staff", "/cameras/door", "/cameras/door/areas",
    "/settings/audit?verify=true",
)  # fmt: skip
LONG = " ".join(["very"] * 12)
OPEN = "document.querySelectorAll('main details').forEach((each) => (each.open = true))"


@pytest.fixture
def door(console: Console) -> None:
    """A camera that is not there, with a mask and a zone."""
    area = [[0.1, 0.1], [0.4, 0.1], [0.4, 0.5]]
    made = {"camera_id": "door", "source": "rtsp://127.0.0.1:9/1"}
    admin = console.as_role("admin")
    assert admin.post(f"{API}/cameras", json=made).status_code == 201
    assert admin.patch(f"{API}/cameras/door", json={"masks": [area], "zones": {"till": area}}).status_code == 200


@pytest.fixture
def crowd(console: Console, redis_url: str, door: None) -> None:
    """Names of every kind, groups, a rule, an event, a worker that says much."""
    del door
    gallery = console.parts.gallery()
    gallery.set_group("staff", Group(None, "green", "greet them"))
    gallery.set_group(LONG, Group(0.4, "red", "wait, and " * 29))
    gallery.regroup(["p-anna", "p-bob"], join=["staff", LONG])
    gallery.rename("p-anna", "An extraordinarily long name " * 3)
    gallery.rename("p-bob", "محمد بن عبد الله 🎉")
    rule = {"name": "W" * 90, "webhook": "https://example.org/x", "webhook_secret": "x" * 16, "cameras": ["c" * 60]}
    assert console.as_role("admin").post(f"{API}/rules", json=rule).status_code == 201
    reason = "rtsp://10.0.0.7/a-path-without-a-blank-in-it-that-is-longer-than-a-phone-is-wide cannot be opened"
    cameras = [CameraStatus(camera_id=each, state="waiting", reason=reason, fps=0.0) for each in ("c" * 60, "yard")]
    status = WorkerStatus(
        worker_id="w" * 60, at=now_rfc3339(), version="1", uptime_s=5.0, ready=False, reasons={"redis": "away"},
        outbox_events=700, gallery_people=2, gallery_version=1, cameras=cameras,
    )  # fmt: skip
    with redis.Redis.from_url(redis_url) as client:
        for number, name in enumerate(("W" * 80, "محمد", "👩‍👩‍👧 🎉")):
            event = make_event(number, sighting_id=f"door_{number}", identity_name=name, camera_id="c" * 60)
            client.xadd(STREAM, stream_fields(event))
        client.hset(fleet_key(FleetConfig().name, "status"), "w:1", status.model_dump_json())


@pytest.mark.usefixtures("crowd")
def test_a_page_holds_at_every_width_with_names_of_every_kind(enter: Enter, console: Console) -> None:
    for width in (320, 360, 768, 1920):
        page = enter("admin", width)
        for path in PAGES:
            page.goto(console.address + path)
            page.evaluate(OPEN)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)


@pytest.mark.usefixtures("crowd")
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(enter: Enter, console: Console, dark: bool) -> None:
    page = enter("admin", 360 if dark else 1280, dark=dark)
    axe = Axe()
    for path in PAGES:
        page.goto(console.address + path)
        page.evaluate(OPEN)
        found = axe.run(page)
        assert found.violations_count == 0, (path, found.generate_report())
    page.goto(f"{console.address}/people")
    page.evaluate(OPEN)
    page.get_by_label("Name of the group").fill("a,b")
    page.get_by_role("button", name="Make", exact=True).click()
    expect(page.get_by_role("alert").first).to_contain_text("cannot name a group")
    found = axe.run(page)
    assert found.violations_count == 0, found.generate_report()
    page.context.clear_cookies()
    page.evaluate(OPEN)
    page.get_by_role("button", name="Make", exact=True).click()
    expect(page.get_by_text("What you typed is kept on this page")).to_be_visible()
    found = axe.run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_where_nothing_is_yet(browser: Browser, tmp_path: Path, redis_url: str, dark: bool) -> None:
    axe = Axe()
    with (
        running_console(console_config(tmp_path, redis_url), filled=False) as console,
        browser.new_context(locale="de-DE", color_scheme="dark" if dark else "light") as context,
    ):
        page = context.new_page()
        page.set_viewport_size({"width": 360, "height": 800})
        page.goto(console.address)
        for typed in ("wrong", PASSWORD):
            assert axe.run(page).violations_count == 0, typed
            page.fill("input[name=name]", "admin")
            page.fill("input[name=password]", typed)
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert") if typed == "wrong" else page.get_by_role("navigation")).to_be_visible()
        for path in EMPTY:
            page.goto(console.address + path)
            page.evaluate(OPEN)
            found = axe.run(page)
            assert found.violations_count == 0, (path, found.generate_report())
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
