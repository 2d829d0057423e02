"""Pages that are open while Redis, the database, a worker or the console itself is away, in a real browser."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from playwright.sync_api import Browser, Page, expect

from tests.support.console import PASSWORD, Console, console_config, running_console
from tests.support.postgres import PostgresServer, running_postgres, with_tables
from tests.support.publishing import STREAM
from tests.support.redis_servers import RedisServer
from tests.support.sample_events import make_event, stream_fields
from worker.config import FleetConfig
from worker.redis.keys import fleet_key
from worker.service.status import CameraStatus, WorkerStatus
from worker.wire import rfc3339

pytestmark = pytest.mark.slow

PATIENCE_MS = 90_000


@pytest.fixture
def redis_kept(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that keeps what it has when it is killed."""
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    yield server
    server.stop()


def open_page(browser: Browser, console: Console, path: str = "/") -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(f"{console.address}/login?to={path}")
    page.fill("input[name=name]", "operator")
    page.fill("input[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{console.address}{path}")
    return page


def add(url: str, *ordinals: int) -> None:
    with redis.Redis.from_url(url) as client:
        for ordinal in ordinals:
            client.xadd(STREAM, stream_fields(make_event(ordinal, sighting_id=f"door_{ordinal}")))


def shown(page: Page) -> list[str]:
    return [str(each) for each in page.locator("#strip li").evaluate_all("all => all.map((item) => item.dataset.id)")]


def test_now_says_that_redis_is_away_and_goes_on_without_a_gap(
    browser: Browser, redis_kept: RedisServer, tmp_path: Path
) -> None:
    with running_console(console_config(tmp_path, redis_kept.url)) as console:
        page = open_page(browser, console)
        page.evaluate("window.heard = []")
        page.evaluate(
            "new MutationObserver((all) => all.forEach((one) => one.addedNodes.forEach((node) =>"
            " window.heard.push(node.dataset.id)))).observe(document.getElementById('strip'), {childList: true})"
        )
        expect(page.locator("#link")).to_have_text("live")
        add(redis_kept.url, 1)
        expect(page.locator("#strip li")).to_have_count(1, timeout=PATIENCE_MS)
        redis_kept.stop()
        expect(page.locator("#standing")).to_contain_text("cannot be reached", timeout=PATIENCE_MS)
        expect(page.locator("#link")).to_have_text("no connection; trying again")
        redis_kept.start()
        add(redis_kept.url, 2, 3)
        expect(page.locator("#strip li")).to_have_count(3, timeout=PATIENCE_MS)
        expect(page.locator("#standing")).to_be_hidden(timeout=PATIENCE_MS)
        expect(page.locator("#link")).to_have_text("live", timeout=PATIENCE_MS)
        add(redis_kept.url, 4)
        expect(page.locator("#strip li")).to_have_count(4, timeout=PATIENCE_MS)
        assert shown(page) == ["door_4", "door_3", "door_2", "door_1"]
        assert page.evaluate("heard") == ["door_1", "door_2", "door_3", "door_4"], "each appeared once"


def test_a_page_that_was_opened_while_redis_was_away_comes_back(
    browser: Browser, redis_kept: RedisServer, tmp_path: Path
) -> None:
    with running_console(console_config(tmp_path, redis_kept.url)) as console:
        add(redis_kept.url, 1)
        redis_kept.stop()
        now, cameras = open_page(browser, console), open_page(browser, console, "/cameras")
        expect(now.locator("#asked")).to_contain_text("cannot be reached")
        redis_kept.start()
        add(redis_kept.url, 2)
        expect(now.locator("#strip li")).to_have_count(2, timeout=PATIENCE_MS)
        expect(now.locator("#asked")).to_be_hidden(timeout=PATIENCE_MS)
        expect(cameras.locator(".wrong:visible")).to_have_count(0, timeout=PATIENCE_MS)


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


