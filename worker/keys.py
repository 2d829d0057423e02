"""Every Redis key that facestream touches.

| key | type | owner | life |
|---|---|---|---|
| ``facestream:events`` (``redis.stream``) | stream | written by every worker, read by consumers and ``tail`` | \
trimmed to about ``redis.max_events`` entries by each write; never deleted |

A stream whose name holds ``{camera_id}`` is one stream for each camera: one key is one shard of a cluster, so
this is how the events of many cameras are spread.

What a fleet shares lies under its name as hash tag (``{facestream}:...``), so that one script may touch all of it;
what belongs to a stream lies beside that stream, in its slot.
"""

from typing import Final

CAMERA_PLACEHOLDER: Final = "{camera_id}"


def event_stream(stream: str, camera_id: str) -> str:
    """The key of the stream for the events of ``camera_id``; ``stream`` is ``redis.stream`` as configured."""
    return stream.replace(CAMERA_PLACEHOLDER, camera_id)


def beside(stream_key: str, name: str) -> str:
    """A key in the slot of ``stream_key``: a key without a hash tag is hashed whole, so its name serves as the tag."""
    return f"{stream_key}:{name}" if "{" in stream_key else f"{{{stream_key}}}:{name}"


def fleet_key(fleet: str, name: str) -> str:
    """The key ``name`` of the fleet called ``fleet``; all keys of one fleet lie in one slot."""
    return f"{{{fleet}}}:{name}"


def gallery_key(gallery: str, name: str) -> str:
    """The key ``name`` of the shared gallery called ``gallery``; all keys of one gallery lie in one slot."""
    return f"{{facestream:gallery:{gallery}}}:{name}"
