"""The values that flow from frame to event.

All are frozen. Arrays are batched per frame, and validated once, where they are made. ``n = 0`` is normal everywhere
and never expressed as ``None``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, WithJsonSchema

from worker.wire import (
    Box,
    Form,
    Integer,
    NonEmptyText,
    Number,
    OptionalNumber,
    OptionalTime,
    Size,
    Text,
    Time,
    matching,
)

Image = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""

Vectors = NDArray[np.float32]
"""float32 (n, d), one vector a row; or one vector (d,)."""

Rows = NDArray[np.int64]
"""int64 (n,): places of vectors among others."""

EventType = Literal["started", "updated", "ended", "corrected", "erased"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Planes:
    """One picture as the decoder left it: neither converted nor turned nor stretched.

    ``form`` is FFmpeg's name of the pixel format, ``width`` and ``height`` are px as stored. ``planes`` are uint8
    (rows, bytes of a row), views whose rows may lie apart:

    - ``yuv420p`` and ``yuvj420p``: Y (H, W), then U and V (ceil(H/2), ceil(W/2));
    - ``yuv422p``, ``yuvj422p``: Y (H, W), then U and V (H, ceil(W/2)); ``yuv444p``, ``yuvj444p``: three of (H, W);
    - ``nv12``: Y (H, W), then U and V by turns (ceil(H/2), 2 * ceil(W/2)); ``gray``: (H, W); ``rgb24``: (H, 3 * W);
    - others as FFmpeg lays them out, with what pads their rows.

    ``colour_range`` and ``matrix`` are FFmpeg's ``AVColorRange`` and ``AVColorSpace``: range 0 and matrix 2 where the
    stream does not say, range 2 for the full range, matrix 1 for BT.709. ``turn`` and ``aspect`` tell how it is shown,
    see :class:`worker.video.geometry.Geometry`. ``origin`` is what the planes lie in, for their owner.
    """

    form: str
    width: int
    height: int
    planes: tuple[NDArray[np.uint8], ...]
    colour_range: int = 0
    matrix: int = 2
    turn: tuple[int, int, int, int] = (1, 0, 0, 1)
    aspect: float = 1.0
    origin: object = field(default=None, repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        return sum(plane.nbytes for plane in self.planes)


class LazyImage:
    """A picture as the decoder's planes, which become RGB only where somebody asks for it.

    ``planes`` are upright and on square pixels, ``yuv420p`` or ``yuvj420p``, with even numbers of rows and columns.
    ``shape`` is (H, W, 3), that of the RGB picture. ``convert`` makes RGB, uint8 (H, W, 3), of planes of this kind.
    """

    __slots__ = ("__weakref__", "_convert", "_image", "planes", "shape")

    def __init__(self, planes: Planes, convert: Callable[[Planes], Image]) -> None:
        self.planes = planes
        self.shape = (planes.height, planes.width, 3)
        self._convert = convert
        self._image: Image | None = None

    def rgb(self) -> Image:
        """The whole picture, uint8 (H, W, 3); it is made once."""
        if self._image is None:
            self._image = self._convert(self.planes)
        return self._image

    def cut(self, left: int, top: int, right: int, bottom: int) -> Image:
        """The pixels from ``left`` and ``top`` up to ``right`` and ``bottom``, without those around them."""
        if self._image is not None or right <= left or bottom <= top:
            return (self._image if self._image is not None else np.empty(self.shape, np.uint8))[top:bottom, left:right]
        x, y, width, height = left // 2, top // 2, -(-right // 2) - left // 2, -(-bottom // 2) - top // 2
        luma, *chroma = self.planes.planes
        planes = (
            luma[2 * y : 2 * (y + height), 2 * x : 2 * (x + width)],
            *(plane[y : y + height, x : x + width] for plane in chroma),
        )
        part = replace(self.planes, width=2 * width, height=2 * height, planes=planes, origin=None)
        return self._convert(part)[top - 2 * y : bottom - 2 * y, left - 2 * x : right - 2 * x]


Picture = Image | LazyImage


def image_of(picture: Picture) -> Image:
    """``picture`` as RGB, uint8 (H, W, 3)."""
    return picture.rgb() if isinstance(picture, LazyImage) else picture


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture of one camera; ``image`` is uint8 (H, W, 3) RGB.

    ``sequence`` counts the frames of the camera from 0 since the worker started, including dropped ones. ``pts_s`` is
    the time in the source in seconds; ``captured_at`` is UTC; ``received_monotonic_s`` is ``time.monotonic()`` when the
    frame left the decoder. Latency and age are measured from it, since steps of the clock do not change it.
    ``spacing_s`` is how far apart the camera's frames usually are, in seconds; 0 where that is not known.
    """

    camera_id: str
    sequence: int
    pts_s: float
    captured_at: datetime
    received_monotonic_s: float
    picture: Picture
    spacing_s: float = 0.0

    def __post_init__(self) -> None:
        image = self.picture
        if not isinstance(image, LazyImage):
            _require(
                image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8,
                f"a frame's image must be uint8 (H, W, 3), not {image.dtype} {image.shape}",
            )
        _require(self.captured_at.tzinfo is not None, "captured_at must carry its time zone (UTC)")

    @property
    def image(self) -> Image:
        """uint8 (H, W, 3), RGB."""
        return image_of(self.picture)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in px."""
        return self.picture.shape[1], self.picture.shape[0]


@dataclass(frozen=True, slots=True)
class Detections:
    """Faces found in one image.

    ``boxes`` float32 (n, 4) x1, y1, x2, y2 in px of the image (may reach beyond its edges);
    ``scores`` float32 (n,) in 0..1; ``landmarks`` float32 (n, 5, 2) px: left eye, right eye, nose, left and
    right corner of the mouth, left and right as seen in the image.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.scores)
        _require(self.boxes.shape == (n, 4), f"boxes must be ({n}, 4), not {self.boxes.shape}")
        _require(self.scores.shape == (n,), f"scores must be ({n},), not {self.scores.shape}")
        _require(self.landmarks.shape == (n, 5, 2), f"landmarks must be ({n}, 5, 2), not {self.landmarks.shape}")

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> "Detections":
        """The detections at ``index`` (integers or a boolean mask), in that order."""
        return Detections(self.boxes[index], self.scores[index], self.landmarks[index])

    @classmethod
    def joined(cls, parts: "Sequence[Detections]") -> "Detections":
        """All ``parts``, one or more, in order."""
        return cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.landmarks for part in parts]),
        )

    @staticmethod
    def empty() -> "Detections":
        return Detections(np.empty((0, 4), np.float32), np.empty((0,), np.float32), np.empty((0, 5, 2), np.float32))


