"""Live events by server-sent events: what the stream in Redis holds, from now on or after ``Last-Event-ID``.

One thread of the process reads the stream, however many listen.
"""

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Final, cast

from fastapi import APIRouter, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from worker.api.access import Caller, Reader, SharedParts, session_of, token_of
from worker.api.parts import Parts
from worker.api.problems import Problem, responses
from worker.api.sight import sees
from worker.errors import DatabaseError, SinkError
from worker.events.codec import encode
from worker.events.consumer.tail import read_events
from worker.logs import get_logger
from worker.redis.client import connect, server_time_ms
from worker.redis.errors import told_redis_errors
from worker.types import Event

router = APIRouter(tags=["live"])

Entry = tuple[str, Event]
"""The id of an entry in the stream, and what it says."""
Told = tuple[str, str, str]
"""The id of an event, its camera, and the message about it."""

_ENTRY_ID: Final = re.compile(r"\d{1,20}-\d{1,20}")
_QUEUE: Final = 1000
"""A listener who is further behind is sent away, and comes back with the id of the last event."""
_MOST_LISTENERS: Final = 500
_BACKLOG: Final = 10_000
HEARTBEAT_S: Final = 10.0
_CHECK_S: Final = 2.0
"""So old may be what is known of a listener's rights."""
_BLOCK_S: Final = 1.0
_RETRY_S: Final = 2.0

_log = get_logger(__name__)


