"""What it would cost to decode photos and video files in a process of its own, as live cameras are.

    python -m tests.bench.files_apart --photos FOLDER [--reading] --clip CLIP [--models-dir DIR] [--rounds 3]

Photos are enrolled twice: read in the process itself, and by a child that writes the pixels to memory that both share,
with a limit of its own. The clip is read by a worker with ``decoding.processes`` ``live`` and ``all``. Both ways take
turns. Processor time is that of the process and all that it has started, from the start of the child to its end.
"""

import argparse
import os
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from worker.errors import SourceError
from worker.types import Image
from worker.video.photos import list_photos, read_photo

REPLY = struct.Struct("=qqq")
CHILD_BYTES = 1_500_000_000


class Child:
    """A process that decodes photos until it is let go."""

    def __init__(self) -> None:
        self._link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._memory = os.memfd_create("photo")
        command = [sys.executable, "-m", "tests.bench.files_apart", "--child", str(other.fileno()), str(self._memory)]
        self._process = subprocess.Popen(command, pass_fds=[other.fileno(), self._memory])
        other.close()

    def read(self, path: Path | str) -> Image:
        with Path(path).open("rb") as file:
            socket.send_fds(self._link, [b"read"], [file.fileno()])
        reply = self._link.recv(8192)
        refused, height, width = REPLY.unpack_from(reply)
        if refused:
            raise SourceError(reply[REPLY.size :].decode())
        image = np.empty((height, width, 3), np.uint8)
        flat, done = image.reshape(-1).data, 0
        while done < len(flat):
            done += os.preadv(self._memory, [flat[done:]], done)
        return image

    def close(self) -> None:
        self._link.close()
        self._process.wait()
        os.close(self._memory)


def decode(link: socket.socket, memory: int) -> None:
    """What the child does."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + CHILD_BYTES,) * 2)
    while True:
        asked, descriptors, _, _ = socket.recv_fds(link, 8, 1)
        if not asked:
            return
        try:
            image = read_photo(f"/proc/self/fd/{descriptors[0]}")
            flat, done = image.reshape(-1).data, 0
            while done < len(flat):
                done += os.pwrite(memory, flat[done:], done)
            link.send(REPLY.pack(0, *image.shape[:2]))
        except SourceError as error:
            link.send(REPLY.pack(1, 0, 0) + str(error).encode())
        os.close(descriptors[0])


def cpu_s() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def measured(what: str, ways: Mapping[str, Callable[[], object]], rounds: int) -> None:
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            found[name].append(used(ways[name]))
    (here, here_s), (apart, apart_s) = ((name, statistics.median(times)) for name, times in found.items())
    cost = f"{here} {here_s:.2f} s, {apart} {apart_s:.2f} s of processor time, {apart_s / here_s - 1:+.0%}"
    sys.stdout.write(f"{what}: {cost}\n")


def used(action: Callable[[], object]) -> float:
    before_s = cpu_s()
    action()
    return cpu_s() - before_s


def reading(folder: Path, rounds: int) -> None:
    """What the start of the child costs, and then each photo."""
    photos = list_photos(folder)

    def apart(paths: Sequence[Path]) -> None:
        child = Child()
        for path in paths:
            child.read(path)
        child.close()

    starts, heres, aparts = [], [], []
    for _ in range(rounds):
        heres.append(used(lambda: [read_photo(path) for path in photos]) / len(photos))
        starts.append(used(lambda: apart(photos[:1])) - heres[-1])
        aparts.append((used(lambda: apart(photos)) - starts[-1]) / len(photos))
    start_s, here_s, apart_s = map(statistics.median, (starts, heres, aparts))
    each = f"then {apart_s * 1000:.2f} ms in place of {here_s * 1000:.2f} ms for each of {len(photos)} photos"
    sys.stdout.write(f"reading {folder.name} alone: the start {start_s:.2f} s, {each}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=2, type=int)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--reading", action="store_true", help="enrol nobody")
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--model", default="face-reidentification-retail-0095")
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--detector", default="yunet")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.child:
        decode(socket.socket(fileno=given.child[0]), given.child[1])
        return
    # Not above: the child would load all of it.
    from worker.config import DetectionConfig, cache_dir
    from worker.faces.detection import load_detector
    from worker.faces.embedding import load_embedder
    from worker.gallery import enrolment
    from worker.gallery.folder import FolderGallery
    from worker.redis.embedded import embedded_redis

    folders = {"models_dir": given.models_dir, "cache_dir": cache_dir()}
    if given.photos:
        reading(given.photos, given.rounds)
    if given.photos and not given.reading:
        detector = load_detector(DetectionConfig(detector=given.detector, min_face_px=40), **folders)
        embedder = load_embedder(given.model, **folders)

        def enroll(*, apart: bool) -> None:
            child = Child() if apart else None
            setattr(enrolment, "read_photo", child.read if child else read_photo)  # noqa: B010 # not meant to be another one
            with tempfile.TemporaryDirectory() as folder:
                made_with = embedder.model_id, embedder.preprocessing_digest, embedder.dimension
                gallery = FolderGallery.create(Path(folder) / "people", *made_with)
                list(enrolment.enroll_photos(given.photos, gallery, detector, embedder))
            if child:
                child.close()

        enroll(apart=False)
        ways = {"here": lambda: enroll(apart=False), "apart": lambda: enroll(apart=True)}
        measured(f"photos of {given.photos.name}", ways, given.rounds)
    if given.clip:
        with embedded_redis() as redis_url:
            command = [sys.executable, "-m", "worker", "run", "--source", str(given.clip), "--model", given.model,
                       "--redis", redis_url, "--metrics-port", "0"]  # fmt: skip
            command += ["--models-dir", str(given.models_dir)] if given.models_dir else []

            def run(processes: str) -> None:
                environment = os.environ | {"FACESTREAM_DECODING__PROCESSES": processes}
                subprocess.run(command, env=environment, check=True, capture_output=True)

            measured(given.clip.name, {"live": lambda: run("live"), "all": lambda: run("all")}, given.rounds)
    sys.stdout.write(f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores\n")


if __name__ == "__main__":
    main()
