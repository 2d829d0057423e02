"""A console for each test of the pages, and a real browser."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.support.console import PASSWORD, Console, console_config, running_console
from worker.api.roles import Role

# A slow machine is not a fault.
expect.set_options(timeout=60_000)

CHROMIUM = Path("/usr/bin/chromium")
EXPECTED = re.compile("ERR_INTERNET_DISCONNECTED|responded with a status of (400|401|404|409|412|422|503)")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]  # fmt: skip


@pytest.fixture
def console(tmp_path: Path, redis_url: str) -> Iterator[Console]:
    with running_console(console_config(tmp_path, redis_url)) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("no chromium: install it (Debian: chromium)")
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def enter(browser: Browser, console: Console) -> Iterator[Callable[..., Page]]:
    """Opens a window and logs in; at the end, no page may have logged an error."""
    errors: list[str] = []
    contexts = []

    def note(message: ConsoleMessage) -> None:
        # A test that cuts the line expects that what was under way says so, and one whose form is refused its status.
        if message.type == "error" and not EXPECTED.search(message.text):
            errors.append(message.text)

    def log_in(role: Role, width: int = 1280, *, dark: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(console.address)
        page.fill("input[name=name]", role)
        page.fill("input[name=password]", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{console.address}/")
        return page

    yield log_in
    for context in contexts:
        context.close()
    assert errors == []
