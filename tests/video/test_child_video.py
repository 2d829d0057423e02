"""Cameras that are decoded in processes of their own: the same pictures, and whatever happens to one harms no other."""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support.bombs import video as large_video
from tests.support.hostile_servers import endless_body, serving
from tests.support.processes import children_of, decoders_of, environment_of, fork_servers_of, is_there, own_descriptors
from tests.support.rtsp import RtspServer, write_clip
from tests.support.waiting import eventually
from worker.config import CameraConfig, Config, DecodingConfig
from worker.errors import SourceError
from worker.hosts import HostPolicy
from worker.observer import Observer, SourceState
from worker.types import Image as Pixels
from worker.video.addresses import parse_address
from worker.video.cameras import Cameras
from worker.video.child_messages import parse
from worker.video.child_video import ChildVideo, DecoderDiedError, Decoders
from worker.video.connection import Source
from worker.video.decoder import ImageFolder, Video, open_video
from worker.video.planes import rgb_of
from worker.video.shared_pictures import SharedPictures

pytestmark = pytest.mark.timeout(90)

FAST = {"open_timeout_s": 10, "read_timeout_s": 1.0, "reconnect_initial_s": 0.01, "reconnect_max_s": 0.05}


class Recorder(Observer):
    def __init__(self) -> None:
        self.read: Counter[str] = Counter()
        self.deaths: Counter[tuple[str, str]] = Counter()
        self.states: list[tuple[str, SourceState]] = []

    def frame_read(self, camera_id: str) -> None:
        self.read[camera_id] += 1

    def decoder_died(self, camera_id: str, fate: str) -> None:
        self.deaths[camera_id, fate] += 1

    def source_state(self, camera_id: str, state: SourceState) -> None:
        self.states.append((camera_id, state))


class Rig:
    """Cameras that are read, with everything around them."""

    def __init__(self, **decoding: Any) -> None:
        self.seen = Recorder()
        config = Config.model_validate({"worker_id": "w", "decoding": decoding})
        self.cameras = Cameras(config, self.seen, lasting=True)

    def start(self, camera_id: str, source: object, **fields: Any) -> None:
        self.cameras.start(CameraConfig.model_validate({"id": camera_id, "source": str(source), **FAST, **fields}))

    def until(self, condition: Callable[[], Any]) -> None:
        """Takes frames until it holds."""

        def step() -> Any:
            self.cameras.next_batch(0.02)
            return condition()

        eventually(step)

    def more(self, camera_id: str, count: int = 5) -> None:
        goal = self.seen.read[camera_id] + count
        self.until(lambda: self.seen.read[camera_id] >= goal)


@pytest.fixture
def make() -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []
    before = fork_servers_of(os.getpid())

    def build(**decoding: Any) -> Rig:
        rigs.append(Rig(**decoding))
        return rigs[-1]

    yield build
    for rig in rigs:
        rig.cameras.close()
    assert fork_servers_of(os.getpid()) == before


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=750, gop=5)


@pytest.fixture(scope="module")
def server(clip: Path) -> Iterator[RtspServer]:
    found = RtspServer({"/clip": clip})
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    found = Decoders(DecodingConfig(), HostPolicy())
    yield found
    found.close()


def shown(video: Source, look_interval_s: float) -> list[tuple[float | None, Pixels | None]]:
    """Each picture with its time; None for those that were passed over."""
    if not isinstance(video, ImageFolder):
        video.look_interval_s = look_interval_s
    try:
        return [
            (picture.pts_s, rgb_of(picture.planes()).copy() if picture.planes is not None else None)
            for picture in video.pictures(lambda: True)
            if picture is not None
        ]
    finally:
        video.close()


@pytest.mark.parametrize(
    ("codec", "size", "fields"),
    [
        ("libx264", (320, 240), {}),
        ("libx264", (330, 242), {}),
        ("libx264", (320, 240), {"rotate": 90, "pixel_aspect": "2:1"}),
        ("mjpeg", (320, 240), {}),
    ],
)
@pytest.mark.parametrize("look_interval_s", [0.0, 0.16])
def test_the_pictures_are_those_of_a_decoder_in_the_worker(
    tmp_path: Path,
    decoders: Decoders,
    codec: str,
    size: tuple[int, int],
    fields: dict[str, Any],
    look_interval_s: float,
) -> None:
    path = write_clip(tmp_path / ("clip.avi" if codec == "mjpeg" else "clip.mp4"), frames=20, size=size, codec=codec)
    camera = CameraConfig.model_validate({"id": "door", "source": str(path), **fields})
    address = parse_address(str(path))
    expected = shown(open_video(address, camera, Observer()), look_interval_s)
    found = shown(decoders.open(address, camera, Observer()), look_interval_s)
    assert len(expected) >= 19
    assert [pts_s for pts_s, _ in found] == [pts_s for pts_s, _ in expected]
    for (_, image), (_, same) in zip(found, expected, strict=True):
        assert (image is None) == (same is None)
        if image is not None and same is not None:
            np.testing.assert_array_equal(image, same)


