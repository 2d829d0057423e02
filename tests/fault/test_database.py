"""The server of a gallery is killed in mid-enrolment, and connections are cut in mid-reply."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.fault.proxy import FaultProxy
from tests.support.galleries import DIGEST, DIMENSION, MODEL, sample
from tests.support.postgres import PostgresServer, running_postgres
from worker.database.address import parse_database_url
from worker.database.database import open_postgres
from worker.database.layout import upgrade
from worker.errors import GalleryError, GalleryUnavailableError
from worker.gallery.database.gallery import DatabaseGallery

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with running_postgres("fsync=on") as running:
        yield running


@pytest.mark.timeout(900)
def test_a_killed_server_loses_no_acknowledged_person_and_leaves_no_half_one(
    server: PostgresServer, pytestconfig: pytest.Config, tell: Callable[[str], None]
) -> None:
    url = server.new_database("site")
    upgrade(open_postgres(parse_database_url(url)))
    gallery = DatabaseGallery.create(url, MODEL, DIGEST, DIMENSION)
    acknowledged: set[str] = set()
    tried = 0
    rounds: int = pytestconfig.getoption("--fault-rounds")
    for round_ in range(rounds):
        begun = threading.Event()
        wanted = len(acknowledged) + 1 + round_ % 5

        def enrol(begun: threading.Event, wanted: int) -> None:
            nonlocal tried
            while True:
                name = f"person {tried}"
                tried += 1
                try:
                    gallery.add([sample(name, 3 * tried + row) for row in range(3)])
                except GalleryError:
                    return
                acknowledged.add(name)
                if len(acknowledged) >= wanted:
                    begun.set()

        writer = threading.Thread(target=enrol, args=(begun, wanted))
        writer.start()
        assert begun.wait(60)
        server.stop(signal.SIGKILL)
        writer.join()
        server.start()
        held = {person.name: len(person.samples) for person in DatabaseGallery.open(url).people()}
        assert acknowledged <= held.keys()
        assert set(held.values()) == {3}
    tell(f"{rounds} kills, {tried} enrolments tried, {len(acknowledged)} acknowledged and all there, no half person")


def test_a_connection_that_is_cut_in_mid_reply_costs_no_enrolment(server: PostgresServer) -> None:
    url = server.new_database("site")
    upgrade(open_postgres(parse_database_url(url)))
    direct = DatabaseGallery.create(url, MODEL, DIGEST, DIMENSION)
    with closing(FaultProxy(server.port, seed=1)) as proxy:
        through = DatabaseGallery.open(url.replace(str(server.port), str(proxy.port)))
        proxy.cut_one_in = 12
        for number in range(20):
            for _ in range(50):
                try:
                    through.add([sample(f"person {number}", number)])
                    break
                except GalleryUnavailableError:
                    continue
        assert proxy.cuts > 0
    direct.reload_if_changed()
    assert {person.name: len(person.samples) for person in direct.people()} == {
        f"person {number}": 1 for number in range(20)
    }
    # The first version is that of the empty gallery: no enrolment made two.
    assert direct.version == 21
