"""An RTSP server that plays a clip as any number of cameras.

The python3 of the system runs it, because only that one has the bindings of GStreamer. It imports nothing of this
package.

Usage: rtsp_server.py PORT CLIP CAMERAS. The clip is H.264 in MP4, and camera ``n`` is at ``/n`` (from 1). The server
prints ``ready`` when it accepts connections. It decodes and encodes nothing.
"""

import sys

import gi  # type: ignore[import-not-found]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402


def main(port: str, clip: str, cameras: int) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    for number in range(1, cameras + 1):
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(
            f'( filesrc location="{clip}" ! qtdemux ! h264parse ! rtph264pay name=pay0 config-interval=1 )'
        )
        server.get_mount_points().add_factory(f"/{number}", factory)
    if not server.attach(None):
        sys.exit(f"port {port} is taken")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
