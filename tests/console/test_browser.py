"""The pages in a real browser: what a person does there, by mouse and by keyboard."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import pytest
import redis
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.support.console import API, Console, keep_picture, of_anna
from tests.support.publishing import STREAM
from tests.support.sample_events import STARTED_AT, make_event, stream_fields
from worker.gallery.contents import NewSample
from worker.gallery.groups import Group

pytestmark = pytest.mark.slow

Enter = Callable[..., Page]


def named(console: Console) -> list[str]:
    return [person.name for person in console.parts.people()]


def add(url: str, *events: Any) -> None:
    with redis.Redis.from_url(url) as client:
        for event in events:
            client.xadd(STREAM, stream_fields(event))


def test_a_stranger_is_named_in_two_clicks(enter: Enter, console: Console) -> None:
    page = enter("operator")
    page.get_by_role("link", name="Unknown").click()
    page.get_by_role("button", name="This is Anna").first.click()
    expect(page.get_by_role("status")).to_contain_text("This is Anna now")
    assert named(console) == ["Anna", "Bob"]
    assert len(console.parts.gallery().person("Anna").samples) == 2


def test_a_stranger_is_named_by_keyboard(enter: Enter, console: Console) -> None:
    page = enter("operator")
    page.goto(f"{console.address}/unknown")
    page.get_by_label("Who is it?").first.focus()
    page.keyboard.type("Carla")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("This is Carla now")


def test_a_person_is_put_into_a_watch_list_and_found_by_it(enter: Enter, console: Console) -> None:
    page = enter("operator")
    page.get_by_role("link", name="People").click()
    page.get_by_text("Groups", exact=True).click()
    page.get_by_label("Name of the group").fill("banned")
    new = page.locator("form", has=page.get_by_label("Name of the group"))
    new.get_by_label("Colour").select_option("red")
    new.get_by_label("What to do").fill("call the guard")
    new.get_by_label("Threshold").fill("0.6")
    new.get_by_role("button", name="Make").click()
    expect(page.get_by_role("status")).to_contain_text("The group is set")
    page.get_by_role("link", name="Anna").click()
    page.get_by_label("banned").check()
    page.get_by_role("button", name="Save groups").click()
    expect(page.get_by_role("status")).to_contain_text("The groups are set")
    expect(page.get_by_label("banned")).to_be_checked()
    expect(page.locator("main")).to_contain_text("call the guard")
    page.goto(f"{console.address}/people?group=banned")
    expect(page.locator("main > ul.list > li")).to_have_count(1)
    expect(page.locator("main > ul.list > li")).to_contain_text("Anna")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert console.parts.gallery().groups["banned"].threshold == 0.6


def test_two_who_are_one_are_named_together_and_that_is_undone(enter: Enter, console: Console) -> None:
    page = enter("operator")
    page.goto(f"{console.address}/unknown")
    field = page.get_by_label("Those who are ticked are one person:")
    expect(field).to_be_hidden()
    for unknown_id in ("u-1", "u-2"):
        page.get_by_label(f"Choose {unknown_id}").check()
    field.fill("Carla")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("This is Carla now")
    assert named(console) == ["Anna", "Bob", "Carla"]
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Seen 2 times")).to_be_visible()
    assert named(console) == ["Anna", "Bob"]


def test_a_name_is_taken_back_later_on_the_persons_page(enter: Enter, console: Console) -> None:
    page = enter("operator")
    page.goto(f"{console.address}/unknown")
    page.get_by_role("button", name="This is Anna").first.click()
    page.get_by_role("link", name="Anna").click()
    page.get_by_role("button", name="Take this name back").click()
    expect(page.get_by_role("status")).to_contain_text("Undone")
    assert len(console.parts.gallery().person("Anna").samples) == 1


def test_a_face_that_shows_somebody_else_is_chosen_and_goes(enter: Enter, console: Console) -> None:
    page = enter("operator")
    page.goto(f"{console.address}/unknown/u-1")
    page.get_by_role("checkbox", name="Seen at yard").check()
    page.get_by_role("button", name="Those ticked are somebody else").click()
    expect(page.get_by_role("status")).to_contain_text("One person is two now")
    expect(page.get_by_text("Seen once")).to_have_count(3)


def test_of_thousands_of_names_those_that_fit_are_offered(enter: Enter, console: Console) -> None:
    gallery = console.parts.gallery()
    vector = gallery.vectors("p-bob")[0][0]
    gallery.add([NewSample(f"Person {n}", vector, f"{n}.jpg", f"x{n}", quality=0.5) for n in range(600)])
    page = enter("operator")
    page.goto(f"{console.address}/unknown")
    page.get_by_label("Who is it?").first.press_sequentially("Person 599")
    expect(page.locator('#names option[value="Person 599"]')).to_have_count(1)


def test_a_rule_is_made_changed_and_deleted(enter: Enter, console: Console) -> None:
    console.parts.gallery().set_group("family", Group())
    page = enter("admin")
    page.get_by_role("link", name="Rules").click()
    page.get_by_label("Name of the rule").fill("Strangers at night")
    page.locator("select[name=who]").select_option("unknown")
    page.get_by_role("group", name="Never of these groups").get_by_label("family").check()
    page.get_by_label("After").fill("20:00")
    page.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_label("Webhook an https address").fill("https://example.org/secret-path")
    page.get_by_label("Secret of the webhook").fill("sixteen characters")
    page.get_by_role("button", name="Make the rule").click()
    expect(page.get_by_role("status")).to_contain_text("The rule is made")
    expect(page.locator("main")).to_contain_text("somebody unknown, never family")
    expect(page.locator("main")).to_contain_text("after 20:00 Europe/Berlin")
    expect(page.locator("main")).not_to_contain_text("secret-path")
    page.get_by_text("Change the rule Strangers at night").click()
    form = page.locator("form", has=page.get_by_role("button", name="Save"))
    expect(form.get_by_label("family").nth(1)).to_be_checked()
    form.get_by_label("Name of the rule").fill("Strangers")
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("The rule is changed")
    (stored,) = console.parts.book.rules()
    assert (stored.rule.name, stored.rule.webhook) == ("Strangers", "https://example.org/secret-path")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.get_by_text("Change the rule Strangers").click()
    page.get_by_role("button", name="Delete the rule Strangers").click()
    expect(page.get_by_role("status")).to_contain_text("The rule is deleted")
    assert console.parts.book.rules() == []


def test_now_shows_what_comes_and_what_came_while_the_line_was_cut(
    enter: Enter, redis_url: str, tell: Callable[[str], None]
) -> None:
    page = enter("viewer")
    strip = page.locator("#strip")
    expect(page.locator("#link")).to_have_text("live")
    begun_s = time.monotonic()
    add(redis_url, make_event(1, type="started", identity_id="", identity_name="", similarity=None))
    expect(strip.locator("li")).to_have_count(1)
    tell(f"an event is on the page after {time.monotonic() - begun_s:.2f} s")
    expect(strip.locator("b")).to_have_text("unknown")
    add(redis_url, make_event(2))
    expect(strip.locator("b")).to_have_text("Zoë Ångström")
    expect(strip).to_contain_text("clearly")
    expect(strip.locator("li")).to_have_count(1)
    page.context.set_offline(True)
    add(redis_url, make_event(3, sighting_id="door_2026-03-01T08:31:00.000Z_8", identity_name="Ben"))
    page.context.set_offline(False)
    expect(strip.locator("li")).to_have_count(2, timeout=15_000)
    page.get_by_label("Show").select_option("no")
    expect(strip.locator("li:visible")).to_have_count(0)
    page.get_by_label("Show").select_option("")
    page.get_by_label("Name or camera").fill("ben")
    expect(strip.locator("li:visible")).to_have_count(1)
    page.get_by_label("Name or camera").fill("")
    page.get_by_role("button", name="Pause").click()
    add(redis_url, make_event(4, sighting_id="door_2026-03-01T08:32:00.000Z_9"))
    page.get_by_role("button", name="Go on").click()
    expect(strip.locator("li")).to_have_count(3)
    before = {"sighting_id": "door_before", "started_at": STARTED_AT - timedelta(hours=1)}
    add(redis_url, make_event(5, type="corrected", identity_name="Old", **before))
    for _ in range(2):  # live, and as the page is made
        expect(strip.locator("li")).to_have_count(4)
        expect(strip.locator("li").last).to_contain_text("Old")
        page.reload()


def test_who_waits_for_somebody_is_told_once_and_of_nobody_else(enter: Enter, redis_url: str) -> None:
    page = enter("viewer")
    page.add_init_script(
        "window.told = []; window.Notification = class { constructor(text) { told.push(text); } };"
        "Notification.permission = 'granted';"
    )
    page.reload()
    expect(page.locator("#link")).to_have_text("live")
    page.get_by_text("Notify me").click()
    page.get_by_label("Of whom?").select_option("named")
    page.get_by_role("textbox", name="Names").fill("Ben, Zoë Ångström")
    page.get_by_label("Of whom?").focus()
    add(redis_url, make_event(1, identity_name="Ada", sighting_id="door_1"))
    for number in (2, 3):
        add(redis_url, make_event(number, identity_name="Ben", sighting_id="door_2"))
    expect(page.locator("#alarmed")).to_contain_text("seen: Ben")
    assert page.evaluate("told") == ["Ben · door"]
    page.reload()
    expect(page.locator("#link")).to_have_text("live")
    page.get_by_text("Notify me").click()
    expect(page.get_by_role("textbox", name="Names")).to_have_value("Ben, Zoë Ångström")
    page.get_by_label("Of whom?").select_option("no")
    add(redis_url, make_event(4, identity_id="", identity_name="", sighting_id="door_4"))
    expect(page.locator("#alarmed")).to_contain_text("seen: unknown")


def test_times_are_shown_typed_and_asked_for_in_the_readers_own_zone(enter: Enter, console: Console) -> None:
    found = console.as_role("viewer").get(f"{API}/sightings").json()["items"]
    seen = [one for one in found if one["identity_name"] == "Anna"]
    assert seen
    first = min(datetime.fromisoformat(one["started_at"]) for one in seen).astimezone(ZoneInfo("Asia/Tokyo"))
    typed = f"{first:%Y-%m-%dT%H:%M}"
    page = enter("viewer")
    page.context.new_cdp_session(page).send("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
    page.goto(f"{console.address}/sightings?person=Anna")
    page.get_by_label("From").fill(typed)
    page.get_by_label("Until").fill(f"{first + timedelta(minutes=1):%Y-%m-%dT%H:%M}")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_label("From")).to_have_value(typed)
    expect(page.locator("main ol li")).to_have_count(len(seen))
    assert f"{first.astimezone(UTC):%Y-%m-%dT%H}" in unquote(page.url)


def test_a_sighting_is_compared_enlarged_and_shared(enter: Enter, console: Console, tmp_path: Path) -> None:
    keep_picture(tmp_path / "pictures", of_anna(1))
    page = enter("operator")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{console.address}/sightings/door_1")
    expect(page.locator("main")).to_contain_text("Nearest people, as they are enrolled now")
    page.get_by_role("button", name="Copy the link").click()
    expect(page.get_by_text("The link is copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == f"{console.address}/sightings/door_1"
    page.get_by_text("The whole picture").click()
    scene = page.get_by_alt_text("The picture from which the face is")
    assert scene.evaluate("image => image.decode().then(() => image.naturalWidth)") == 320


def test_a_photo_that_is_not_of_the_person_is_removed_where_it_was_taken_for_them(
    enter: Enter, console: Console
) -> None:
    gallery = console.parts.gallery()
    gallery.add([NewSample("Anna", gallery.vectors("p-bob")[0][0], "wrong.jpg", "f" * 64)])
    page = enter("operator")
    page.goto(f"{console.address}/sightings/door_1")
    page.get_by_role("button", name="This photo is not Anna").click()
    expect(page.get_by_role("status")).to_contain_text("The sample was removed")
    assert [sample.photo for sample in console.parts.gallery().person("Anna").samples] == ["wrong.jpg"]


def test_the_way_in_and_out(enter: Enter, console: Console) -> None:
    page = enter("viewer")
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(re.compile("/login$"))
    page.goto(f"{console.address}/people")
    expect(page).to_have_url(re.compile("/login"))