class Live:
    """Reads the stream while somebody listens. Made and used in the event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._listeners: set[asyncio.Queue[Told | None]] = set()
        self._stop = threading.Event()
        self._reading = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    async def listen(self) -> asyncio.Queue[Told | None]:
        """A queue that gets each event from now on, and None when the listener is to go.

        Raises:
            Problem: there are too many listeners.
            SinkError: Redis cannot be reached.
        """
        if len(self._listeners) >= _MOST_LISTENERS:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{_MOST_LISTENERS} listen already: try again later")
        if not self._reading:
            start = await run_in_threadpool(_present, self._parts)
            if not self._reading:
                self._reading = True
                loop = self._loop = asyncio.get_running_loop()
                threading.Thread(target=self._read, args=(start, loop), name="live", daemon=True).start()
        queue: asyncio.Queue[Told | None] = asyncio.Queue()
        self._listeners.add(queue)
        self._parts.metrics.follow(len(self._listeners))
        return queue

    def leave(self, queue: asyncio.Queue[Told | None]) -> None:
        """The listener has gone."""
        self._listeners.discard(queue)
        self._parts.metrics.follow(len(self._listeners))

    def close(self) -> None:
        """Sends everybody away."""
        self.closed = True
        self._stop.set()
        for queue in tuple(self._listeners):
            queue.put_nowait(None)

    def forget(self) -> None:
        """What waits for listeners may be about somebody who was erased: they are sent away, and come back with the id
        of the last event that they got. May be called from any thread, also before anybody listens."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended before the thread
                self._loop.call_soon_threadsafe(self._send_away)

    def _send_away(self) -> None:
        for queue in tuple(self._listeners):
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)

    def _tell(self, entry: Entry) -> None:
        if self._parts.is_erased(entry[1]):
            return
        self._parts.metrics.told(entry[0])
        told = entry[1].event_id, entry[1].camera_id, _message(entry)  # once, however many listen
        for queue in tuple(self._listeners):
            if queue.qsize() >= _QUEUE:
                self._listeners.discard(queue)
                self._parts.metrics.sent_away()
                queue.put_nowait(None)
            else:
                queue.put_nowait(told)

    def _read(self, start: str, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of its own, until the stop. Where it left off, it goes on."""
        stream = self._parts.config.redis.stream
        while not self._stop.is_set():
            try:
                client = connect(self._parts.config.redis, read_only=True)
                for entry in read_events(client, stream, start=start, block_s=_BLOCK_S, stop=self._stop):
                    start = entry[0]
                    with suppress(RuntimeError):  # the loop has ended before the thread
                        loop.call_soon_threadsafe(self._tell, entry)
            except SinkError as error:
                _log.warning("live events cannot be read", reason=str(error))
                self._stop.wait(_RETRY_S)


def _present(parts: Parts) -> str:
    """The id that comes before those of entries that are written from now on."""
    with told_redis_errors(parts.config.redis):
        return f"{server_time_ms(parts.redis())}-0"


def missed(parts: Parts, after: str) -> list[Entry]:
    """What came after the entry ``after``.

    Raises:
        SinkError: Redis cannot be asked.
    """
    found = []
    for entry in read_events(parts.redis(), parts.config.redis.stream, start=after, follow=False):
        found += [] if parts.is_erased(entry[1]) else [entry]
        if len(found) >= _BACKLOG:
            break
    return found


def _message(entry: Entry) -> str:
    entry_id, event = entry
    # JSON has no line breaks of its own: one line of data.
    return f"id: {entry_id}\nevent: sighting\ndata: {json.dumps(encode(event))}\n\n"


async def _messages(
    request: Request, live: Live, parts: Parts, caller: Caller, queue: asyncio.Queue[Told | None], backlog: list[Entry]
) -> AsyncIterator[str]:
    try:
        yield "retry: 1000\n\n"
        seen = set()
        for entry in backlog:
            seen.add(entry[1].event_id)
            if sees(entry[1].camera_id):
                yield _message(entry)
        checked_s = time.monotonic()
        while not live.closed:
            try:
                heard = await asyncio.wait_for(queue.get(), HEARTBEAT_S)
                if heard is None:
                    return
            except TimeoutError:
                heard = None
            # Before it is told: who may not hear it any more does not hear it, except for these seconds.
            if heard is None or time.monotonic() - checked_s > _CHECK_S:
                checked_s = time.monotonic()
                if not await run_in_threadpool(_is_still_allowed, request, parts, caller):
                    return
            if heard is None:
                yield ": here\n\n"
            # What came while the backlog was read is in both.
            elif heard[0] not in seen and sees(heard[1]):
                yield heard[2]
    finally:
        live.leave(queue)


def _is_still_allowed(request: Request, parts: Parts, caller: Caller) -> bool:
    """The same account, which sees the same cameras; otherwise the page asks again, as who it is then. Not while the
    database cannot be asked: the listener comes back, and nothing is missed."""
    with suppress(DatabaseError):
        if caller.secret:
            return session_of(parts, caller.secret) == caller
        _, _, secret = request.headers.get("Authorization", "").partition(" ")
        return token_of(parts, secret.strip()) == caller
    return False


@router.get(
    "/events",
    operation_id="follow_events",
    response_class=StreamingResponse,
    responses=responses(
        HTTPStatus.SERVICE_UNAVAILABLE, media="text/event-stream", meaning="server-sent events named 'sighting'"
    ),
)
async def follow_events(
    request: Request,
    caller: Reader,
    parts: SharedParts,
    last_event_id: Annotated[str | None, Header(description="go on after this event")] = None,
    after: Annotated[str | None, Query(description="the same, for who cannot send the header")] = None,
) -> StreamingResponse:
    """Events as they come; the data are the fields of ``facestream tail --json``. With the id of an event, what came
    after it comes first: nothing is missed."""
    live = cast(Live, request.app.state.live)
    start = last_event_id or after
    if start is not None and not _ENTRY_ID.fullmatch(start):
        raise Problem(HTTPStatus.BAD_REQUEST, "Last-Event-ID is not the id of an event")
    queue = await live.listen()
    try:
        backlog = [] if start is None else await run_in_threadpool(missed, parts, start)
    except BaseException:
        live.leave(queue)
        raise
    return StreamingResponse(
        _messages(request, live, parts, caller, queue, backlog),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
