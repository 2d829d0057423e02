"""What it takes to do the usual things with the pages alone: clicks and seconds, counted in a real browser.

``python -m pytest -n0 tests/console/test_journeys.py`` prints them at the end.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from playwright.sync_api import Browser, Page, expect

from tests.support.console import API, PASSWORD, Console
from tests.support.rtsp import camera_with_login
from worker.config import CameraConfig, FleetConfig
from worker.fleet.registry import CameraRegistry

pytestmark = pytest.mark.slow

Enter = Callable[..., Page]


class Hand:
    """Does what a person would do, and counts: a click, a field that is filled in, or Enter is one action."""

    def __init__(self, page: Page, tell: Callable[[str], None]) -> None:
        self.page, self._tell = page, tell
        self._clicks = self._fields = 0
        self._begun_s = time.monotonic()

    def click(self, role: str, name: str) -> None:
        self._clicks += 1
        self.page.get_by_role(role, name=name).first.click()  # type: ignore[arg-type] # any role of a page

    def open(self, text: str) -> None:
        self._clicks += 1
        self.page.get_by_text(text, exact=True).first.click()

    def fill(self, label: str, text: str) -> None:
        self._fields += 1
        self.page.get_by_label(label).first.fill(text)

    def press(self, name: str) -> None:
        """A button of exactly this name."""
        self._clicks += 1
        self.page.get_by_role("button", name=name, exact=True).click()

    def enter(self) -> None:
        self.page.keyboard.press("Enter")

    def done(self, what: str) -> None:
        took_s = time.monotonic() - self._begun_s
        self._tell(f"{what}: {self._clicks} clicks, {self._fields} fields, {took_s:.1f} s (of the pages; nobody reads)")


def test_a_stranger_gets_a_name(enter: Enter, tell: Callable[[str], None]) -> None:
    hand = Hand(enter("operator"), tell)
    hand.click("link", "Unknown")
    hand.fill("Who is it?", "Carla")
    hand.enter()
    expect(hand.page.get_by_role("status")).to_contain_text("This is Carla now")
    hand.done("a stranger is named")


def test_where_was_somebody_on_a_day(enter: Enter, tell: Callable[[str], None]) -> None:
    hand = Hand(enter("viewer"), tell)
    hand.click("link", "Sightings")
    hand.fill("Person", "Anna")
    hand.fill("From", "2026-01-01T00:00")
    hand.fill("Until", "2026-01-01T23:59")
    hand.click("button", "Show")
    expect(hand.page.locator("main ol li")).to_have_count(2)
    expect(hand.page.locator("main ol li").first).to_contain_text("door")
    hand.done("where somebody was on a given day")


def test_a_person_is_removed(enter: Enter, console: Console, tell: Callable[[str], None]) -> None:
    hand = Hand(enter("operator"), tell)
    hand.click("link", "People")
    hand.click("link", "Bob")
    hand.open("Remove this person")
    hand.click("button", "Remove Bob")
    expect(hand.page.get_by_role("status")).to_contain_text("Removed")
    hand.done("a person is removed")
    assert [person.name for person in console.parts.people()] == ["Anna"]


def test_a_camera_is_tested_and_added(
    enter: Enter, console: Console, tell: Callable[[str], None], tmp_path: Path
) -> None:
    with camera_with_login(tmp_path, "admin:s3cret") as server:
        hand = Hand(enter("admin"), tell)
        hand.click("link", "Cameras")
        hand.click("link", "Add a camera")
        hand.fill("Name", "back-door")
        hand.fill("Address", server.url("/cam"))
        hand.fill("User", "admin")
        hand.fill("Password", "s3cret")
        hand.press("Test and add")
        expect(hand.page.get_by_role("status")).to_contain_text("The camera was added", timeout=90_000)
        hand.done("a camera is tested and added")
    assert console.as_role("viewer").get(f"{API}/cameras/back-door").json()["defined"] is True


def test_a_guard_gets_an_account_for_one_camera(
    enter: Enter, console: Console, tell: Callable[[str], None], browser: Browser
) -> None:
    with redis.Redis.from_url(console.parts.config.redis.url.get_secret_value()) as client:
        CameraRegistry(client, FleetConfig()).add(CameraConfig(id="door", source="rtsp://127.0.0.1:9/door"))
    hand = Hand(enter("admin"), tell)
    hand.click("link", "Settings")
    hand.open("Make an account")
    hand.fill("Name", "guard")
    hand.click("checkbox", "door")
    hand.click("button", "Make the account")
    link = hand.page.locator("code").inner_text()
    hand.done("an account for a guard is made, for one camera")
    context = browser.new_context()
    guard = Hand(context.new_page(), tell)
    guard.page.goto(link)
    guard.fill("Password", PASSWORD)
    guard.fill("The password again", PASSWORD)
    guard.click("button", "Choose it and log in")
    expect(guard.page.locator(".me")).to_have_text("guard")
    guard.done("the guard chooses a password and is in")
    guard.click("link", "Sightings")
    expect(guard.page.locator("main ol li")).to_have_count(4)
    context.close()
