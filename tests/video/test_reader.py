"""Frames in: files, folders and network streams, whole, damaged, slow, silent and gone."""

import http.server
import io
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from tests.support.hostile_servers import dripping, serving
from tests.support.rtsp import write_clip
from worker.config import BatchingConfig, CameraConfig
from worker.errors import ConfigError, SourceError
from worker.observer import Observer, SourceState
from worker.types import Frame
from worker.video import connection
from worker.video import reader as source
from worker.video.addresses import Address, parse_address
from worker.video.buffers import Batcher, FrameBuffer
from worker.video.child_video import DecoderDiedError, Fate
from worker.video.decoder import FOLDER_FPS, ImageFolder, Picture, Video, open_video
from worker.video.planes import planes_of_image
from worker.video.reader import CameraReader, backoff_s
from worker.video.web import SourceSilentError

START = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


class Recorder(Observer):
    """Remembers what it is told; tests wait for states."""

    def __init__(self) -> None:
        self.read = 0
        self.dropped: Counter[str] = Counter()
        self.deaths: Counter[str] = Counter()
        self.states: list[SourceState] = []
        self._changed = threading.Condition()

    def frame_read(self, camera_id: str) -> None:
        self.read += 1

    def frame_dropped(self, camera_id: str, reason: str, count: int = 1) -> None:
        with self._changed:
            self.dropped[reason] += count
            self._changed.notify_all()

    def decoder_died(self, camera_id: str, fate: str) -> None:
        with self._changed:
            self.deaths[fate] += 1
            self._changed.notify_all()

    def source_state(self, camera_id: str, state: SourceState) -> None:
        with self._changed:
            self.states.append(state)
            self._changed.notify_all()

    def wait(self, condition: Callable[[], bool], timeout_s: float = 20) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), (self.states, self.dropped)

    def wait_for_state(self, state: SourceState, times: int = 1) -> None:
        self.wait(lambda: self.states.count(state) >= times)


@dataclass
class Rig:
    """A reader with everything around it."""

    reader: CameraReader
    buffer: FrameBuffer
    batcher: Batcher
    observer: Recorder
    frames: list[Frame] = field(default_factory=list)

    def drain(self) -> list[Frame]:
        """All frames until the source ends."""
        while (batch := self.batcher.next_batch(30)) is not None:
            assert batch, "the source went silent"
            self.frames += batch
        assert self.reader.join(10)
        return self.frames

    def take(self, count: int) -> list[Frame]:
        """At least so many further frames."""
        taken: list[Frame] = []
        while len(taken) < count:
            batch = self.batcher.next_batch(20)
            assert batch, f"no frame: {self.reader.state}: {self.reader.reason}"
            taken += batch
        self.frames += taken
        return taken


Make = Callable[..., Rig]


@pytest.fixture
def make() -> Iterator[Make]:
    """Builds a rig and starts its reader; at the end all of its threads must be gone."""
    rigs: list[Rig] = []

    def build(
        where: str | Path,
        *,
        opener: connection.Opener | None = None,
        wanted: Callable[[str, float], bool] | None = None,
        reading: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Rig:
        defaults = {"open_timeout_s": 5, "read_timeout_s": 5, "reconnect_initial_s": 0.01, "reconnect_max_s": 0.05}
        camera = CameraConfig.model_validate({"id": "cam", "source": str(where), **defaults, **fields})
        batching = BatchingConfig(max_frames=8, max_wait_s=0.001, stale_after_s=60, queue_frames=4)
        observer = Recorder()
        buffer = FrameBuffer.for_camera(camera, batching, observer)
        options: dict[str, Any] = ({"opener": opener} if opener else {}) | (reading or {})
        reader = CameraReader(camera, buffer, observer, wanted=wanted, **options)
        rig = Rig(reader, buffer, Batcher([buffer], batching, observer), observer)
        rigs.append(rig)
        reader.start()
        return rig

    yield build
    for rig in rigs:
        rig.reader.stop()
    for rig in rigs:
        assert rig.reader.join(10)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name in ("source-cam", "decode-cam")]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=50)


def brightness(frame: Frame) -> float:
    return float(np.median(frame.image))


# Addresses


@pytest.mark.parametrize(
    ("text", "kind", "live"),
    [
        ("rtsp://10.0.0.7/stream", "network", True),
        ("RTSPS://u:p@[::1]:322/x", "network", True),
        ("http://camera/video.mjpg", "network", True),
        ("https://host/clip.mp4", "network", True),
        ("0", "device", True),
        ("/dev/null", "device", True),
        ("clip.mp4", "file", False),
        ("/no/such/clip.mp4", "file", False),
        (".", "folder", False),
    ],
)
def test_what_an_address_names(text: str, kind: str, live: bool) -> None:
    address = parse_address(text)
    assert (address.kind, address.live) == (kind, live)


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "file:///etc/passwd", "file:/etc/passwd", "concat:a.ts|b.ts", "subfile,,start,0,end,9,,:/etc/passwd",
        "ftp://host/x", "rtmp://host/x", "tcp://host:1", "udp://@239.0.0.1:1234", "pipe:0", "data:video/mp4;base64,AA",
        "crypto:x.mp4", "async:file:x", "~nobody-of-this-name/x.mp4",
        f"x:{300 * chr(120)}", "rtsp:/host/x", "rtsp:host", "rtsp://", "http:///x", "rtsp://host:99999/x",
        "rtsp://host:port/x", "rtsp://h\nost/x", "rtsp://h\x00ost", "cache:http://h/x", "tee:x", "gopher://h",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)


