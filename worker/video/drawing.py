"""Pictures for people: boxes on photos, annotated clips, contact sheets."""

import functools
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from worker.errors import OutputError
from worker.types import Detections, Image
from worker.video.clips import ClipWriter, open_clip

FaceKind = Literal["known", "unknown", "plain", "rejected"]
_COLOURS: Final[dict[FaceKind, tuple[int, int, int]]] = {
    "known": (22, 128, 60),
    "unknown": (194, 84, 10),
    "plain": (29, 78, 190),
    "rejected": (105, 110, 120),
}
_PAPER: Final = (245, 246, 248)
_INK: Final = (28, 32, 40)
_WHITE: Final = (255, 255, 255)
_TILE_PX: Final = 220
_GAP_PX: Final = 16
_CAPTION_FONT_PX: Final = 15
_CAPTION_LINES: Final = 2


class Annotation(NamedTuple):
    """A face in one frame: ``box`` x1, y1, x2, y2 px; ``kind`` sets the colour (None: as the label says)."""

    box: Sequence[float]
    label: str
    kind: FaceKind | None = None


class Tile(NamedTuple):
    """A picture of a contact sheet (uint8 RGB, any size) with the text below it."""

    image: Image
    caption: str
    kind: FaceKind | None = None


def draw_faces(
    image: Image,
    boxes: NDArray[np.float32] | Sequence[Sequence[float]],
    labels: Sequence[str],
    landmarks: NDArray[np.float32] | None = None,
    *,
    kinds: Sequence[FaceKind | None] | None = None,
) -> Image:
    """A copy of ``image`` with a box and a label for each face.

    Args:
        image: uint8 RGB (H, W, 3).
        boxes: (n, 4) x1, y1, x2, y2 px; may reach beyond the image.
        labels: n texts; an empty one gives a box without label.
        landmarks: (n, k, 2) px, drawn as dots.
        kinds: n colours; by default an empty label is plain, one that begins with "unknown" is unknown, and any
            other is known.
    """
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    line_px = max(2, round(min(height, width) / 300))
    font_px = int(np.clip(min(height, width) / 32, 11, 44))
    # Labels go on after all boxes, so that no box is drawn over a neighbour's name.
    taken: list[tuple[int, int, int, int]] = []
    pending: list[tuple[Sequence[float], Image]] = []
    for index, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        kind = (kinds[index] if kinds is not None else None) or _kind_of(label)
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), _WHITE, line_px + 2, cv2.LINE_AA)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), _COLOURS[kind], line_px, cv2.LINE_AA)
        if landmarks is not None:
            for x, y in landmarks[index]:
                cv2.circle(canvas, (round(float(x)), round(float(y))), line_px + 1, _WHITE, -1, cv2.LINE_AA)
                cv2.circle(canvas, (round(float(x)), round(float(y))), line_px, _COLOURS[kind], -1, cv2.LINE_AA)
        if label:
            pending.append((box, _label_patch(label, font_px, kind, width)))
    for box, patch in pending:
        _paste(canvas, patch, _label_place(box, patch, (width, height), line_px, taken), taken)
    return canvas


