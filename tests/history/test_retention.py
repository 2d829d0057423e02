"""For how long things are kept, where somebody has set it in the database for all who use it."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.past import AXES, MODEL, NOON, sighting, unknown
from tests.support.waiting import eventually
from worker.config import Config, EvidenceConfig, UnknownsConfig
from worker.history.evidence import Evidence
from worker.history.evidence_store import FolderStore
from worker.history.recorder import Recorder
from worker.history.retention import Retention
from worker.history.store import History
from worker.recognition.unknowns import Unknowns

YEAR_S = 365 * 86_400.0
A_MOMENT = 1e-9
"""In days: over before anybody looks."""


def ids(history: History) -> tuple[list[str], list[str]]:
    return [one.sighting_id for one in history.sightings()], [one.unknown_id for one in history.unknowns()[0]]


def test_what_is_set_takes_the_place_of_what_a_configuration_says_until_it_is_taken_back(tmp_path: Path) -> None:
    with History.open(tmp_path, create=True) as history, History.open(tmp_path) as other:
        assert history.retention() == Retention()
        history.keep(Retention(sightings_days=365, unknowns_days=365))
        other.write([sighting(1)], [unknown("u-1")], keep_s=0.0, remember_s=0.0)
        assert ids(other) == (["door_1"], ["u-1"])
        assert other.prune(keep_s=0.0, remember_s=0.0) == 0
        history.keep(Retention(unknowns_days=365))
        assert other.prune(keep_s=0.0, remember_s=0.0) == 1
        assert ids(other) == ([], ["u-1"])
        history.keep(Retention())
        assert other.prune(keep_s=0.0, remember_s=0.0) == 1
        assert other.retention() == Retention()


def test_a_shorter_time_holds_for_all_and_a_longer_one_for_what_comes(tmp_path: Path) -> None:
    with History.open(tmp_path, create=True) as history:
        history.write([sighting(1)], keep_s=YEAR_S, remember_s=YEAR_S)
        history.write([sighting(2)], keep_s=0.0, remember_s=0.0)
        history.keep(Retention(sightings_days=365))
        assert ids(history)[0] == ["door_1"], "what was to be gone by now does not come back"
        history.keep(Retention(sightings_days=A_MOMENT))
        assert history.prune(keep_s=YEAR_S) == 2
        assert ids(history)[0] == []


def test_a_worker_follows_what_somebody_sets(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, Config(), look_every_s=0.0)
    try:
        recorder.sighting(sighting(1))
        with History.open(tmp_path) as history:
            eventually(lambda: ids(history)[0] == ["door_1"])
            history.keep(Retention(sightings_days=A_MOMENT))
            eventually(lambda: ids(history)[0] == [])
        assert recorder.retention == Retention(sightings_days=A_MOMENT)
    finally:
        recorder.close()


class Pruned(FolderStore):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.times = threading.Semaphore(0)

    def prune(self, before: float) -> int:
        removed = super().prune(before)
        self.times.release()
        return removed


def old_pictures(folder: Path, days: Sequence[float]) -> Pruned:
    store = Pruned(folder)
    for number, age in enumerate(days):
        store.put(f"lobby/2026-01-01/s{number}.face.jpg", b"x")
        at = folder.stat().st_mtime - age * 86_400
        os.utime(folder / f"lobby/2026-01-01/s{number}.face.jpg", (at, at))
    return store


def test_pictures_go_when_it_is_set_and_not_before_it_is_known(tmp_path: Path) -> None:
    store = old_pictures(tmp_path, [0.5, 2, 10])
    said: list[Retention | None] = [None]
    evidence = Evidence(EvidenceConfig(store=str(tmp_path), keep_days=1), store, retention=lambda: said[0])
    try:
        for kept, names in ((30.0, 3), (5.0, 2), (None, 1)):
            said[0] = Retention(pictures_days=kept)
            assert store.times.acquire(timeout=60)
            assert len(list(tmp_path.rglob("*.jpg"))) == names, kept
    finally:
        evidence.close()


@pytest.mark.parametrize(("days", "same"), [(A_MOMENT, False), (3650.0, True)])
def test_an_unknown_person_is_recognised_for_as_long_as_is_set(tmp_path: Path, days: float, same: bool) -> None:
    with History.open(tmp_path, create=True) as history:
        history.keep(Retention(unknowns_days=days))
    recorder = Recorder(tmp_path, Config())
    try:
        unknowns = Unknowns(UnknownsConfig(remember_days=1), MODEL, 16, recorder=recorder)
        first, second = (
            unknowns.identify(f"door_{at.isoformat()}_1", AXES[0].astype(np.float32), 3, at, threshold=0.5)
            for at in (NOON, NOON.replace(year=2027))
        )
        assert (first == second) is same
    finally:
        recorder.close()


def test_a_configuration_gets_what_is_set_and_keeps_the_rest() -> None:
    config = Retention(unknowns_days=2.5).over(Config())
    assert (config.history.keep_days, config.unknowns.remember_days, config.evidence.keep_days) == (7.0, 2.5, 7.0)
    assert Retention.of(config) == Retention(7.0, 2.5, 7.0)
