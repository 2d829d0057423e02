"""What a person does on the pages about people, in a real browser."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.support.console import Console, console_config, running_console
from tests.support.past import AXES
from tests.support.waiting import eventually
from worker.erasure.receipt import read_receipt
from worker.gallery.contents import NewSample

pytestmark = pytest.mark.slow

Enter = Callable[..., Page]


def check(page: Page) -> None:
    """Nothing that axe knows is wrong, and the page holds on a phone."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    size = page.viewport_size
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert size is not None
    page.set_viewport_size(size)


def test_a_consent_is_noted_and_warned_about(enter: Enter) -> None:
    page = enter("operator")
    page.get_by_role("link", name="People").click()
    expect(page.get_by_role("link", name="Seen last")).to_be_visible()
    page.get_by_role("link", name="Bob").click()
    page.get_by_text("Note a consent").click()
    page.get_by_label("Until").fill((datetime.now(UTC) + timedelta(days=3)).date().isoformat())
    page.get_by_label("Basis").fill("contract")
    page.get_by_role("group").get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("The consent is noted")
    expect(page.locator("main")).to_contain_text("contract")
    check(page)
    page.get_by_role("link", name="People").click()
    page.get_by_role("link", name="The consent of one person ends within 30 days.").click()
    expect(page.locator("main > ul.list > li")).to_have_count(1)
    expect(page.locator("main > ul.list > li")).to_contain_text("Bob")
    check(page)