def write_annotated_clip(source_clip: Path, annotations: Mapping[int, Sequence[Annotation]], path: Path) -> None:
    """Writes ``source_clip`` again as H.264 with the faces drawn in.

    Args:
        source_clip: video file.
        annotations: faces by frame number, from 0; frames without an entry are copied as they are.
        path: ``.mp4`` to write.

    Raises:
        SourceError: the clip cannot be read.
        OutputError: ``path`` cannot be written.
    """
    with open_clip(source_clip) as clip:
        size = (clip.size[0] // 2 * 2, clip.size[1] // 2 * 2)
        with ClipWriter(path, size, clip.fps) as writer:
            for number, image in enumerate(clip):
                faces = annotations.get(number, ())
                writer.write(_annotated(image[: size[1], : size[0]], faces) if faces else image[: size[1], : size[0]])


def contact_sheet(tiles: Sequence[Tile], path: Path, *, title: str = "", columns: int | None = None) -> None:
    """Writes one picture of all ``tiles``, in order, each with its caption (PNG or JPEG by the suffix).

    Raises:
        OutputError: ``path`` cannot be written.
    """
    count = max(1, len(tiles))
    columns = min(count, columns or max(4, round(count**0.5)))
    rows = -(-count // columns)
    head_px = 44 if title else 0
    cell_px = _TILE_PX + 6 + _CAPTION_LINES * (_CAPTION_FONT_PX + 5)
    width = max(columns * (_TILE_PX + _GAP_PX) + _GAP_PX, _text_width(title, 20) + 2 * _GAP_PX)
    sheet = Pillow.new("RGB", (width, head_px + rows * (cell_px + _GAP_PX) + _GAP_PX), _PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((_GAP_PX, 16), title, font=_font(20), fill=_INK)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        left, top = _GAP_PX + column * (_TILE_PX + _GAP_PX), head_px + _GAP_PX + row * (cell_px + _GAP_PX)
        _draw_tile(sheet, tile, left, top)
    _save(sheet, path)


def pair_sheet(faces: Sequence[tuple[str, Image, Detections]], caption: str, path: Path) -> None:
    """Writes photos side by side at one height, each with its faces boxed and its name, and ``caption`` above.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    height_px = 420
    pictures = []
    for _name, image, found in faces:
        picture = _resized(Pillow.fromarray(image), 640, height_px)
        boxes = found.boxes * (picture.width / image.shape[1])
        pictures.append(Pillow.fromarray(draw_faces(np.asarray(picture), boxes, [""] * len(found))))
    width = sum(picture.width + _GAP_PX for picture in pictures) + _GAP_PX
    width = max(width, _text_width(caption, 20) + 2 * _GAP_PX)
    sheet = Pillow.new("RGB", (width, height_px + 96), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP_PX, 16), caption, font=_font(20), fill=_INK)
    left = _GAP_PX
    for (name, _image, _found), picture in zip(faces, pictures, strict=True):
        sheet.paste(picture, (left, 52))
        text = _fitted(name, picture.width, _CAPTION_FONT_PX)
        pen.text((left, 52 + height_px + 10), text, font=_font(_CAPTION_FONT_PX), fill=_INK)
        left += picture.width + _GAP_PX
    _save(sheet, path)


def save_picture(image: Image, path: Path) -> None:
    """Writes ``image`` (uint8 RGB) as the suffix of ``path`` says.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    _save(Pillow.fromarray(image), path)


def _annotated(image: Image, faces: Sequence[Annotation]) -> Image:
    return draw_faces(
        image, [face.box for face in faces], [face.label for face in faces], kinds=[face.kind for face in faces]
    )


def _kind_of(label: str) -> FaceKind:
    if not label:
        return "plain"
    return "unknown" if label.casefold().startswith("unknown") else "known"


def _label_place(
    box: Sequence[float], patch: Image, size: tuple[int, int], line_px: int, taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int]:
    """Top left corner for ``patch``: above the box, else below it, else inside, and not on another label."""
    height, width = patch.shape[:2]
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    x = int(np.clip(x1 - line_px, 0, max(0, size[0] - width)))
    right = int(np.clip(x2 + line_px - width, 0, max(0, size[0] - width)))
    above, below, inside = y1 - height - line_px, y2 + line_px, y2 - height
    choices = [(x, above), (right, above), (x, below), (right, below), (x, inside)]
    fitting = [(a, b) for a, b in choices if 0 <= b <= size[1] - height]
    free = [
        (a, b)
        for a, b in fitting
        if all(a >= r or a + width <= l or b >= d or b + height <= t for l, t, r, d in taken)  # noqa: E741
    ]
    last_resort = (x, int(np.clip(above, 0, max(0, size[1] - height))))
    return (free or fitting or [last_resort])[0]


def _paste(canvas: Image, patch: Image, corner: tuple[int, int], taken: list[tuple[int, int, int, int]]) -> None:
    x, y = corner
    height, width = canvas[y : y + patch.shape[0], x : x + patch.shape[1]].shape[:2]
    canvas[y : y + height, x : x + width] = patch[:height, :width]
    taken.append((x, y, x + width, y + height))


@functools.lru_cache(maxsize=512)
def _label_patch(text: str, font_px: int, kind: FaceKind, max_width: int) -> Image:
    text = _fitted(text, max_width - font_px, font_px)
    pad = round(font_px * 0.35)
    patch = Pillow.new("RGB", (_text_width(text, font_px) + 2 * pad, round(font_px * 1.6)), _COLOURS[kind])
    ImageDraw.Draw(patch).text((pad, patch.height / 2), text, font=_font(font_px), fill=_WHITE, anchor="lm")
    return np.asarray(patch)


def _draw_tile(sheet: Pillow.Image, tile: Tile, left: int, top: int) -> None:
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((left, top, left + _TILE_PX - 1, top + _TILE_PX - 1), fill=_WHITE)
    picture = _resized(Pillow.fromarray(tile.image), _TILE_PX, _TILE_PX)
    sheet.paste(picture, (left + (_TILE_PX - picture.width) // 2, top + (_TILE_PX - picture.height) // 2))
    colour = _COLOURS[tile.kind or _kind_of(tile.caption)]
    pen.rectangle((left, top + _TILE_PX, left + _TILE_PX - 1, top + _TILE_PX + 3), fill=colour)
    for number, line in enumerate(_wrapped(tile.caption, _TILE_PX, _CAPTION_FONT_PX)[:_CAPTION_LINES]):
        y = top + _TILE_PX + 10 + number * (_CAPTION_FONT_PX + 5)
        pen.text((left, y), _fitted(line, _TILE_PX, _CAPTION_FONT_PX), font=_font(_CAPTION_FONT_PX), fill=_INK)


def _resized(picture: Pillow.Image, max_width: int, max_height: int) -> Pillow.Image:
    scale = min(max_width / picture.width, max_height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Pillow.Resampling.LANCZOS if scale < 1 else Pillow.Resampling.BICUBIC)


def _wrapped(text: str, width_px: int, font_px: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _text_width(longer, font_px) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _fitted(text: str, width_px: int, font_px: int) -> str:
    """``text`` on one line, cut short with an ellipsis where it is wider than ``width_px``."""
    text = " ".join(text.split())
    if _text_width(text, font_px) <= width_px:
        return text
    while text and _text_width(text + "…", font_px) > width_px:
        text = text[:-1]
    return text + "…"


def _text_width(text: str, font_px: int) -> int:
    width_px: float = _font(font_px).getlength(text)
    return round(width_px)


@functools.cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans as matplotlib ships it (Latin, Greek, Cyrillic and more), else Pillow's own."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size_px)
    return ImageFont.load_default(size_px)


def _save(picture: Pillow.Image, path: Path) -> None:
    try:
        picture.save(path, **({"quality": 92} if path.suffix.lower() in {".jpg", ".jpeg"} else {}))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be written: {error}; choose another folder or suffix") from None
