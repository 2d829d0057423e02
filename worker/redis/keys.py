"""Every Redis key that facestream touches.

| key | type | owner | life |
|---|---|---|---|
| ``facestream:events`` (``redis.stream``) | stream | written by every worker, read by consumers and ``tail`` | \
trimmed to about ``redis.max_events`` entries by each write; never deleted |
| ``fence`` beside each stream | hash: camera to epoch | raised by the worker that begins to own a camera, and by \
each event of a fleet | never deleted; rises again from the events where Redis was emptied |
| ``handled:GROUP`` beside each stream | sorted set: event_id by the time of its entry, ms | what a consumer group \
has finished, so that a repeat is known | forgets after ``remember_s``, and expires that long after the last one |
| ``claims:GROUP`` beside each stream | hash: event_id to entry id | which entry an event is being handled under | \
removed with the acknowledgement; expires like ``handled`` |
| ``epochs:GROUP`` beside each stream | sorted set: camera and epoch | the epochs that a group has seen | the latest \
16 of a camera; expires like ``handled`` |
| ``dead:GROUP`` beside each stream | stream | events that a group could not handle, with the reason | trimmed to \
about 10,000 entries |
| ``sightings:CAMERA`` of a fleet | hash: epoch, state | written by the owner of the camera, read by the next one | \
a few minutes after the last write |
| ``{FLEET}:cameras``, ``:revisions``, ``:paused`` | hashes, set | ``facestream camera``; workers seed them where \
Redis lost them | until the camera is removed; its revision stays as a tombstone for a week |
| ``{FLEET}:changes``, ``:removed`` | sorted sets: camera to number of its last change, to time of removal | the \
same | the same |
| ``{FLEET}:epochs`` | hash: camera to epoch and owner | the script that claims and releases | never deleted |
| ``{FLEET}:leases``, ``:free`` | sorted sets: camera to end of its lease, to since when it waits | beats of the \
workers | while it is owned, while it is not |
| ``{FLEET}:workers``, ``:standings`` | sorted set, hash: worker to end of its life, to what it can take and gives up \
| the worker's beats | a lease's length after its last beat |
| ``{FLEET}:state`` | hash: incarnation, times, sums over the workers | every script of the fleet | never deleted |

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


def group_key(stream_key: str, what: str, group: str) -> str:
    """The key of what a consumer group remembers (``handled``, ``claims``, ``epochs``, ``dead``) about a stream."""
    return beside(stream_key, f"{what}:{group}")


FLEET_KEYS: Final = (
    "state", "workers", "standings", "epochs", "leases", "free", "cameras", "revisions", "paused", "changes", "removed",
)  # fmt: skip


def fleet_keys(fleet: str) -> list[str]:
    """The keys of a fleet's leases and cameras, in the order in which its scripts expect them."""
    return [fleet_key(fleet, name) for name in FLEET_KEYS]