@dataclass(frozen=True, slots=True)
class Tracks:
    """The faces of one frame, each with the track that it belongs to.

    ``track_ids`` int64 (n,): one for each detection, unique within a camera and never reused; ``ages_s`` float32 (n,):
    seconds since the track's first frame; ``ended_ids`` int64 (m,): tracks that ended with this frame and will not come
    back.
    """

    detections: Detections
    track_ids: NDArray[np.int64]
    ages_s: NDArray[np.float32]
    ended_ids: NDArray[np.int64]

    def __post_init__(self) -> None:
        n = len(self.detections)
        _require(self.track_ids.shape == (n,), f"track_ids must be ({n},), not {self.track_ids.shape}")
        _require(self.ages_s.shape == (n,), f"ages_s must be ({n},), not {self.ages_s.shape}")

    def __len__(self) -> int:
        return len(self.track_ids)


@dataclass(frozen=True, slots=True)
class Chips:
    """Face crops ready for an embedder: uint8 or float32 (n, side, side, 3) in the named channel order."""

    images: NDArray[np.uint8] | NDArray[np.float32]
    channel_order: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self) -> None:
        shape = self.images.shape
        _require(
            len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3,
            f"chips must be (n, side, side, 3), not {shape}",
        )

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def joined(cls, parts: "Sequence[Chips]") -> "Chips":
        """All ``parts``, one or more, in order. They must have the same size and channel order."""
        return cls(np.concatenate([part.images for part in parts]), parts[0].channel_order)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Unit vectors: float32 (n, d), each of Euclidean length 1, made by the model ``model_id``."""

    vectors: NDArray[np.float32]
    model_id: str

    def __post_init__(self) -> None:
        _require(self.vectors.ndim == 2, f"embeddings must be (n, d), not {self.vectors.shape}")

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, slots=True)
class Membership:
    """The ``groups`` (names) of a person, and what they say of the verdict: ``threshold``, the cosine from which the
    person is named, is that of the group ``strictest``; None and "" where no group has one."""

    groups: tuple[str, ...] = ()
    threshold: float | None = None
    strictest: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the gallery knows about one probe: the nearest person and the nearest *other* person.

    Similarities are cosines (-1..1) of people, not of samples: a person is as near as their nearest sample. If there is
    no such person (the gallery is empty, or holds only one), the name is empty, the similarity is -1, and the id is
    None (``identity_id``) or an empty string (``runner_up_id``).

    A classifier orders people by ``probability`` (0..1) instead, and names nobody below ``least_probability``; the
    similarities are still cosines. Without a classifier, ``probability`` is None.

    ``denied_name`` is a person who is nearer still, at ``denied_similarity``, and of whom it is known that the probe
    does not show them; empty if there is none.

    ``membership`` and ``runner_up_membership``: the groups of the two.
    """

    identity_id: str | None
    identity_name: str
    similarity: float
    runner_up: float
    runner_up_id: str = ""
    runner_up_name: str = ""
    probability: float | None = None
    least_probability: float = 0.0
    denied_name: str = ""
    denied_similarity: float = -1.0
    membership: Membership = Membership()
    runner_up_membership: Membership = Membership()


