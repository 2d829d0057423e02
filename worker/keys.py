"""Every Redis key that facestream touches.

| key | type | owner | life |
|---|---|---|---|
| ``facestream:events`` (``redis.stream``) | stream | written by every worker, read by consumers and ``tail`` | \
trimmed to about ``redis.max_events`` entries by each write; never deleted |
| ``fence`` beside each stream | hash: camera to epoch | raised by who begins to own a camera, and by each event of a \
fleet | never deleted; rises again from the events where Redis was emptied |
| ``sightings:CAMERA`` of a fleet | hash: epoch, state | written by the owner of the camera, read by the next one | \
a few minutes after the last write |

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
    """A key in the slot of ``stream_key``, which has a hash tag, or is hashed whole and so can serve as the tag.

    A key that has a closing brace and yet no tag (``a}b``, ``a{}``) is alone in its slot: what is beside it cannot be
    used on a cluster.
    """
    return f"{stream_key}:{name}" if "}" in stream_key else f"{{{stream_key}}}:{name}"


def fleet_key(fleet: str, name: str) -> str:
    """The key ``name`` of the fleet called ``fleet``; all keys of one fleet lie in one slot."""
    return f"{{{fleet}}}:{name}"


def gallery_key(gallery: str, name: str) -> str:
    """The key ``name`` of the shared gallery called ``gallery``; all keys of one gallery lie in one slot."""
    return f"{{facestream:gallery:{gallery}}}:{name}"