def test_pages_come_back_by_themselves_when_the_database_does(
    browser: Browser, own_postgres: PostgresServer, redis_url: str, tmp_path: Path
) -> None:
    url = with_tables(own_postgres.new_database("away"))
    config = console_config(tmp_path, redis_url, url, state_dir=str(tmp_path / "state"))
    with running_console(config) as console:
        now, person = open_page(browser, console), open_page(browser, console, "/people/p-bob")
        expect(now.locator("#link")).to_have_text("live")
        person.get_by_label("Name").first.fill("Robert")
        own_postgres.stop()
        add(redis_url, 1)
        for page in (now, person):
            expect(page.locator("#standing")).to_contain_text("its database is away", timeout=PATIENCE_MS)
        person.get_by_role("button", name="Rename").click()
        expect(person.get_by_text("Robert")).to_be_visible(timeout=PATIENCE_MS)
        people = now.context.new_page()
        people.goto(f"{console.address}/people")
        expect(people.get_by_text("This page tries again by itself")).to_be_visible()
        own_postgres.start()
        expect(people.get_by_role("link", name="Anna")).to_be_visible(timeout=PATIENCE_MS)
        expect(now.locator("#strip li")).to_have_count(1, timeout=PATIENCE_MS)
        expect(now.locator("#standing")).to_be_hidden(timeout=PATIENCE_MS)
        person.get_by_role("button", name="Send it again").click()
        expect(person.get_by_role("status")).to_contain_text("Renamed", timeout=PATIENCE_MS)


def test_a_page_says_that_the_session_or_the_console_has_gone(browser: Browser, redis_url: str, tmp_path: Path) -> None:
    with running_console(console_config(tmp_path, redis_url)) as console:
        page, other = open_page(browser, console, "/people"), open_page(browser, console, "/health")
        (cookie,) = [each for each in page.context.cookies() if each.get("name") == "facestream_session"]
        console.parts.sessions.end(cookie.get("value", ""))
        expect(page.locator("#standing")).to_contain_text("not logged in any more", timeout=PATIENCE_MS)
    expect(other.locator("#standing")).to_contain_text("The console does not answer", timeout=PATIENCE_MS)


def report(url: str, **changes: Any) -> None:
    """A worker tells how its camera is."""
    status = WorkerStatus(
        worker_id="w-1", at=rfc3339(datetime.now(UTC)), version="1", uptime_s=5.0, ready=True, reasons={},
        outbox_events=0, gallery_people=2, gallery_version=1,
        cameras=[CameraStatus(camera_id="door", state="streaming", reason="")],
    )  # fmt: skip
    with redis.Redis.from_url(url) as client:
        document = json.loads(status.model_dump_json()) | changes
        client.hset(fleet_key(FleetConfig().name, "status"), "w-1:1", json.dumps(document))


def test_an_open_page_says_that_a_worker_has_gone(browser: Browser, redis_url: str, tmp_path: Path) -> None:
    with running_console(console_config(tmp_path, redis_url)) as console:
        page, health = open_page(browser, console), open_page(browser, console, "/health")
        report(redis_url)
        expect(page.locator(".tile.good")).to_contain_text("streaming", timeout=PATIENCE_MS)
        report(redis_url, at=rfc3339(datetime.now(UTC) - timedelta(minutes=2)))
        expect(page.locator(".tile.bad")).to_contain_text("worker gone", timeout=PATIENCE_MS)
        expect(health.locator("main")).to_contain_text("worker w-1 is gone", timeout=PATIENCE_MS)


def test_a_browser_whose_clock_is_an_hour_off_sees_the_same(browser: Browser, redis_url: str, tmp_path: Path) -> None:
    with running_console(console_config(tmp_path, redis_url)) as console:
        context = browser.new_context(timezone_id="Pacific/Kiritimati")
        page = context.new_page()
        page.clock.install(time="2020-01-01T00:00:00Z")
        page.goto(console.address)
        page.fill("input[name=name]", "operator")
        page.fill("input[name=password]", PASSWORD)
        page.keyboard.press("Enter")
        expect(page.locator("#link")).to_have_text("live")
        add(redis_url, 1)
        expect(page.locator("#strip li")).to_have_count(1, timeout=PATIENCE_MS)