def test_a_source_that_cannot_be_opened_is_told_in_the_same_words(tmp_path: Path, decoders: Decoders) -> None:
    path = tmp_path / "no.mp4"
    path.write_bytes(b"no video")
    camera = CameraConfig.model_validate({"id": "door", "source": str(path)})
    address = parse_address(str(path))
    with pytest.raises(SourceError) as here:
        open_video(address, camera, Observer())
    with pytest.raises(SourceError) as there:
        decoders.open(address, camera, Observer())
    assert str(there.value) == str(here.value)
    assert not isinstance(there.value, DecoderDiedError)


@pytest.mark.rtsp
def test_a_decoder_that_is_killed_is_started_anew_and_the_other_camera_goes_on(
    make: Callable[..., Rig], server: RtspServer
) -> None:
    rig = make()
    rig.start("good", server.url("/clip"))
    rig.more("good")
    [good] = decoders_of(os.getpid())
    rig.start("bad", server.url("/clip"))
    rig.more("bad")
    [bad] = set(decoders_of(os.getpid())) - {good}
    os.kill(bad, signal.SIGKILL)
    rig.until(lambda: ("bad", "waiting") in rig.seen.states)
    assert "its decoder was killed" in rig.cameras.states()["bad"][1]
    rig.more("bad")
    assert rig.seen.deaths == {("bad", "killed"): 1}
    assert rig.seen.states.count(("good", "connecting")) == 1
    assert is_there(good)
    os.kill(good, signal.SIGSEGV)
    rig.until(lambda: rig.seen.deaths["good", "crashed"])
    rig.more("good")


@pytest.mark.rtsp
def test_a_decoder_that_hangs_is_killed_and_started_anew(make: Callable[..., Rig], server: RtspServer) -> None:
    rig = make()
    rig.start("door", server.url("/clip"))
    rig.more("door")
    [hanging] = decoders_of(os.getpid())
    os.kill(hanging, signal.SIGSTOP)
    rig.until(lambda: rig.seen.deaths["door", "hung"])
    rig.until(lambda: not is_there(hanging))
    assert ("door", "stalled") in rig.seen.states
    rig.more("door")


@pytest.mark.rtsp
def test_a_camera_that_keeps_killing_its_decoder_is_given_up_and_the_other_goes_on(
    make: Callable[..., Rig], server: RtspServer, tmp_path: Path
) -> None:
    large = large_video(tmp_path / "large.h264", 7000, container="h264", frames=1).read_bytes()
    rig = make(memory_mb=64)
    rig.start("good", server.url("/clip"))
    rig.more("good")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: video/h264\r\nContent-Length: %d\r\n\r\n" % len(large)
    with serving(lambda connection, _over: connection.sendall(head + large)) as camera:
        rig.start("bad", f"{camera.url}/video.h264", max_megapixels=50)
        rig.until(lambda: ("bad", "failed") in rig.seen.states)
    state, reason = rig.cameras.states()["bad"]
    assert state == "failed"
    assert "camera bad is given up: its decoder died 5 times within 10 minutes" in reason
    assert "needs more memory than it may have; see decoding.memory_mb" in reason
    assert rig.seen.deaths == {("bad", "memory"): 5}
    rig.more("good")
    assert rig.seen.states.count(("good", "connecting")) == 1