def test_a_person_is_erased_with_a_receipt(enter: Enter, console: Console, tmp_path: Path) -> None:
    page = enter("operator")
    page.goto(f"{console.address}/people/p-anna")
    page.get_by_text("Remove this person").click()
    page.get_by_role("link", name="Erase everywhere, with a receipt").click()
    expect(page.locator("h1")).to_have_text("Erase Anna everywhere")
    check(page)
    page.get_by_label("Yes, erase all of this for good").check()
    page.get_by_role("button", name="Erase").click()
    expect(page.get_by_role("status")).to_contain_text("Nothing is left within reach", timeout=120_000)
    expect(page.get_by_role("log")).to_contain_text("past sightings")
    check(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the receipt").click()
    download.value.save_as(tmp_path / "receipt.json")
    assert read_receipt(tmp_path / "receipt.json")["whole"] is True
    page.goto(f"{console.address}/erasures")
    page.locator("summary").click()
    expect(page.get_by_role("link", name="Download the receipt")).to_be_visible()
    check(page)
    page.goto(f"{console.address}/people")
    expect(page.locator("main")).not_to_contain_text("Anna")


def test_a_look_alike_is_shown_with_the_other_and_how_similar_they_are(enter: Enter, console: Console) -> None:
    gallery = console.parts.gallery()
    like_anna = (0.52 * AXES[0] + np.sqrt(1 - 0.52**2) * AXES[6]).astype(np.float32)
    gallery.add([NewSample("Anne", like_anna, "anne.jpg", "a" * 64, quality=0.2, identity_id="p-anne")])
    page = enter("viewer")
    page.get_by_role("link", name="People").click()
    page.get_by_role("link", name="Look-alikes, and photos that are worth a look").click()
    line = page.locator("li", has_text="Look-alikes")
    expect(compared(page, line)).to_contain_text("similar by 0.52")
    check(page)
    line.get_by_role("link", name="Anne").click()
    expect(page.locator("li", has_text="Look-alikes").get_by_role("link", name="Anna")).to_be_visible()
    expect(page.locator("main")).to_contain_text("poor: small, blurred, dark or turned away")
    check(page)


def compared(page: Page, line: Locator) -> Locator:
    """The line, once the comparison in the background is done."""
    eventually(lambda: line.count() > 0 or (page.reload() is None))
    return line


def test_a_sighting_tells_what_was_said_when_and_another_face_is_chosen(enter: Enter, console: Console) -> None:
    page = enter("operator")
    page.goto(f"{console.address}/sightings/door_1")
    expect(page.get_by_alt_text("The enrolled face that is the most similar")).to_be_visible()
    page.get_by_role("button", name="This is Bob").click()
    expect(page.get_by_role("status").first).to_contain_text("Corrected")
    expect(page.locator("ol.timeline li")).to_have_count(3)
    expect(page.locator("ol.timeline li").last).to_contain_text("not Anna, but Bob")
    check(page)
    page.goto(f"{console.address}/sightings/door_3")
    page.get_by_role("button", name="This is Anna").click()
    expect(page.get_by_role("status")).to_contain_text("This is Anna now")


class TestWithPhotos:
    @pytest.fixture
    def console(self, tmp_path: Path, redis_url: str, test_data: Path) -> Iterator[Console]:
        from tests.support.command_line import RETAIL

        config = console_config(
            tmp_path, redis_url, model=RETAIL, models_dir=str(test_data / "models"), detection={"detector": "yunet"}
        )
        with running_console(config, filled=False) as running:
            yield running

    @pytest.mark.data
    def test_a_photo_of_the_webcam_is_added_and_the_reason_told_why_not(self, enter: Enter, console: Console) -> None:
        page = enter("operator")
        page.get_by_role("link", name="People").click()
        page.get_by_label("Name").fill("Carla")
        page.get_by_role("button", name="Use the webcam").click()
        page.get_by_role("button", name="Take a photo").click()
        expect(page.get_by_text("Photos to be added: 1")).to_be_visible()
        check(page)
        page.get_by_role("button", name="Take a photo").click()
        expect(page.get_by_text("Photos to be added: 2")).to_be_visible()
        page.get_by_role("button", name="Add", exact=True).click()
        expect(page.get_by_role("status").first).to_contain_text("not taken, no face", timeout=120_000)
        page.add_init_script("Object.defineProperty(window, 'isSecureContext', { get: () => false })")
        page.goto(f"{console.address}/people")
        page.get_by_role("button", name="Use the webcam").click()
        expect(page.get_by_text("The webcam works over https")).to_be_visible()

    @pytest.mark.data
    def test_of_several_people_in_a_photo_one_is_chosen(self, enter: Enter, test_data: Path) -> None:
        page = enter("viewer")
        page.get_by_role("link", name="Find").click()
        page.get_by_label("A photo of one person").set_input_files(test_data / "photos/test/obama_and_biden.jpg")
        page.get_by_role("button", name="Where was this person seen?").click()
        expect(page.get_by_role("status")).to_contain_text("The photo shows 3 people")
        check(page)
        page.get_by_role("button", name="Person 2 from the left").click()
        expect(page.get_by_alt_text("The person who is looked for")).to_be_visible()
        expect(page.get_by_role("status")).to_contain_text("sightings are similar by")
        check(page)


def test_two_entries_of_one_person_are_made_one_and_two_again(enter: Enter, console: Console) -> None:
    gallery = console.parts.gallery()
    like_bob = (0.7 * AXES[1] + np.sqrt(1 - 0.49) * AXES[7]).astype(np.float32)
    gallery.add([NewSample("Robert Ångström", like_bob, "r.jpg", "b" * 64, quality=0.8, identity_id="p-robert")])
    page = enter("operator")
    page.goto(f"{console.address}/people/p-bob")
    page.get_by_text("Somebody else is the same person").click()
    page.get_by_label("The same person as").press_sequentially("Rob")
    expect(page.locator('#names option[value="Robert Ångström"]')).to_have_count(1)
    page.get_by_label("The same person as").fill("Robert Ångström")
    page.get_by_role("button", name="See what changes").click()
    expect(page.locator("h1")).to_have_text("Are Bob and Robert Ångström one person?")
    expect(page.locator("main")).to_contain_text("Their most similar faces are similar by 0.70")
    check(page)
    page.get_by_role("button", name="They are one person").click()
    expect(page.get_by_role("status")).to_contain_text("Two people are one now.")
    expect(page.locator("main")).to_contain_text("Merged with this person")
    check(page)
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Undone.")
    assert [person.name for person in console.parts.people()] == ["Anna", "Bob", "Robert Ångström"]


def test_the_people_of_a_rule_are_chosen_by_their_names(enter: Enter, console: Console) -> None:
    page = enter("admin")
    page.goto(f"{console.address}/rules")
    field = page.get_by_role("combobox", name="These people")
    field.press_sequentially("An")
    expect(page.locator('#names option[value="Anna"]')).to_have_count(1)
    for name in ("Anna", "Nobody", "Bob"):
        field.fill(name)
        field.press("Enter")
    expect(page.locator(".chips li")).to_have_count(3)
    page.get_by_label("Name of the rule").fill("Guests")
    page.get_by_label("Webhook an https address").fill("https://example.org/hook")
    page.get_by_label("Secret of the webhook").fill("sixteen characters")
    page.get_by_role("button", name="Make the rule").click()
    expect(page.get_by_role("alert")).to_contain_text("'Nobody': nobody enrolled is called so")
    expect(page.locator(".chips li")).to_have_count(3)
    page.get_by_role("button", name="Remove Nobody").click()
    page.get_by_label("Webhook an https address").fill("https://example.org/hook")
    page.get_by_label("Secret of the webhook").fill("sixteen characters")
    check(page)
    page.get_by_role("button", name="Make the rule").click()
    expect(page.get_by_role("status")).to_contain_text("The rule is made")
    assert [each.rule.people for each in console.parts.book.rules()] == [("p-anna", "p-bob")]
