"""Forms in a real browser: a session that ends while somebody types, a second click, and the way back."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.console import PASSWORD, Console, console_config, running_console
from tests.support.provider import oidc, running_provider
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


def test_what_was_typed_is_there_after_a_log_in_by_the_provider_also_if_that_refuses_first(
    browser: Browser, tmp_path: Path, redis_url: str
) -> None:
    with (
        running_provider() as provider,
        running_console(console_config(tmp_path, redis_url, **oidc(provider.issuer, tmp_path))) as console,
        browser.new_context() as context,
    ):
        provider.user("anna", preferred_username="anna", groups=["reception"])
        context.route(lambda url: not url.startswith("http://127.0.0.1"), lambda route: route.abort())
        page = context.new_page()

        def ask_provider(answer: str) -> None:
            page.get_by_role("link", name="Log in with Example Org").click()
            if answer == "Authorize":
                page.locator("input[name=sub]").fill("anna")
            page.get_by_role("button", name=answer).click()

        page.goto(f"{console.address}/people/p-bob?said=x")
        ask_provider("Authorize")
        page.wait_for_url(f"{console.address}/people/p-bob?said=x")
        page.get_by_role("textbox", name="Name").fill("محمد & <b>Söhne</b>")
        expire(console, page)
        page.get_by_role("button", name="Rename").click()
        expect(page.get_by_text("What you typed is kept on this page")).to_be_visible()
        ask_provider("Deny")
        expect(page.get_by_role("alert")).to_contain_text("begin again")
        ask_provider("Authorize")
        expect(page.get_by_role("alert")).to_contain_text("Nothing was sent yet")
        expect(page).to_have_url(f"{console.address}/people/p-bob?said=x")
        expect(page.get_by_role("textbox", name="Name")).to_have_value("محمد & <b>Söhne</b>")
        assert page.evaluate("sessionStorage.length") == 0
        page.get_by_role("button", name="Rename").click()
        expect(page.get_by_role("status")).to_contain_text("Renamed")
        assert people(console) == ["Anna", "محمد & <b>Söhne</b>"]

        page.get_by_role("textbox", name="Name").fill("Rob")
        expire(console, page)
        page.get_by_role("button", name="Rename").click()
        ask_provider("Deny")
        log_in_again(page, "operator")
        expect(page.get_by_role("textbox", name="Name")).to_have_value("Rob")

        expire(console, page)
        page.get_by_role("button", name="Rename").click()
        ask_provider("Deny")
        page.goto(f"{console.address}/find")
        expect(page).to_have_url(f"{console.address}/login?to=%2Ffind")
        assert page.evaluate("sessionStorage.length") == 0, "who goes elsewhere leaves nothing in the browser"


def test_a_camera_that_is_tried_without_a_session_is_still_typed_after_the_log_in(
    enter: Enter, console: Console
) -> None:
    page = enter("admin")
    page.goto(f"{console.address}/add-camera")
    page.get_by_label("Name").fill("back-door")
    page.get_by_label("Address").fill("rtsp://127.0.0.1:9/1")
    expire(console, page)
    page.get_by_role("button", name="Test", exact=True).click()
    expect(page.get_by_text("What you typed is kept on this page")).to_be_visible()
    log_in_again(page, "admin")
    expect(page.get_by_label("Name")).to_have_value("back-door")
    expect(page.get_by_label("Address")).to_have_value("rtsp://127.0.0.1:9/1")


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
