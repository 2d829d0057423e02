"""Faces of photos are embedded once; what is kept of them is nobody's to read, bounded, and soon gone."""

import stat
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.support.stand_ins import StandInDetector, StandInEmbedder, detector_of, embedder_of
from worker.evaluation.face_cache import FaceCache, remove_cache
from worker.evaluation.probes import PhotoFaces, embed_photos

DAY_S = 86_400.0
FACE = np.eye(8, dtype=np.float32)[2]


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Pillow.new("RGB", (800, 100), (number, 0, 0)).save(path)
    return paths


def embed(paths: Sequence[Path], folder: Path, *made_with: object) -> tuple[PhotoFaces, int]:
    """The faces, and how many of them were embedded now."""
    embedder = StandInEmbedder()
    cache = FaceCache.open(folder, made_with)
    faces = embed_photos(paths, detector_of(StandInDetector(2)), embedder_of(embedder), cache=cache)
    cache.close()
    return faces, sum(embedder.batches)


def test_the_second_run_embeds_only_what_is_new(photos: list[Path], tmp_path: Path) -> None:
    first, embedded = embed(photos[:2], tmp_path)
    assert embedded == 2
    again, embedded = embed([photos[2], *photos[:2]], tmp_path)
    assert embedded == 1
    np.testing.assert_array_equal(again.vectors[1:], first.vectors)
    assert again.found.all()


def test_a_photo_is_known_by_its_content_and_another_network_knows_it_not(photos: list[Path], tmp_path: Path) -> None:
    embed(photos, tmp_path, "model a")
    moved = [path.rename(path.with_suffix(".moved")) for path in photos]
    assert embed(moved, tmp_path, "model a")[1] == 0
    assert embed(moved, tmp_path, "model b")[1] == 3
    moved[0].write_bytes(moved[1].read_bytes() + b"x")
    assert embed(moved, tmp_path, "model a")[1] == 1


def test_a_photo_without_a_face_is_not_searched_again(photos: list[Path], tmp_path: Path) -> None:
    detector = StandInDetector()
    for _ in range(2):
        with_cache = FaceCache.open(tmp_path, [])
        faces = embed_photos(photos, detector_of(detector), embedder_of(StandInEmbedder()), cache=with_cache)
        with_cache.close()
        assert not faces.found.any()
    assert detector.searched == len(photos)


def test_nothing_says_whose_face_it_is_and_nobody_else_may_read_it(photos: list[Path], tmp_path: Path) -> None:
    anna = photos[0].rename(tmp_path / "Anna.png")
    embed([anna], tmp_path)
    files = list((tmp_path / "faces").iterdir())
    assert b"Anna" not in b"".join(path.read_bytes() for path in files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "faces").stat().st_mode) == 0o700


def test_what_no_run_has_used_for_a_week_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FaceCache.open(tmp_path, [])
    used, unused = cache.key(b"used"), cache.key(b"unused")
    cache.put([(used, FACE), (unused, FACE)])
    now_s = time.time()
    monkeypatch.setattr("time.time", lambda: now_s + 4 * DAY_S)
    cache.touch([used])
    cache.close()
    monkeypatch.setattr("time.time", lambda: now_s + 8 * DAY_S)
    cache = FaceCache.open(tmp_path, [])
    assert (cache.get(used)[0], cache.get(unused)[0]) == (True, False)
    monkeypatch.setattr("time.time", lambda: now_s + 30 * DAY_S)
    cache.close()
    assert FACE.tobytes()[8:] not in b"".join(path.read_bytes() for path in (tmp_path / "faces").iterdir())


def test_no_more_than_so_many_are_kept(tmp_path: Path) -> None:
    cache = FaceCache.open(tmp_path, [], most=10)
    keys = [cache.key(bytes([number])) for number in range(25)]
    for key in keys:
        cache.put([(key, FACE)])
    cache.close()
    cache = FaceCache.open(tmp_path, [], most=10)
    assert [cache.get(key)[0] for key in keys] == [False] * 15 + [True] * 10


def test_all_of_it_can_be_removed(photos: list[Path], tmp_path: Path) -> None:
    embed(photos, tmp_path)
    remove_cache(tmp_path)
    assert list((tmp_path / "faces").iterdir()) == []
    remove_cache(tmp_path / "nothing")
    assert embed(photos, tmp_path)[1] == len(photos)


def test_a_damaged_cache_is_begun_anew(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "faces.sqlite3").write_bytes(b"this is no database" * 500)
    assert embed(photos, tmp_path)[1] == len(photos)
    assert embed(photos, tmp_path)[1] == 0


def test_a_cache_that_cannot_be_used_costs_nothing_but_time(
    photos: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "faces").write_text("a file in the way")
    assert embed(photos, tmp_path)[1] == len(photos)
    assert "faces of photos are not kept" in caplog.text
