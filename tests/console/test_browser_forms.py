"""Forms in a real browser: a session that ends while somebody types, a second click, and the way back."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support.console import PASSWORD, Console
from worker.gallery.groups import Group

pytestmark = pytest.mark.slow

Enter = Callable[..., Page]


def log_in_again(page: Page, role: str) -> None:
    page.get_by_label("Name").fill(role)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def expire(console: Console, page: Page) -> None:
    (cookie,) = [each for each in page.context.cookies() if each.get("name") == "facestream_session"]
    console.parts.sessions.end(cookie.get("value", ""))


def people(console: Console) -> list[str]:
    return [person.name for person in console.parts.people()]


def test_what_was_typed_when_the_session_ended_is_there_after_the_log_in(enter: Enter, console: Console) -> None:
    console.parts.gallery().set_group("family", Group())
    page = enter("operator")
    page.goto(f"{console.address}/people?q=Bob")
    page.get_by_text("Groups", exact=True).click()
    page.get_by_text("Change family").click()
    form = page.locator("form", has=page.get_by_role("button", name="Save"))
    form.get_by_label("Colour").select_option("red")
    form.get_by_label("What to do").fill("Grüße\u202e sie")
    expire(console, page)
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_text("What you typed is kept on this page")).to_be_visible()
    log_in_again(page, "operator")
    note = page.get_by_role("alert")
    expect(note).to_contain_text("Nothing was sent yet")
    expect(note).to_be_in_viewport()
    expect(page).to_have_url(f"{console.address}/people?q=Bob")
    form = page.locator("form", has=page.get_by_role("button", name="Save"))
    expect(form.get_by_label("Colour")).to_have_value("red")
    expect(form.get_by_label("What to do")).to_have_value("Grüße\u202e sie")
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("The group is set")
    assert console.parts.gallery().groups["family"].colour == "red"


def test_two_browsers_edit_one_person(enter: Enter, console: Console) -> None:
    one, other = enter("operator"), enter("admin")
    for page in (one, other):
        page.goto(f"{console.address}/people/p-bob")
    for page, name in ((other, "Rob"), (one, "Bert")):
        page.get_by_label("Name").fill(name)
        page.get_by_role("button", name="Rename").click()
    expect(one.get_by_role("alert")).to_contain_text("Now it says: Name: Rob")
    expect(one.get_by_label("Name")).to_have_value("Bert")
    one.get_by_role("button", name="Rename").click()
    expect(one.get_by_role("status")).to_contain_text("Renamed")
    assert people(console) == ["Anna", "Bert"]


def test_a_second_click_does_nothing_and_the_way_back_shows_what_holds_now(enter: Enter, console: Console) -> None:
    page = enter("operator")
    page.goto(f"{console.address}/unknown")
    page.get_by_label("Who is it?").first.fill("Carla")
    page.get_by_role("button", name="Give name").first.dblclick()
    expect(page.get_by_role("status")).to_contain_text("This is Carla now")
    assert people(console) == ["Anna", "Bob", "Carla"]
    page.go_back()
    expect(page.get_by_text("u-1")).to_have_count(0)
    page.go_forward()
    expect(page.get_by_role("status")).to_contain_text("This is Carla now")
    page.reload()
    assert people(console) == ["Anna", "Bob", "Carla"]
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("status")).to_contain_text("Undone")
    page.go_back()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("alert")).to_contain_text("step")
    assert people(console) == ["Anna", "Bob"]
