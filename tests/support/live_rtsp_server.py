"""Cameras that play on, whoever looks. Run by the system's python3, which has the GStreamer bindings.

Usage: live_rtsp_server.py PORT CLIP APART_S PATH... ; the clip is H.264 in MP4. Every path shows it again and again,
each ``APART_S`` seconds behind the one before. A client joins at the next key frame and has a stream of its own: one
that stands still or dies holds up nobody else. Once connections are accepted, prints a line: the Unix times at which
the paths began to show the clip.
"""

import itertools
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

# Of a client that takes nothing so much is kept, then the oldest goes: half a minute of the tests' clips.
QUEUE_BYTES = 4_000_000


def access_units(clip):
    """The frames of the clip, as (bytes, whether it is a key frame), and how many make a second."""
    pipeline = Gst.parse_launch(
        f'filesrc location="{clip}" ! qtdemux ! h264parse config-interval=-1 '
        "! video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=sink sync=false"
    )
    sink = pipeline.get_by_name("sink")
    pipeline.set_state(Gst.State.PLAYING)
    units, fps = [], 0.0
    while (sample := sink.emit("pull-sample")) is not None:
        buffer = sample.get_buffer()
        _, numerator, denominator = sample.get_caps().get_structure(0).get_fraction("framerate")
        fps = numerator / denominator
        units.append((buffer.extract_dup(0, buffer.get_size()), not buffer.has_flags(Gst.BufferFlags.DELTA_UNIT)))
    pipeline.set_state(Gst.State.NULL)
    return units, fps


class Camera:
    """Pushes each frame at its time to all clients that there are."""

    def __init__(self, units, fps, began):
        self.began = began
        self._units, self._fps = units, fps
        self._lock = threading.Lock()
        self._joined = {}  # each client's source: whether it has had a key frame
        self.factory = GstRtspServer.RTSPMediaFactory()
        self.factory.set_launch(
            f"( appsrc name=frames is-live=true format=time do-timestamp=true leaky-type=downstream "
            f"max-bytes={QUEUE_BYTES} caps=video/x-h264,stream-format=byte-stream,alignment=au "
            "! h264parse ! rtph264pay name=pay0 config-interval=1 )"
        )
        self.factory.connect("media-configure", self._join)

    def _join(self, _factory, media):
        source = media.get_element().get_by_name("frames")
        with self._lock:
            self._joined[source] = False
        media.connect("unprepared", self._leave, source)

    def _leave(self, _media, source):
        with self._lock:
            self._joined.pop(source, None)

    def play(self):
        for number in itertools.count():
            frame, key = self._units[number % len(self._units)]
            time.sleep(max(self.began + number / self._fps - time.time(), 0.0))
            with self._lock:
                if key:
                    self._joined = dict.fromkeys(self._joined, True)
                clients = [source for source, ready in self._joined.items() if ready]
            for source in clients:
                source.emit("push-buffer", Gst.Buffer.new_wrapped(frame))


def main(port, clip, apart_s, paths):
    Gst.init(None)
    units, fps = access_units(clip)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    now = time.time()
    # All of them in the past: nobody waits for a camera that does not play yet.
    cameras = [Camera(units, fps, now - number * float(apart_s)) for number in reversed(range(len(paths)))]
    for path, camera in zip(paths, cameras, strict=True):
        server.get_mount_points().add_factory(path, camera.factory)
        threading.Thread(target=camera.play, daemon=True).start()
    if not server.attach(None):
        sys.exit(f"port {port} is taken")
    sys.stdout.write(" ".join(str(camera.began) for camera in cameras) + "\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4:])
