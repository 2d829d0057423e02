"""Boxes, labels, annotated clips and contact sheets."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from worker.errors import OutputError, SourceError
from worker.types import Detections
from worker.video.clips import ClipWriter, open_clip
from worker.video.drawing import (
    Annotation,
    Tile,
    contact_sheet,
    draw_faces,
    pair_sheet,
    save_picture,
    write_annotated_clip,
)

GREY = np.full((240, 320, 3), 128, np.uint8)
BOX = (100.0, 80.0, 180.0, 180.0)


def test_a_face_gets_a_box_and_a_label_above_it_and_the_original_stays() -> None:
    drawn = draw_faces(GREY, [BOX], ["Ada"])
    assert (GREY == 128).all()
    changed = (drawn != 128).any(axis=2)
    assert changed[80:180, 99:102].any(axis=1).all(), "the left side of the box"
    assert changed[60:78, 100:130].mean() > 0.5, "the label"
    assert not changed[100:160, 110:170].any(), "the face itself"


def test_no_faces_leave_the_picture_as_it_is() -> None:
    assert (draw_faces(GREY, np.empty((0, 4), np.float32), []) == GREY).all()


def test_known_unknown_and_unnamed_faces_differ_in_colour() -> None:
    pictures = [draw_faces(GREY, [BOX], [label])[130, 98:103].tobytes() for label in ("Ada", "unknown", "")]
    assert len(set(pictures)) == 3
    forced = draw_faces(GREY, [BOX], ["Ada"], kinds=["unknown"])
    assert forced[130, 98:103].tobytes() == pictures[1]


def test_names_of_other_alphabets_are_drawn_and_not_boxes_for_missing_letters() -> None:
    rendered = {draw_faces(GREY, [BOX], [name]).tobytes() for name in ("Ж", "Ő", "Ω", "Ş", "ß")}
    assert len(rendered) == 5


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    boxes = [(40, 100, 100, 180), (60, 100, 120, 180)]
    alone = [draw_faces(GREY, [box], ["somebody"], kinds=["known"]) for box in boxes]
    both = draw_faces(GREY, boxes, ["somebody", "somebody"], kinds=["known", "known"])
    green = [(picture[..., 1] > picture[..., 0] + 60).sum() for picture in (*alone, both)]
    assert green[2] > 0.9 * (green[0] + green[1])


def test_landmarks_are_dotted() -> None:
    landmarks = np.array([[(120, 110), (160, 110), (140, 130), (125, 155), (155, 155)]], np.float32)
    drawn = draw_faces(GREY, [BOX], [""], landmarks)
    assert all((drawn[int(y), int(x)] != 128).any() for x, y in landmarks[0])


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    box=st.tuples(*[st.floats(-300, 500, width=32)] * 4),
    label=st.text(max_size=40),
)
@example(size=(50, 50), box=(0.0, 0.0, 9.0, 9.0), label="two\nlines")
def test_any_box_and_any_name_on_any_picture_can_be_drawn(
    size: tuple[int, int], box: tuple[float, float, float, float], label: str
) -> None:
    image = np.zeros((*size, 3), np.uint8)
    assert draw_faces(image, [box], [label]).shape == image.shape


def test_an_annotated_clip_has_every_frame_and_boxes_in_the_right_ones(tmp_path: Path) -> None:
    source, target = tmp_path / "source.mp4", tmp_path / "annotated.mp4"
    with ClipWriter(source, (320, 240), 25) as writer:
        for _ in range(10):
            writer.write(GREY)
    write_annotated_clip(source, {3: [Annotation(BOX, "Ada")], 4: []}, target)
    with open_clip(target) as clip:
        assert (clip.size, clip.fps) == ((320, 240), Fraction(25))
        spread = [int(np.ptp(picture)) for picture in clip]
    assert len(spread) == 10
    assert spread[3] > 60
    assert max(spread[:3] + spread[4:]) < 30


def test_an_annotated_clip_of_no_clip_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a clip")
    for source in (text, tmp_path / "missing.mp4"):
        with pytest.raises(SourceError, match=source.name):
            write_annotated_clip(source, {}, tmp_path / "out.mp4")


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_a_contact_sheet_shows_every_tile(tmp_path: Path, count: int) -> None:
    path = tmp_path / "sheet.png"
    tiles = [Tile(np.full((30 + i, 50, 3), (200, 20 * i, 250), np.uint8), f"face {i} " * 20) for i in range(count)]
    contact_sheet(tiles, path, title="who was seen")
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet).reshape(-1, 3)
    for tile in tiles:
        assert (np.abs(pixels.astype(int) - tile.image[0, 0]).max(axis=1) <= 2).sum() > 10_000


def test_a_pair_sheet_puts_both_photos_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "pair.jpg"
    face = Detections(np.array([BOX], np.float32), np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32))
    pair_sheet([("a.jpg", GREY, face), ("b.jpg", GREY[:, :160], Detections.empty())], "different", path)
    with Image.open(path) as sheet:
        assert sheet.width > 560 + 280
        assert sheet.height > 420


def test_a_picture_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "a.png", tmp_path / "a.nonsense"):
        with pytest.raises(OutputError, match=path.name):
            save_picture(GREY, path)


def test_a_clip_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"missing/a\.mp4: cannot be written"):
        ClipWriter(tmp_path / "missing" / "a.mp4", (320, 240), 25)


def test_clips_need_even_sides(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        ClipWriter(tmp_path / "a.mp4", (321, 240), 25)