def test_a_file_may_be_called_like_a_protocol(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    (tmp_path / "concat:x.mp4").write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert len(make("concat:x.mp4").drain()) == 50


def test_an_address_does_not_show_its_password() -> None:
    address = parse_address("rtsp://u:hunter2@host/x?token=hunter2")
    assert "hunter2" not in repr(address) + str(address) + address.label
    with pytest.raises(ConfigError) as caught:
        parse_address("ftp://u:hunter2@host/x")
    assert "hunter2" not in str(caught.value)


# Files


@pytest.mark.parametrize(
    ("name", "codec", "size"),
    [
        ("a.mp4", "libx264", (320, 240)),
        ("a.avi", "mjpeg", (322, 242)),
        ("a.mkv", "mpeg4", (176, 144)),
        ("a.ts", "libx264", (64, 96)),
    ],
)
def test_every_frame_of_a_file_in_order(
    tmp_path: Path, make: Make, name: str, codec: str, size: tuple[int, int]
) -> None:
    rig = make(write_clip(tmp_path / name, frames=30, codec=codec, size=size), start_time=START)
    frames = rig.drain()
    assert [frame.sequence for frame in frames] == list(range(30))
    assert [frame.pts_s for frame in frames] == pytest.approx([number / 25 for number in range(30)], abs=0.002)
    assert [brightness(frame) for frame in frames] == pytest.approx([16 + 2 * n for n in range(30)], abs=6)
    assert {frame.size for frame in frames} == {size}
    assert all(frame.image.flags.c_contiguous for frame in frames)
    assert all(frame.captured_at == START + timedelta(seconds=frame.pts_s) for frame in frames)
    assert rig.reader.state == "ended"
    assert rig.reader.error is None
    assert rig.observer.read == 30
    assert not rig.observer.dropped
    assert rig.observer.states == ["connecting", "streaming", "ended"]


def test_pictures_are_red_green_blue(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "red.gif"
    Pillow.new("RGB", (40, 30), (250, 10, 20)).save(
        path, save_all=True, append_images=[Pillow.new("RGB", (40, 30), (250, 10, 21))]
    )
    image = make(path).drain()[0].image
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - (250, 10, 20)).max() <= 8


def test_times_of_a_file_come_from_its_date_and_repeat(clip: Path, make: Make) -> None:
    first, second = make(clip).drain(), make(clip).drain()
    assert [(f.pts_s, f.captured_at) for f in first] == [(f.pts_s, f.captured_at) for f in second]
    modified = datetime.fromtimestamp(clip.stat().st_mtime, UTC)
    assert first[0].captured_at == pytest.approx(modified - timedelta(seconds=2), abs=timedelta(milliseconds=50))


def test_uneven_frame_times_of_a_gif_are_kept(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "uneven.gif"
    shades = [Pillow.new("L", (32, 32), shade) for shade in (10, 90, 170, 250)]
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=[100, 500, 40, 1000])
    assert [frame.pts_s for frame in make(path).drain()] == pytest.approx([0.0, 0.1, 0.6, 0.64])


def test_change_of_resolution_is_followed(tmp_path: Path, make: Make) -> None:
    narrow = write_clip(tmp_path / "narrow.ts", frames=20, size=(160, 120))
    wide = write_clip(tmp_path / "wide.ts", frames=20, size=(320, 240))
    both = tmp_path / "both.ts"
    both.write_bytes(narrow.read_bytes() + wide.read_bytes() + narrow.read_bytes())
    frames = make(both).drain()
    sizes = [frame.size for frame in frames]
    assert sizes == [(160, 120)] * 20 + [(320, 240)] * 20 + [(160, 120)] * 20
    assert all(later.pts_s > earlier.pts_s for earlier, later in itertools.pairwise(frames))


def write_with_b_frames(path: Path, frames: int) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"bf": "3", "b-adapt": "0"}
        for number in range(frames):
            image = np.full((48, 64, 3), 2 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("look_interval_s", [0.0, 0.08])
def test_a_clock_that_starts_anew_goes_on_also_with_b_frames(
    tmp_path: Path, make: Make, look_interval_s: float
) -> None:
    part = write_with_b_frames(tmp_path / "part.ts", 60)
    (tmp_path / "both.ts").write_bytes(part.read_bytes() * 2)
    rig = make(tmp_path / "both.ts", reading={"look_interval_s": look_interval_s})
    frames = rig.drain()
    assert rig.observer.read == 120
    assert frames[-1].pts_s == pytest.approx(119 / 25, abs=0.05)
    shades = [brightness(frame) for frame in frames]
    assert sum(later < earlier for earlier, later in itertools.pairwise(shades)) == 1, "the parts are not mixed"


def shift_picture(path: Path, number: int, shift_s: float) -> None:
    """Writes another time into the header of one picture of an MPEG transport stream."""
    stream, pictures = bytearray(path.read_bytes()), 0

    def moved(at: int) -> None:
        b = stream[at : at + 5]
        value = (b[0] >> 1 & 7) << 30 | b[1] << 22 | (b[2] >> 1) << 15 | b[3] << 7 | b[4] >> 1
        value = value + round(shift_s * 90_000) & (1 << 33) - 1
        stream[at] = b[0] & 0xF0 | (value >> 30 & 7) << 1 | 1
        stream[at + 1], stream[at + 2] = value >> 22 & 255, (value >> 15 & 127) << 1 | 1
        stream[at + 3], stream[at + 4] = value >> 7 & 255, (value & 127) << 1 | 1

    for packet in range(0, len(stream), 188):
        at = packet + 4 + (1 + stream[packet + 4] if stream[packet + 3] & 0x20 else 0)
        if stream[packet + 1] & 0x40 and stream[at : at + 3] == b"\0\0\1" and 0xE0 <= stream[at + 3] <= 0xEF:
            pictures += 1
            if pictures == number:
                moved(at + 9)
                if stream[at + 7] >> 6 == 3:
                    moved(at + 14)
    path.write_bytes(stream)


@pytest.mark.parametrize(("number", "shift_s"), [(20, 10 * 3600), (20, -3600), (1, 3600), (50, 3600), (20, 5)])
def test_one_picture_with_a_time_far_away_moves_no_others(
    tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture, number: int, shift_s: float
) -> None:
    path = write_clip(tmp_path / "clip.ts", frames=50)
    shift_picture(path, number, shift_s)
    frames = make(path).drain()
    assert [frame.pts_s for frame in frames] == pytest.approx([n / 25 for n in range(50)], abs=0.05)
    assert caplog.text.count("clock is not believed") == (number == 20)


def test_rotation_is_applied(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "upright.mp4"
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, 48:] = 255  # a bright bar at the right, which the quarter turn brings to the top
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(90)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    shown = make(path).drain()[0].image
    assert shown.shape == (64, 48, 3)
    assert (shown[4].mean(), shown[-4].mean()) == pytest.approx((255, 0), abs=12)


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".avi"])
@pytest.mark.parametrize("seed", range(3))
def test_flipped_bits_cost_frames_and_nothing_else(tmp_path: Path, make: Make, suffix: str, seed: int) -> None:
    path = write_clip(tmp_path / f"clip{suffix}", frames=60, size=(320, 240))
    data = bytearray(path.read_bytes())
    # The headers at either end must survive, or there is nothing to open.
    begin, end = (len(data) // 3, len(data) * 7 // 10) if suffix != ".ts" else (2000, len(data))
    chance = random.Random(seed)
    for _ in range(60):
        data[chance.randrange(begin, end)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    rig = make(path)
    frames = rig.drain()
    assert rig.reader.state == "ended"
    assert rig.observer.dropped["undecodable"] > 0
    assert 0 < len(frames) <= 60
    assert all(later.pts_s > earlier.pts_s for earlier, later in itertools.pairwise(frames))


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".avi", ".mkv", ".gif"])
def test_damage_anywhere_ends_in_order(tmp_path: Path, make: Make, suffix: str) -> None:
    """Headers, indices and tables included: the reader ends or fails in one line, and foresees each way to fail."""
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".gif":
        shades = [Pillow.new("L", (64, 48), shade) for shade in range(0, 250, 10)]
        shades[0].save(whole, save_all=True, append_images=shades[1:], duration=40)
    else:
        write_clip(whole, frames=25, size=(64, 48), codec="mjpeg" if suffix == ".avi" else "libx264")
    path = tmp_path / f"clip{suffix}"
    for seed in range(25):
        chance = random.Random(seed)
        data = bytearray(whole.read_bytes())
        for _ in range(chance.choice([1, 10, 100, 1000])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data[: chance.randrange(len(data))] if seed % 4 == 0 else data)
        rig = make(path)
        frames = rig.drain()
        assert all(later.pts_s > earlier.pts_s for earlier, later in itertools.pairwise(frames))
        assert rig.reader.state in ("ended", "failed")
        assert "died of" not in rig.reader.reason, seed
        assert (rig.reader.error is None) == (rig.reader.state == "ended")


