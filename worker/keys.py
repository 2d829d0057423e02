"""Every Redis key that facestream touches.

| key | type | owner | life |
|---|---|---|---|
| ``facestream:events`` (``redis.stream``) | stream | written by every worker, read by consumers and ``tail`` | \
trimmed to about ``redis.max_events`` entries by each write; never deleted |

A stream whose name holds ``{camera_id}`` is one stream for each camera: one key is one shard of a cluster, so
this is how the events of many cameras are spread.
"""

from typing import Final

CAMERA_PLACEHOLDER: Final = "{camera_id}"


def event_stream(stream: str, camera_id: str) -> str:
    """The key of the stream for the events of ``camera_id``; ``stream`` is ``redis.stream`` as configured."""
    return stream.replace(CAMERA_PLACEHOLDER, camera_id)
