"""A worker forgets people who are erased while it runs, and people who were erased while it was away."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.support.sample_events import make_event
from tests.support.stand_ins import (
    PLACES,
    Film,
    StandInDetector,
    StandInEmbedder,
    camera,
    detector_of,
    embedder_of,
    enroll,
)
from tests.support.waiting import eventually
from worker.cli import run_command_line
from worker.config import Config, OutboxConfig
from worker.erased import Erasure, add_erasure, digest_of, folders_of
from worker.erasure.attendance import attendants
from worker.erasure.own import OwnErasure, erasure_folders
from worker.errors import FacestreamError
from worker.events.outbox import Outbox
from worker.gallery.folder import FolderGallery
from worker.history.recorder import Recorder
from worker.history.store import History
from worker.recognition.pipeline import Pipeline


class Site:
    """A worker without cameras of its own: frames are given to its pipeline, by the thread of the pipeline."""

    def __init__(self, folder: Path) -> None:
        self.gallery = folder / "people"
        self.state = folder / "people.state"
        self.config = Config(gallery=str(self.gallery), worker_id="w", cameras=(camera(),))
        self.embedder = StandInEmbedder()
        if not FolderGallery.exists(self.gallery):
            made = FolderGallery.create(
                self.gallery, self.embedder.model_id, self.embedder.preprocessing_digest, PLACES
            )
            enroll(made, alice=1, bob=2)
        self.recorder = Recorder(self.state, self.config, gather_s=0.05)
        self.outbox = Outbox(OutboxConfig(), path=self.state / "outbox-w.sqlite3")
        self.pipeline = Pipeline(
            self.config, detector_of(StandInDetector(1, 2)), embedder_of(self.embedder),
            FolderGallery.open(self.gallery), recorder=self.recorder,
        )  # fmt: skip
        self.film = Film()
        self.orders: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.own = OwnErasure(
            erasure_folders(self.config), "w", self.pipeline, self.outbox, self.orders.put, recorder=self.recorder
        )
        self.thread = threading.Thread(target=self._obey)
        self.thread.start()

    def watch(self, frames: int = 12) -> None:
        """So many frames, and the events that they cause."""
        for _ in range(frames):
            for event in self.pipeline.process([self.film.frame()]):
                self.outbox.append(event)

    def serve(self) -> None:
        self.own.catch_up()
        self.own.start()

    def kept(self) -> str:
        """The sightings as another worker would get them."""
        return json.dumps(self.pipeline.state("door"))

    def close(self) -> None:
        self.own.close()
        self.orders.put(None)
        self.thread.join()
        self.recorder.close()
        self.outbox.close()

    def _obey(self) -> None:
        while (action := self.orders.get()) is not None:
            action()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with closing(Site(tmp_path)) as made:
        yield made


def names_waiting(outbox: Outbox) -> set[str]:
    entries = outbox.take(100)
    outbox.settle([])
    return {entry.fields["identity_name"] for entry in entries}


def test_a_worker_forgets_who_is_erased_while_it_runs(site: Site, tmp_path: Path) -> None:
    site.watch()
    site.serve()
    assert names_waiting(site.outbox) == {"alice", "bob"}
    assert '"alice"' in site.kept()
    receipt = tmp_path / "receipt.json"
    code = run_command_line(
        ["forget", "alice", "--gallery", str(site.gallery), "--yes", "--no-events", "--receipt", str(receipt)]
    )
    assert code == 0, receipt.read_text()
    (worker,) = json.loads(receipt.read_text())["workers"]
    assert worker["done"]
    assert worker["worker"].startswith("w-")
    assert names_waiting(site.outbox) == {"bob"}
    assert '"alice"' not in site.kept()
    assert "bob" in site.kept()
    site.watch()
    updated = [entry.fields for entry in site.outbox.take(100) if entry.type == "updated"]
    assert [fields["identity_id"] for fields in updated] == [""], "who stands there is a stranger from now on"


def test_who_is_erased_in_front_of_a_camera_does_not_enter_the_history(site: Site) -> None:
    site.watch()
    site.serve()
    assert run_command_line(["forget", "alice", "--gallery", str(site.gallery), "--yes", "--no-events"]) == 0
    site.watch(2)
    site.pipeline.close()
    site.recorder.close()
    with History.open(site.state) as history:
        past = history.sightings()
    assert sorted(one.identity_id for one in past) == ["", "bob"]
    assert all("alice" not in json.dumps(one.account.to_json()) for one in past)


def test_who_was_erased_while_the_worker_was_away_goes_before_it_serves(tmp_path: Path) -> None:
    with closing(Site(tmp_path)) as before:
        before.watch()
        before.outbox.append(make_event(identity_id="alice", identity_name="alice"))
        state = before.pipeline.state("door")
    # The command does not know the worker's own folder.
    add_erasure(folders_of(before.gallery), Erasure("e1", "2026-01-01T00:00:00.000Z", frozenset({digest_of("alice")})))
    with closing(Site(tmp_path)) as after:
        after.own.catch_up()
        assert names_waiting(after.outbox) == {"bob"}
        assert [person.name for person in FolderGallery.open(after.gallery).people()] == ["bob"]
        after.pipeline.remove("door", end=False)
        after.pipeline.add(camera(), resume=state)
        assert '"alice"' not in after.kept(), "a state that another worker has left"


def test_a_worker_forgets_also_before_the_gallery_is_written_anew(site: Site) -> None:
    site.serve()
    site.watch()
    alice = Erasure("e1", "2026-01-01T00:00:00.000Z", frozenset({digest_of("alice")}))
    add_erasure(erasure_folders(site.config), alice)
    eventually(lambda: all("e1" in worker.done for worker in attendants(erasure_folders(site.config))))
    assert not site.pipeline.gallery.knows("alice")
    assert site.pipeline.gallery.knows("bob")
    assert '"alice"' not in site.kept()


def test_a_worker_that_cannot_read_the_list_does_not_serve(site: Site) -> None:
    for folder in folders_of(site.gallery):
        (folder / "erased.jsonl").write_text("damaged\n")
    with pytest.raises(FacestreamError, match="nobody who was erased may come back"):
        site.own.catch_up()


def test_a_worker_that_does_not_answer_is_named(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.own.catch_up()  # and its thread does not run
    code = run_command_line(
        ["forget", "alice", "--gallery", str(site.gallery), "--yes", "--no-events", "--wait-s", "0.2"]
    )
    assert code == 1
    assert "NOT done" in capsys.readouterr().out


def test_a_worker_that_is_gone_is_not_waited_for(site: Site) -> None:
    folders = erasure_folders(site.config)
    site.serve()
    assert [worker.name.startswith("w-") for worker in attendants(folders)] == [True]
    site.own.close()
    assert attendants(folders) == []
    # One that was killed leaves its files behind, and the system takes its lock back.
    (folders[0] / "workers" / "dead-1.json").write_text("{}")
    (folders[0] / "workers" / "dead-1.lock").touch()
    assert attendants(folders) == []
    eventually(lambda: not list((folders[0] / "workers").glob("dead-1*")))