@dataclass(frozen=True, slots=True)
class Match:
    """The open-set answer for one probe.

    ``identity_id`` is None for an unknown person. ``similarity`` is the cosine (-1..1) to the nearest identity, and
    ``runner_up`` the cosine to the nearest *other* one; each is -1 if there is no such identity. ``reason`` is one of
    ``matched``, ``few_faces``, ``below_threshold``, ``ambiguous``, ``improbable``, ``not_enough_evidence``,
    ``empty_gallery``, ``denied``, and the reasons of the quality gate. ``probability`` comes from a classifier; it is
    None without one. ``groups`` are those of the person who is named; ``threshold_group`` is the group whose threshold
    was used, empty if it was not that of a group.
    """

    identity_id: str | None
    identity_name: str
    similarity: float
    runner_up: float
    threshold: float
    gallery_version: int
    reason: str
    probability: float | None = None
    groups: tuple[str, ...] = ()
    threshold_group: str = ""

    @property
    def margin(self) -> float:
        """How much nearer the best identity is than the next one, in cosine."""
        return self.similarity - self.runner_up


@dataclass(frozen=True, slots=True)
class Event:
    """One transition of one sighting, as published; see ``docs/events.md``. Carries no pixels.

    The one description of an event: its encoding, its JSON Schema and the table in the documentation come from here
    (:mod:`worker.events.codec`). A field with a default may be missing in an entry that an older version wrote.
    """

    event_id: Annotated[
        Text,
        matching("^[0-9a-f]{32}$"),
        Form("32 hex digits"),
        Field(description="name of this transition of this sighting, the same whenever it is sent again"),
    ]
    type: Annotated[
        EventType,
        WithJsonSchema({"enum": list(get_args(EventType))}),
        Form("one word"),
        Field(description="what happened, see above"),
    ]
    camera_id: Annotated[
        Text,
        matching("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
        Form("letters, digits, `.`, `_`, `-`"),
        Field(description="the camera, as configured"),
    ]
    track_id: Annotated[Integer, Field(description="the track within the camera, counted since the worker started")]
    sighting_id: Annotated[
        NonEmptyText,
        Form("text joined by `_`"),
        Field(
            description="name of the sighting: camera, `started_at` and track. The capture time keeps a restarted "
            "worker from using a name twice"
        ),
    ]
    identity_id: Annotated[Text, Field(description="the person in the gallery; empty for an unknown person")]
    identity_name: Annotated[Text, Field(description="the person's name in the gallery; empty for an unknown person")]
    similarity: Annotated[
        OptionalNumber,
        Form("number, -1 to 1"),
        Field(
            description="cosine between the sighting's template (not a single frame) and the nearest person; empty if "
            "there was nobody to compare with"
        ),
    ]
    threshold: Annotated[
        OptionalNumber,
        Form("number, -1 to 1"),
        Field(
            description="cosine from which the nearest person is named: that of the camera, or of a group of the person"
        ),
    ]
    margin: Annotated[OptionalNumber, Field(description="how much nearer that person is than the next one, in cosine")]
    quality: Annotated[
        OptionalNumber,
        matching(r"^(0(\.[0-9]{1,6})?|1)?$"),
        Form("number, 0 to 1"),
        Field(description="of the sighting's best face; empty where no face was good enough"),
    ]
    box: Annotated[Box, Field(description="the face in the source frame, px; may reach beyond the frame's edges")]
    frame_size: Annotated[Size, Field(description="of the source frame, px")]
    captured_at: Annotated[Time, Field(description="when the frame was captured that the event is about")]
    started_at: Annotated[Time, Field(description="when the sighting's first frame was captured")]
    ended_at: Annotated[OptionalTime, Field(description="when its last frame was captured; empty while it goes on")]
    pts_s: Annotated[Number, Field(description="place of the frame in the source, seconds")]
    model_id: Annotated[Text, Field(description="the embedding model that was used")]
    gallery_version: Annotated[Integer, Field(description="version of the gallery that was searched")]
    worker_id: Annotated[NonEmptyText, Field(description="the worker that owned the camera")]
    epoch: Annotated[
        Integer,
        Field(
            description="fencing epoch of the worker's lease on the camera; `0` without a fleet. Of two workers that "
            "both claim a camera, the higher epoch is right"
        ),
    ]
    unknown_id: Annotated[
        Text,
        Form("`u-` and 12 hex digits"),
        Field(
            description="who an unknown person is, without a name: the same in all their sightings on all cameras, for "
            "a time. Empty for a known person, and while too few faces are good enough to tell"
        ),
    ] = ""
    embedded_faces: Annotated[
        Integer,
        Field(
            description="number of faces on which the verdict rests. Fewer than `recognition.min_embeddings` name a "
            "person only if that person left the picture and the similarity left no doubt"
        ),
    ] = 0
    zones: Annotated[
        Text,
        Form("names joined by `,`"),
        Field(description="zones of the camera in which the person was seen so far; empty if there are none"),
    ] = ""
    groups: Annotated[
        Text,
        Form("names joined by `,`"),
        Field(description="groups that the person is in; empty if there are none, and for an unknown person"),
    ] = ""


Attention = Literal["settled", "empty", "deciding"]
"""How much a camera's frames are worth, least first: everybody is settled, nobody is there, somebody is undecided.
Under load, the frames that are worth least are passed over first."""
JITTER_S: Final = 0.005
"""A frame may come this much early and still counts as due: timestamps are not exact."""