def test_file_cut_short_gives_what_is_there(tmp_path: Path, make: Make) -> None:
    path = write_clip(tmp_path / "clip.ts", frames=50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 10 < len(make(path).drain()) < 50


@pytest.mark.parametrize("what", ["missing", "empty", "headless", "text", "noise", "mute", "folder of nothing"])
def test_what_is_no_video_fails_in_one_line(tmp_path: Path, clip: Path, make: Make, what: str) -> None:
    path = tmp_path / "clip.mp4"
    if what == "empty":
        path.touch()
    elif what == "headless":
        path.write_bytes(clip.read_bytes()[:-2000])
    elif what == "text":
        path.write_text("this is not a film\n" * 100)
    elif what == "noise":
        path.write_bytes(random.Random(1).randbytes(50_000))
    elif what == "mute":
        path = tmp_path / "sound.wav"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
            sound.rate = 8000
            container.mux(stream.encode(sound))
    elif what == "folder of nothing":
        path.mkdir()
    rig = make(path)
    assert rig.drain() == []
    assert rig.reader.state == "failed"
    assert isinstance(rig.reader.error, SourceError)
    assert str(rig.reader.error) == rig.reader.reason
    assert str(path) in rig.reader.reason
    assert "\n" not in rig.reader.reason
    assert rig.observer.states[-1] == "failed"


def drop_key_frames(path: Path, target: Path) -> Path:
    """A copy of a clip in which no picture can be decoded: all key frames are missing."""
    with av.open(str(path)) as source_, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(source_.streams.video[0])
        for packet in source_.demux(video=0):
            if packet.size and not packet.is_keyframe:
                packet.stream = stream
                container.mux(packet)
    return target


@pytest.mark.parametrize("policy", ["auto", "every", "newest"])
@pytest.mark.parametrize("look_interval_s", [0.0, 0.08])
def test_a_video_of_which_not_one_picture_can_be_decoded_fails(
    tmp_path: Path, make: Make, policy: str, look_interval_s: float
) -> None:
    whole = write_with_b_frames(tmp_path / "whole.mp4", 60)
    path = drop_key_frames(whole, tmp_path / "clip.mp4")
    rig = make(path, policy=policy, reading={"look_interval_s": look_interval_s})
    assert rig.drain() == []
    assert rig.reader.state == "failed"
    assert str(rig.reader.error) == f"camera cam: {path}: not one picture can be decoded; is it damaged, or cut off?"
    assert "streaming" not in rig.observer.states


def test_a_video_that_a_gpu_took_and_does_not_decode_is_told_as_such(tmp_path: Path, make: Make) -> None:
    path = drop_key_frames(write_with_b_frames(tmp_path / "whole.mp4", 60), tmp_path / "clip.mp4")

    def opener(address: Address, camera: CameraConfig, observer: Observer) -> Video | ImageFolder:
        return open_video(address, camera.model_copy(update={"decode_on": "processor"}), observer)

    rig = make(path, decode_on="gpu", opener=opener)
    assert rig.drain() == []
    assert "not one picture can be decoded; does the GPU decode its kind of video? See decode_on" in str(
        rig.reader.error
    )


def test_a_folder_of_which_not_one_image_can_be_read_fails(tmp_path: Path, make: Make) -> None:
    (tmp_path / "one.png").write_bytes(b"no picture")
    rig = make(tmp_path)
    assert rig.drain() == []
    assert "not one picture can be decoded" in str(rig.reader.error)


def test_folder_of_images_in_order_of_their_names(tmp_path: Path, make: Make) -> None:
    for number in (2, 0, 1):
        Pillow.new("RGB", (20 + number, 10), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    rig = make(tmp_path, start_time=START)
    frames = rig.drain()
    assert [frame.size for frame in frames] == [(20, 10), (21, 10), (22, 10)]
    assert [frame.pts_s for frame in frames] == pytest.approx([0, 1 / FOLDER_FPS, 2 / FOLDER_FPS])
    assert rig.observer.dropped == {"undecodable": 1}
    assert rig.reader.state == "ended"


def test_unwanted_live_frames_are_not_buffered(clip: Path, make: Make) -> None:
    asked: list[str] = []

    def wanted(camera_id: str, pts_s: float) -> bool:
        asked.append(camera_id)
        return round(pts_s * 25) % 5 == 0

    rig = make(clip, policy="newest", wanted=wanted)
    sequences = [frame.sequence for frame in rig.drain()]
    assert sequences
    assert set(sequences) <= set(range(0, 50, 5))
    assert len(asked) == rig.observer.read == 50
    assert len(sequences) + rig.observer.dropped.get("superseded", 0) == 10


def test_file_of_which_the_newest_frame_counts_plays_at_its_own_speed(tmp_path: Path, make: Make) -> None:
    frames = make(write_clip(tmp_path / "clip.mp4", frames=10), policy="newest").drain()
    for frame in frames:
        pause_s = frame.received_monotonic_s - frames[0].received_monotonic_s
        assert pause_s >= frame.pts_s - frames[0].pts_s - 0.02
    assert frames[-1].sequence == 9


def test_stop_while_the_buffer_is_full(clip: Path, make: Make) -> None:
    rig = make(clip)
    rig.observer.wait_for_state("streaming")
    while len(rig.buffer) < 4:
        threading.Event().wait(0.01)
    rig.reader.stop()
    assert rig.reader.join(10)
    assert (rig.reader.state, rig.reader.reason) == ("ended", "stopped")
    assert [frame.sequence for frame in rig.drain()] == [0, 1, 2, 3]


def test_reader_ends_when_its_buffer_is_closed(clip: Path, make: Make) -> None:
    rig = make(clip)
    rig.take(1)
    rig.batcher.remove("cam")
    assert rig.reader.join(10)
    assert rig.reader.state == "ended"


# Live sources, scripted


class Script:
    """Stands in for FFmpeg: each opening runs the next act, the last one for good."""

    def __init__(self, *acts: Callable[[], Iterator[Picture | None]]) -> None:
        self.acts = list(acts)
        self.opened = 0
        self.closed = 0

    def __call__(self, address: object, camera: object, observer: object) -> Any:
        act = self.acts[min(self.opened, len(self.acts) - 1)]
        self.opened += 1
        return Stage(self, act)


class Stage:
    recording = False
    still = behind = False
    refused = ""
    late_s = 0.0
    frame_interval_s = 0.04
    duration_s = None

    def __init__(self, script: Script, act: Callable[[], Iterator[Picture | None]]) -> None:
        self._script = script
        self._act = act

    def pictures(self, keep_going: Callable[[], bool]) -> Iterator[Picture | None]:
        for picture in self._act():
            if not keep_going():
                return
            yield picture

    def close(self) -> None:
        self._script.closed += 1


def shot(pts_s: float | None) -> Picture:
    return Picture(pts_s, lambda: planes_of_image(np.zeros((4, 4, 3), np.uint8)))


def five_frames() -> Iterator[Picture | None]:
    yield from (shot(number / 25) for number in range(5))


def break_off() -> Iterator[Picture | None]:
    yield from five_frames()
    raise SourceSilentError("rtsp://h/x: reading stopped: no answer within the timeout")


def refuse() -> Iterator[Picture | None]:
    yield from ()
    raise SourceError("rtsp://h/x: Connection refused")


def endless() -> Iterator[Picture | None]:
    number = 0
    while True:
        yield shot(number / 25)
        number += 1
        time.sleep(0.001)


def test_live_source_is_reopened_and_time_goes_on(make: Make) -> None:
    script = Script(break_off, refuse, five_frames, endless)
    rig = make("rtsp://h/x", opener=script, policy="every")
    frames = rig.take(30)
    assert script.opened == 4
    assert script.closed == 3
    assert [frame.sequence for frame in frames] == list(range(len(frames)))
    assert all(later.pts_s > earlier.pts_s for earlier, later in itertools.pairwise(frames))
    assert rig.observer.states[:8] == [
        "connecting", "streaming", "stalled", "waiting", "connecting", "waiting", "connecting", "streaming",
    ]  # fmt: skip
    assert rig.reader.state == "streaming"
    assert rig.reader.reason == ""


def test_reason_says_why_it_waits(make: Make) -> None:
    rig = make("rtsp://u:hunter2@h/x", opener=Script(refuse), reconnect_initial_s=60, reconnect_max_s=60)
    rig.observer.wait_for_state("waiting")
    assert "Connection refused; next try in" in rig.reader.reason
    rig.reader.stop()
    assert rig.reader.join(10)


def test_live_frames_carry_the_time_of_arrival(make: Make) -> None:
    before, before_s = datetime.now(UTC), time.monotonic()
    frames = make("rtsp://h/x", opener=Script(endless)).take(3)
    assert all(before <= frame.captured_at <= datetime.now(UTC) for frame in frames)
    assert all(before_s <= frame.received_monotonic_s <= time.monotonic() for frame in frames)


def test_newest_live_frame_replaces_what_nobody_took(make: Make) -> None:
    rig = make("rtsp://h/x", opener=Script(endless))
    rig.observer.wait(lambda: rig.observer.dropped["superseded"] >= 20)
    frame = rig.take(1)[0]
    assert frame.sequence >= 20


def test_a_live_clock_that_stands_still_gives_way_to_arrival(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def still() -> Iterator[Picture | None]:
        for _ in range(60):
            yield shot(7.0)
            time.sleep(0.01)

    frames = make("rtsp://h/x", opener=Script(still, still), policy="every").take(110)
    arrived_s = [frame.received_monotonic_s - frames[0].received_monotonic_s for frame in frames]
    said_s = [frame.pts_s - frames[0].pts_s for frame in frames]
    assert said_s[15:] == pytest.approx(arrived_s[15:], abs=0.05)
    assert caplog.text.count("times are not believed") == 1


def test_undecodable_data_without_end_is_given_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def garbage() -> Iterator[Picture | None]:
        while True:
            time.sleep(0.001)
            yield None

    rig = make("rtsp://h/x", opener=Script(garbage, endless), read_timeout_s=0.05)
    rig.take(1)
    assert rig.observer.states[:4] == ["connecting", "stalled", "waiting", "connecting"]
    assert rig.observer.dropped["undecodable"] > 0


def test_thread_that_hangs_is_noticed_and_replaced(make: Make) -> None:
    release = threading.Event()

    def hang() -> Iterator[Picture | None]:
        yield shot(0.0)
        release.wait(60)
        yield shot(99.0)

    script = Script(hang, endless)
    rig = make("rtsp://h/x", opener=script, read_timeout_s=0.05, policy="every", reading={"grace_s": 0.05})
    frames = rig.take(10)
    assert rig.observer.states[:5] == ["connecting", "streaming", "stalled", "waiting", "connecting"]
    release.set()
    assert [frame.sequence for frame in frames + rig.take(10)] == list(range(len(rig.frames)))
    assert max(frame.pts_s for frame in rig.frames) < 90, "a frame of the abandoned thread came through"


def test_hanging_threads_are_bounded(make: Make) -> None:
    release = threading.Event()
    hanging = Counter[str]()

    def hang_in_open(address: object, camera: object, observer: object) -> Any:
        hanging["threads"] += 1
        if not release.is_set():
            release.wait(60)
        raise SourceError("rtsp://h/x: refused")

    timeouts = {"open_timeout_s": 0.01, "read_timeout_s": 0.01, "reading": {"grace_s": 0.01}}
    rig = make("rtsp://h/x", opener=hang_in_open, **timeouts)
    rig.observer.wait(lambda: "tries hang" in rig.reader.reason)
    assert hanging["threads"] == source.MAX_ABANDONED
    assert not rig.reader.join(0)
    release.set()
    rig.observer.wait(lambda: hanging["threads"] > source.MAX_ABANDONED)


def test_stop_does_not_wait_for_a_thread_that_hangs(make: Make) -> None:
    release = threading.Event()

    def hang() -> Iterator[Picture | None]:
        yield shot(0.0)
        release.wait(60)

    rig = make("rtsp://h/x", opener=Script(hang), read_timeout_s=60)
    rig.take(1)
    rig.reader.stop()
    rig.observer.wait_for_state("ended")
    assert not rig.reader.join(0)
    release.set()


def test_thread_that_dies_is_seen(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def die() -> Iterator[Picture | None]:
        yield shot(0.0)
        raise ZeroDivisionError("at rtsp://u:hunter2@h/x")

    rig = make("rtsp://u:hunter2@h/x", opener=Script(die), policy="every")
    assert len(rig.drain()) == 1
    assert rig.reader.state == "failed"
    assert isinstance(rig.reader.error, SourceError)
    assert "ZeroDivisionError" in str(rig.reader.error)
    assert "hunter2" not in str(rig.reader.error)


def die_of(fate: Fate) -> Callable[[], Iterator[Picture | None]]:
    def die() -> Iterator[Picture | None]:
        yield shot(0.0)
        raise DecoderDiedError("rtsp://h/x: its decoder died", fate)

    return die


@pytest.mark.parametrize("fate", ["crashed", "killed", "hung", "memory"])
def test_a_camera_whose_decoder_dies_again_and_again_is_given_up(make: Make, fate: Fate) -> None:
    script = Script(*([die_of(fate)] * source.MOST_DEATHS), endless)
    rig = make("rtsp://h/x", opener=script)
    rig.observer.wait_for_state("failed")
    assert script.opened == source.MOST_DEATHS
    assert (
        "given up: its decoder died 5 times within 10 minutes, at last: rtsp://h/x: its decoder died"
        in rig.reader.reason
    )
    assert rig.observer.deaths == {fate: source.MOST_DEATHS}


def test_deaths_that_lie_far_apart_are_not_counted_together(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "DEATHS_WITHIN_S", 0.0)
    rig = make("rtsp://h/x", opener=Script(*([die_of("crashed")] * (source.MOST_DEATHS + 2)), endless))
    rig.observer.wait(lambda: rig.observer.deaths["crashed"] == source.MOST_DEATHS + 2)
    rig.take(20)
    assert rig.reader.state == "streaming"


def test_a_decoder_that_waits_for_the_network_is_no_fault_of_the_camera(make: Make) -> None:
    """Such as one that looks for the host's name while the name server is away."""

    def hang(address: object, camera: object, observer: object) -> Any:
        raise DecoderDiedError("rtsp://h/x: its decoder hangs, and is killed", "hung")

    rig = make("rtsp://h/x", opener=hang)
    rig.observer.wait(lambda: rig.observer.deaths["hung"] == source.MOST_DEATHS + 2)
    assert rig.reader.state != "failed"


def test_backoff_starts_anew_after_a_healthy_time(make: Make) -> None:
    attempts: list[int] = []

    def remember(attempt: int, *_: object) -> float:
        attempts.append(attempt)
        return 0.0

    script = [refuse, refuse, refuse, five_frames, refuse, refuse, endless]
    rig = make("rtsp://h/x", opener=Script(*script), reading={"backoff_s": remember})
    rig.observer.wait(lambda: rig.reader.state == "streaming" and len(attempts) == 6)
    assert attempts == [0, 1, 2, 3, 4, 5]
    attempts.clear()
    rig = make("rtsp://h/x", opener=Script(*script), reading={"backoff_s": remember, "healthy_s": 0.0})
    rig.observer.wait(lambda: rig.reader.state == "streaming" and len(attempts) == 6)
    assert attempts == [0, 1, 2, 0, 1, 2]


@given(attempt=st.integers(0, 10_000), initial=st.floats(0.01, 10), maximum=st.floats(0.01, 100))
def test_backoff_grows_to_its_limit_with_full_jitter(attempt: int, initial: float, maximum: float) -> None:
    longest = backoff_s(attempt, initial, maximum, lambda low, high: high)
    assert longest <= maximum
    assert longest == pytest.approx(min(maximum, initial * 2.0 ** min(attempt, 32)))
    assert backoff_s(attempt, initial, maximum, lambda low, high: low) == 0.0


# HTTP


class _Handler(http.server.BaseHTTPRequestHandler):
    server: "_HttpServer"

    def do_GET(self) -> None:
        self.server.requests += 1
        self.server.play(self)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, play: Callable[[_Handler], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.play = play
        self.requests = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the tests."""

    @property
    def url(self) -> str:
        return f"http://admin:hunter2@127.0.0.1:{self.server_port}"


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[_Handler], None]], _HttpServer]]:
    servers: list[_HttpServer] = []

    def start(play: Callable[[_Handler], None]) -> _HttpServer:
        server = _HttpServer(play)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def mjpeg(handler: _Handler, count: int) -> None:
    buffer = io.BytesIO()
    Pillow.new("RGB", (64, 48), (200, 30, 30)).save(buffer, "jpeg")
    handler.send_response(200)
    handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
    handler.end_headers()
    for _ in range(count):
        handler.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
        handler.wfile.write(f"Content-Length: {len(buffer.getvalue())}\r\n\r\n".encode() + buffer.getvalue() + b"\r\n")
        time.sleep(0.01)


def test_motion_jpeg_over_http_is_live_and_reopened(serve: Any, make: Make) -> None:
    server = serve(lambda handler: mjpeg(handler, 20))
    rig = make(server.url + "/video.mjpg")
    frames = rig.take(45)
    assert server.requests >= 3
    assert frames[0].size == (64, 48)
    assert np.abs(frames[0].image.astype(int) - (200, 30, 30)).max() < 12
    assert all(later.pts_s > earlier.pts_s for earlier, later in itertools.pairwise(frames))
    arrived_s = [frame.received_monotonic_s - frames[0].received_monotonic_s for frame in frames]
    assert [frame.pts_s - frames[0].pts_s for frame in frames] == pytest.approx(arrived_s, abs=0.05)
    assert "waiting" in rig.observer.states


@pytest.mark.parametrize(
    ("boundary", "part"),
    [
        ("; boundary=frame", "--frame|Content-Type: image/jpeg|{length}||"),
        (";boundary=frame", "--frame|content-type:image/jpeg|{length}||"),
        ("; boundary=--frame", "--frame|Content-Type: image/jpeg|{length}||"),
        ('; boundary="frame"', "--frame|Content-Type: image/jpeg|{length}||"),
        ("; boundary=frame", "--frame|Content-Type: image/jpeg||"),
        ("; boundary=frame", "|--frame|X-Time: 1.5|Content-Type: image/jpeg|{length}||"),
        ("; boundary=frame", "--frame|{length}|Content-Type: image/jpeg||"),
        ("; boundary=a b; charset=utf-8", "--a b|Content-Type: image/jpeg|{length}||"),
        ("; boundary=frame", "--frame\nContent-Type: image/jpeg\n\n"),
        ("; boundary=frame", "--frame|Content-Type: image/jpg|{length}||"),
        ("; boundary=frame", "--frame|{length}||"),
        ("; boundary=frame", "--frame||"),
        ("; boundary=frame", "frame|Content-Type: image/jpeg|{length}||"),
        ("; boundary=frame", "--other|Content-Type: image/jpeg|{length}||"),
        ("; boundary=frame", "--frame|Content-Type: image/jpeg|Content-Length: 100||"),
        (
            "; boundary=frame",
            "--frame|Content-Type: text/plain||hello|--frame|Content-Type: image/jpeg||",
        ),
        ("", "This camera sends pictures.|--frame|Content-Type: image/jpeg|{length}||"),
        ("; boundary=frame", ""),
    ],
)
def test_motion_jpeg_in_the_forms_in_which_cameras_send_it(serve: Any, make: Make, boundary: str, part: str) -> None:
    content = picture("jpeg")

    def play(handler: _Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", f"multipart/x-mixed-replace{boundary}")
        handler.end_headers()
        head = part.format(length=f"Content-Length: {len(content)}").replace("|", "\r\n")
        for _ in range(20):
            handler.wfile.write(head.encode() + content + b"\r\n")
            time.sleep(0.005)

    frames = make(serve(play).url + "/video.mjpg").take(8)
    assert {frame.size for frame in frames} == {(64, 48)}
    assert float(np.abs(frames[0].image.astype(int) - 220).mean()) < 20


def with_thumbnail(content: bytes) -> bytes:
    """A JPEG that holds another one in its head, as cameras write it."""
    inner = picture("jpeg", 10, (16, 16))
    return content[:2] + b"\xff\xe2" + (len(inner) + 2).to_bytes(2, "big") + inner + content[2:]


@pytest.mark.parametrize("kind", ["image/jpeg", "video/x-motion-jpeg", "application/octet-stream", "", "chunked", "--"])
@pytest.mark.parametrize("path", ["/snap.jpg", "/stream"])
def test_jpegs_one_after_another_are_a_camera_and_each_is_taken_when_it_comes(
    serve: Any, make: Make, kind: str, path: str
) -> None:
    """The second picture is not sent before the first one has been taken, and so on."""
    taken, over = threading.Semaphore(0), threading.Event()
    pictures = [
        picture("jpeg", 40),
        with_thumbnail(picture("jpeg", 80)),
        picture("jpeg", 120)[:-2],  # the end marker is missing
        b"\r\n\0" + picture("jpeg", 160),
        picture("jpeg", 200)[:-2] + b"\xff\xff\xff\xd9",
        picture("jpeg", 220),
    ]

    def play(handler: _Handler) -> None:
        if over.is_set():
            return
        handler.send_response(200)
        if kind == "chunked":
            handler.send_header("Transfer-Encoding", kind)
        elif kind and kind != "--":
            handler.send_header("Content-Type", kind)
        handler.end_headers()
        for number, content in enumerate(pictures):
            whole = b"--x\r\nContent-Type: image/jpeg\r\n\r\n" + content if kind == "--" else content
            for part in (whole[:700], whole[700:]):
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if kind == "chunked" else part)
                handler.wfile.flush()
            if number != 2:  # which ends where the next one begins
                taken.acquire(timeout=20)
        over.wait(60)

    server = serve(play)
    rig = make(server.url + path, policy="every", read_timeout_s=20)
    shades = list[float]()
    while len(shades) < len(pictures):
        for frame in rig.take(1):
            shades.append(brightness(frame))
            taken.release()
    requests = server.requests
    over.set()
    assert shades == pytest.approx([60, 100, 140, 180, 217, 234], abs=6)
    assert requests == 1


def test_bytes_without_a_picture_are_given_up_by_their_number(serve: Any, make: Make) -> None:
    def play(handler: _Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        with suppress(OSError):
            while True:
                handler.wfile.write(b"\xff\xd8\xff\xda\0\x02" + b"x" * 65_536)

    rig = make(serve(play).url + "/video.mjpg", max_picture_mb=1)
    rig.observer.wait_for_state("waiting")
    assert "more than 1 MB came without a whole picture" in rig.reader.reason


def test_video_file_over_http_is_read_whole_and_ends(serve: Any, make: Make, clip: Path) -> None:
    def send(handler: _Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "video/mp4")
        handler.send_header("Content-Length", str(clip.stat().st_size))
        handler.end_headers()
        handler.wfile.write(clip.read_bytes())

    fast = clip.with_name("fast.mp4")
    with av.open(str(clip)) as source_, av.open(str(fast), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source_.streams.video[0])
        for packet in source_.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    clip = fast
    rig = make(serve(send).url + "/clip.mp4")
    assert [frame.sequence for frame in rig.drain()] == list(range(50))
    assert rig.reader.state == "ended"


def picture(name: str, shade: int = 200, size: tuple[int, int] = (64, 48)) -> bytes:
    noise = np.random.default_rng(shade).integers(0, 40, (size[1], size[0], 3)) + shade
    buffer = io.BytesIO()
    Pillow.fromarray(noise.clip(0, 255).astype(np.uint8)).save(buffer, name)
    return buffer.getvalue()


def send(handler: _Handler, content: bytes, kind: str) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.mark.parametrize("name", ["jpeg", "png", "bmp", "webp"])
@pytest.mark.parametrize("path", ["/snap.jpg", "/cgi-bin/snapshot?channel=1", "/pic"])
def test_a_single_picture_over_http_is_asked_for_again_and_again(serve: Any, make: Make, name: str, path: str) -> None:
    server = serve(lambda handler: send(handler, picture(name, min(20 * handler.server.requests, 200)), "image/x"))
    rig = make(server.url + path, snapshot_interval_s=0.05)
    frames = rig.take(5)
    assert {frame.size for frame in frames} == {(64, 48)}
    assert brightness(frames[-1]) > brightness(frames[0]), "each is another picture"
    assert rig.observer.states == ["connecting", "streaming"]
    assert rig.reader.reason == ""


def test_pictures_over_http_come_at_their_interval(serve: Any, make: Make) -> None:
    content = picture("jpeg")
    server = serve(lambda handler: send(handler, content, "image/jpeg"))
    frames = make(server.url + "/snap.jpg", snapshot_interval_s=0.3).take(4)
    pauses_s = [later.pts_s - earlier.pts_s for earlier, later in itertools.pairwise(frames)]
    assert min(pauses_s) > 0.2
    assert sum(pauses_s) / 3 == pytest.approx(0.3, abs=0.1)
    assert frames[-1].spacing_s == pytest.approx(0.3, abs=0.1)


def test_a_picture_over_http_that_fails_for_a_while_is_asked_for_again(serve: Any, make: Make) -> None:
    content = picture("jpeg")

    def play(handler: _Handler) -> None:
        if handler.server.requests == 3:
            handler.send_error(503)
        else:
            send(handler, content, "image/jpeg")

    rig = make(serve(play).url + "/snap.jpg", snapshot_interval_s=0.01)
    rig.take(5)
    assert rig.observer.states[:5] == ["connecting", "streaming", "waiting", "connecting", "streaming"]


def test_pictures_over_http_without_their_end_marker_are_taken_and_told_once(
    serve: Any, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    content = picture("jpeg")
    server = serve(lambda handler: send(handler, content[:-2], "image/jpeg"))
    make(server.url + "/snap.jpg", snapshot_interval_s=0.01).take(4)
    assert caplog.text.count("lack their last bytes") == 1


def test_half_a_picture_over_http_is_not_taken(serve: Any, make: Make) -> None:
    content = picture("jpeg")
    server = serve(lambda handler: send(handler, content[: len(content) // 2], "image/jpeg"))
    rig = make(server.url + "/snap.jpg", snapshot_interval_s=0.01)
    rig.observer.wait_for_state("waiting", times=2)
    assert "not one picture can be decoded" in rig.reader.reason
    assert "streaming" not in rig.observer.states


def test_a_picture_over_http_is_turned_as_the_settings_say(serve: Any, make: Make) -> None:
    content = picture("jpeg")
    server = serve(lambda handler: send(handler, content, "image/jpeg"))
    fields = {"rotate": 90, "pixel_aspect": "2:1", "snapshot_interval_s": 0.01}
    assert make(server.url + "/snap.jpg", **fields).take(1)[0].size == (48, 128)


def test_refusal_by_http_is_told_without_the_password(serve: Any, make: Make) -> None:
    server = serve(lambda handler: handler.send_error(401))
    rig = make(server.url + "/video.mjpg")
    rig.observer.wait_for_state("waiting", times=2)
    assert "401" in rig.reader.reason
    assert "hunter2" not in rig.reader.reason


@pytest.mark.parametrize("target", ["file:///etc/hostname", "rtsp://127.0.0.1:1/x", "concat:/etc/hostname"])
def test_redirect_to_another_protocol_is_not_followed(serve: Any, make: Make, target: str) -> None:
    def redirect(handler: _Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    rig = make(serve(redirect).url + "/x")
    rig.observer.wait_for_state("waiting", times=2)
    assert rig.observer.read == 0


def test_playlist_cannot_read_local_files(tmp_path: Path, clip: Path, serve: Any, make: Make) -> None:
    def playlist(handler: _Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/vnd.apple.mpegurl")
        handler.end_headers()
        handler.wfile.write(f"#EXTM3U\n#EXTINF:2,\nfile://{clip}\n#EXT-X-ENDLIST\n".encode())

    rig = make(serve(playlist).url + "/live.m3u8", open_timeout_s=2)
    rig.observer.wait_for_state("waiting")
    assert rig.observer.read == 0


# Real footage


@pytest.mark.data
def test_frames_are_those_that_opencv_reads(test_data: Path, make: Make) -> None:
    cv2 = pytest.importorskip("cv2")
    path = test_data / "video" / "stage_360p.mp4"
    frames = make(path).drain()
    assert len(frames) == 275
    capture = cv2.VideoCapture(str(path))
    for frame in frames:
        ok, image = capture.read()
        assert ok
        assert np.array_equal(frame.image, image[..., ::-1])
    assert not capture.read()[0]
    capture.release()


@pytest.mark.parametrize(
    ("begin", "drop"),
    [(b"HTTP/1.1 200 OK\r\n", b"X-More: x\r\n"), (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 60_000), (b"", b"H")],
    ids=["many lines", "one line", "byte by byte"],
)
@pytest.mark.parametrize("path", ["stream", "snap.jpg"])
def test_a_camera_whose_answer_has_a_head_without_end_is_given_up_in_time(path: str, begin: bytes, drop: bytes) -> None:
    with serving(dripping(begin, drop, 0.001)) as server:
        url = f"{server.url}/{path}"
        camera = CameraConfig.model_validate({"id": "a", "source": url, "open_timeout_s": 0.5, "read_timeout_s": 0.5})
        with pytest.raises(SourceError, match=r"no answer within 0\.5 s|more than 65536 bytes|more than 100 headers"):
            open_video(parse_address(url), camera, Observer())