def test_a_part_without_end_takes_no_more_than_the_decoder_may_have(make: Callable[..., Rig]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n--frame\r\n"
    rig = make(memory_mb=64)
    with serving(endless_body(head + b"Content-Type: image/jpeg\r\n\r\n\xff\xd8\xff")) as camera:
        rig.start("bad", f"{camera.url}/video.mjpg", max_picture_mb=2000)
        rig.until(lambda: rig.seen.deaths["bad", "memory"])


@pytest.mark.rtsp
def test_a_decoder_gets_nothing_of_the_worker_but_its_own_address(
    make: Callable[..., Rig], server: RtspServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACESTREAM_GALLERY_KEY", "hunter2")
    rig = make()
    rig.start("door", server.url("/clip", "user:pa55word"))
    rig.more("door")
    [decoder] = decoders_of(os.getpid())
    assert b"hunter2" not in environment_of(decoder)
    assert b"pa55word" not in environment_of(decoder) + Path(f"/proc/{decoder}/cmdline").read_bytes()
    limits = Path(f"/proc/{decoder}/limits").read_text()
    assert "unlimited" not in next(line for line in limits.splitlines() if line.startswith("Max address space"))
    assert next(line for line in limits.splitlines() if line.startswith("Max core file size")).split()[4] == "0"
    links = [str(link.readlink()) for link in Path(f"/proc/{decoder}/fd").iterdir()]
    assert sum("facestream-pictures" in link for link in links) == 1


@pytest.mark.rtsp
@pytest.mark.parametrize("processes", ["live", "off"])
def test_without_a_gpu_a_camera_for_it_says_so_again_and_again_and_the_other_goes_on(
    make: Callable[..., Rig], server: RtspServer, monkeypatch: pytest.MonkeyPatch, processes: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    rig = make(processes=processes)
    rig.start("good", server.url("/clip"))
    rig.start("bad", server.url("/clip", "user:pa55word"), decode_on="gpu")
    rig.until(lambda: rig.seen.states.count(("bad", "waiting")) == 3)
    _, reason = rig.cameras.states()["bad"]
    assert reason.splitlines() == [reason]
    assert "cannot be decoded on a GPU: no NVIDIA GPU can be used here (see nvidia-smi)" in reason
    assert "leave decode_on out, or choose 'processor'" in reason
    assert "pa55word" not in reason
    rig.more("good")
    assert rig.seen.read["bad"] == 0
    assert not rig.seen.deaths


def test_a_decoder_for_a_gpu_may_reserve_addresses_and_fill_no_more_memory(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver reserves more addresses than any limit for memory could allow, and finds its card by the environment."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        rig = make()
        rig.start("door", f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x", open_timeout_s=60, decode_on="gpu")

        def limits() -> dict[str, str]:
            [decoder] = eventually(lambda: decoders_of(os.getpid()))
            assert b"CUDA_VISIBLE_DEVICES=-1" in environment_of(decoder)
            lines = Path(f"/proc/{decoder}/limits").read_text().splitlines()
            return {line[:26].strip(): line[26:].split()[0] for line in lines}

        eventually(lambda: limits()["Max data size"] != "unlimited")
        assert 1_024_000_000 < int(limits()["Max data size"]) < 2_000_000_000
        assert limits()["Max address space"] == "unlimited"


@pytest.mark.parametrize("name", ["walking.gif", "folder", "clip.mp4"])
def test_what_no_gpu_decodes_is_refused_in_one_line(
    tmp_path: Path, name: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "clip.mp4":
        path = clip
    else:
        Image.new("RGB", (64, 48)).save(path)
    camera = CameraConfig.model_validate({"id": "door", "source": str(path), "decode_on": "gpu"})
    with pytest.raises(SourceError) as refused:
        open_video(parse_address(str(path)), camera, Observer())
    reasons = {
        "walking.gif": "a GPU decodes no video of its kind",
        "folder": "a GPU decodes no folder of images",
        "clip.mp4": "no NVIDIA GPU can be used here (see nvidia-smi)",
    }
    assert f"{path} cannot be decoded on a GPU: {reasons[name]}; leave decode_on out" in str(refused.value)
    with av.open(str(clip)) as container, pytest.raises(SourceError, match="a GPU decodes no h264"):
        Video(container, parse_address(str(clip)), camera, Observer(), begun_s=0.0)


@pytest.mark.rtsp
def test_cameras_that_come_and_go_leave_nothing_behind(make: Callable[..., Rig], server: RtspServer) -> None:
    rig = make()

    def once() -> None:
        rig.start("door", server.url("/clip"))
        rig.more("door")
        rig.cameras.stop("door")
        eventually(lambda: not decoders_of(os.getpid()))
        rig.cameras.next_batch(0)
        gc.collect()

    once()
    before = own_descriptors()
    for _ in range(3):
        once()
    eventually(lambda: own_descriptors() <= before)


@pytest.mark.rtsp
def test_the_process_that_forks_is_started_anew(make: Callable[..., Rig], server: RtspServer) -> None:
    others = fork_servers_of(os.getpid())
    rig = make()
    rig.start("door", server.url("/clip"))
    rig.more("door")
    [forking], [decoder] = set(fork_servers_of(os.getpid())) - set(others), decoders_of(os.getpid())
    os.kill(forking, signal.SIGKILL)
    rig.until(lambda: not is_there(decoder))
    rig.more("door", 40)
    assert not rig.seen.deaths, "the camera has done nothing"


def test_the_process_that_forks_outlives_a_decoder_that_ends_while_the_worker_lets_it_go(clip: Path) -> None:
    """It hears of both at once."""
    decoders = Decoders(DecodingConfig(), HostPolicy())
    others = fork_servers_of(os.getpid())
    camera = CameraConfig.model_validate({"id": "door", "source": str(clip)})
    video = decoders.open(parse_address(str(clip)), camera, Observer())
    [forking] = set(fork_servers_of(os.getpid())) - set(others)
    try:
        [decoder] = children_of(forking)
        os.kill(forking, signal.SIGSTOP)
        os.kill(decoder, signal.SIGKILL)
        eventually(lambda: not is_there(decoder))
        video.close()
        os.kill(forking, signal.SIGCONT)
        assert len(shown(decoders.open(parse_address(str(clip)), camera, Observer()), 0.0)) == 750
        assert set(fork_servers_of(os.getpid())) - set(others) == {forking}
    finally:
        with suppress(ProcessLookupError):
            os.kill(forking, signal.SIGCONT)
        decoders.close()


@pytest.mark.rtsp
@pytest.mark.parametrize("stopped", [False, True])
def test_decoders_end_with_a_worker_that_is_killed(server: RtspServer, stopped: bool) -> None:
    program = """
import sys
from worker.config import CameraConfig, Config
from worker.observer import Observer
from worker.video.cameras import Cameras
cameras = Cameras(Config(worker_id="w"), Observer(), lasting=True)
cameras.start(CameraConfig(id="door", source=sys.argv[1]))
while True:
    if cameras.next_batch(1.0):
        print("read", flush=True)
"""
    worker = subprocess.Popen([sys.executable, "-c", program, server.url("/clip")], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "read\n"
    [decoder], [forking] = decoders_of(worker.pid), fork_servers_of(worker.pid)
    if stopped:
        os.kill(decoder, signal.SIGSTOP)
    worker.kill()
    worker.communicate(timeout=10)
    eventually(lambda: not is_there(decoder) and not is_there(forking))


def test_a_stop_ends_decoders_whatever_they_do(make: Callable[..., Rig]) -> None:
    """One that hangs, and one that waits for a camera which never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        rig = make()
        rig.start("door", f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x", open_timeout_s=60)
        [decoder] = eventually(lambda: decoders_of(os.getpid()))
        os.kill(decoder, signal.SIGSTOP)
        ended = threading.Thread(target=rig.cameras.close)
        ended.start()
        ended.join(10)
        assert not ended.is_alive()
        eventually(lambda: not is_there(decoder))


@pytest.mark.rtsp
def test_a_setting_turns_them_off(make: Callable[..., Rig], server: RtspServer) -> None:
    before = fork_servers_of(os.getpid())
    rig = make(processes="off")
    rig.start("door", server.url("/clip"))
    rig.more("door")
    assert fork_servers_of(os.getpid()) == before


# What a decoder that was taken over might do


SHOWN = {
    "number": 0, "pts_s": 0.0, "form": "yuv420p", "width": 64, "height": 48, "strides": [64, 32, 32],
    "rows": [48, 24, 24], "colour_range": 0, "matrix": 2, "turn": [1, 0, 0, 1], "aspect": 1.0, "decode_s": 0.0,
    "passed": [], "behind": False, "late_s": 0.0,
}  # fmt: skip
OPENED = {"recording": False, "still": False, "frame_interval_s": 0.04, "duration_s": None}


def looked_at(*messages: bytes, unread: bytes = b"") -> int:
    """How many pictures a worker gets of a decoder that says this and ends, with what was sent to it ``unread``; raises
    what it makes of it."""
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    memory = SharedPictures(4, 10_000_000)
    for message in messages:
        other.send(message)
    other.shutdown(socket.SHUT_WR)
    if unread:
        own.send(unread)
        other.close()
    camera = CameraConfig.model_validate({"id": "door", "source": "rtsp://127.0.0.1/x", "read_timeout_s": 0.2})
    try:
        video = ChildVideo(own, memory, parse_address("rtsp://127.0.0.1/x"), camera, Observer())
        pictures = 0
        for picture in video.pictures(lambda: True):
            if picture is not None and picture.planes is not None:
                rgb_of(picture.planes())
                pictures += 1
        return pictures
    finally:
        own.close()
        other.close()
        memory.close()


def end() -> bytes:
    return said("Ended", {"problem": "", "kind": ""})


def said(kind: str, fields: dict[str, Any]) -> bytes:
    return json.dumps([kind, *fields.values()]).encode()


def test_an_honest_decoder_is_understood() -> None:
    shown, written = said("Shown", SHOWN), said("Written", {"number": 0})
    assert looked_at(said("Opened", OPENED), shown, written, shown, written, end()) == 2


@pytest.mark.parametrize(
    "lie",
    [
        {"width": 1 << 20, "height": 1 << 20}, {"width": 0}, {"width": -64}, {"height": 49}, {"height": 1 << 70},
        {"rows": [48]}, {"rows": []}, {"rows": [1 << 40, 1, 1]}, {"rows": [-48, 24, 24]}, {"strides": [0, 0, 0]},
        {"strides": [1, 32, 32]}, {"strides": [1 << 62, 1 << 62, 1 << 62]}, {"strides": [64, 32, 31]},
        {"turn": [1, 1, 1, 1]}, {"turn": []}, {"aspect": 1e9}, {"aspect": 0.0}, {"form": "no such form"},
        {"form": "nv12"}, {"form": "pal8"}, {"form": "yuv444p16le"}, {"colour_range": 1 << 40}, {"matrix": -1},
        {"passed": ["now"]}, {"passed": 1}, {"late_s": 1e300}, {"behind": 1}, {"number": 1}, {"pts_s": "now"},
        {"decode_s": None}, {"width": True},
    ],
)  # fmt: skip
def test_what_a_decoder_says_of_a_picture_is_not_believed(lie: dict[str, Any]) -> None:
    written = said("Written", {"number": 0})
    with pytest.raises(SourceError):
        looked_at(said("Opened", OPENED), said("Shown", SHOWN | lie), written, end())


def test_how_a_decoder_ended_is_heard_although_it_left_an_answer_unread() -> None:
    with pytest.raises(DecoderDiedError, match="was killed") as told:
        looked_at(said("Opened", OPENED), said("Died", {"code": -signal.SIGKILL}), unread=b"an answer")
    assert told.value.fate == "killed"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*SHOWN]), inner, max_size=4),
    max_leaves=8,
)
KINDS = ["Opened", "Shown", "Written", "Passed", "Damaged", "Alive", "Told", "Ended", "Died"]


@given(st.binary(max_size=40) | st.tuples(st.sampled_from(KINDS), JSON).map(lambda pair: json.dumps(pair).encode()))
def test_every_packet_is_a_message_or_refused(packet: bytes) -> None:
    with suppress(ValueError):
        parse(packet)


def test_the_decoder_s_words_reach_no_terminal_and_no_log_as_they_are() -> None:
    problem = {"problem": "\x1b]52;c;evil\x07 rtsp://user:pa55word@host/x", "kind": "source"}
    with pytest.raises(SourceError) as caught:
        looked_at(said("Ended", problem))
    assert "\x1b" not in str(caught.value)
    assert "pa55word" not in str(caught.value)


# The memory that both share


def test_places_are_used_again_once_their_arrays_are_gone_and_not_before() -> None:
    memory = SharedPictures(2, 1_000_000)
    places = [memory.place_for(100, 0.01) for _ in range(2)]
    arrays = [memory.view(place, 100) for place in places]
    os.pwrite(memory.descriptor, b"a" * 100, places[0])
    part = arrays[0][10:20].reshape(2, 5)
    with pytest.raises(SourceError, match="earlier ones are still in use"):
        memory.place_for(100, 0.01)
    del arrays[0]
    with pytest.raises(SourceError, match="earlier ones are still in use"):
        memory.place_for(100, 0.01)
    assert part.tobytes() == b"a" * 10
    del part
    assert memory.place_for(100, 0.01) == places[0]
    memory.close()


def test_pictures_stay_whole_when_larger_ones_come_and_when_the_memory_is_closed() -> None:
    memory = SharedPictures(2, 1_000_000)
    place = memory.place_for(100, 0.01)
    os.pwrite(memory.descriptor, b"a" * 100, place)
    small = memory.view(place, 100)
    place = memory.place_for(50_000, 0.01)
    os.pwrite(memory.descriptor, b"b" * 50_000, place)
    large = memory.view(place, 50_000)
    memory.close()
    assert (small.tobytes(), large.tobytes()) == (b"a" * 100, b"b" * 50_000)
    assert not small.flags.writeable


def test_who_writes_the_memory_can_neither_shrink_it_nor_fill_the_machine() -> None:
    memory = SharedPictures(2, 1_000_000)
    memory.place_for(100, 0.01)
    with pytest.raises(PermissionError):
        os.ftruncate(memory.descriptor, 0)
    with pytest.raises(SourceError, match="max_megapixels"):
        memory.place_for(600_000, 0.01)
    memory.close()
