"""The connection to a shared gallery, and who else uses it: the workers that follow it, whoever restores it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from pydantic import SecretStr, ValidationError
from redis.exceptions import RedisError

from worker.config import RedisConfig
from worker.errors import ConfigError, GalleryUnavailableError, SinkError
from worker.gallery.address import GalleryAddress, parse_gallery_url
from worker.gallery.shared.scripts import ACKNOWLEDGE, KEY_NAMES, LEAVE, RELEASE, WORKERS, pairs
from worker.redaction import redact
from worker.redis.client import Client, connect, find_servers_again, longest_block_s
from worker.redis.keys import gallery_key

FORGET_WORKER_MS: Final = 24 * 3600 * 1000
_RESTORING_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Follower:
    """A worker that follows the gallery: the version it searches, and since when it has been silent."""

    worker_id: str
    version: int
    silent_s: float


class GalleryRedis:
    """The keys of the shared gallery called ``address.name``.

    All methods that ask Redis raise GalleryUnavailableError where it does not answer or refuses.
    """

    def __init__(self, client: Client, address: GalleryAddress, longest_block_s: float = 1.0) -> None:
        self.label = address.label
        self.name = address.name
        self._client: Any = client
        self.longest_block_s = longest_block_s
        self._keys = [self._key(name) for name in KEY_NAMES]
        self._meta, self._people, self._samples, self._vectors, self._changes, self._removed = self._keys
        self._following = [self._key("workers"), self._key("acknowledged")]

    @classmethod
    def connect(cls, url: str, redis: RedisConfig | None = None) -> Self:
        """The gallery at ``url``; ``redis`` says the rest about the connection.

        Raises:
            ConfigError: the URL is none of Redis.
            GalleryError: Redis cannot be reached or used.
        """
        address = parse_gallery_url(url)
        changes = gallery_key(address.name, "changes")
        known = (redis or RedisConfig()).model_dump() | {"url": address.redis_url, "stream": changes}
        try:
            config = RedisConfig.model_validate(known)
            return cls(connect(config, read_only=True), address, longest_block_s(config))
        except ValidationError as error:
            problem = redact(error.errors(include_input=False)[0]["msg"].removeprefix("Value error, "))
            raise ConfigError(f"gallery {address.label}: {problem}") from None
        except SinkError as error:
            raise GalleryUnavailableError(f"gallery {address.label}: {error}") from None

    def beside(self, name: str) -> Self:
        """The gallery whose name is this one's with ``.name`` behind, over the same connections."""
        address = GalleryAddress(SecretStr(""), f"{self.name}.{name}", f"{self.label} ({name})")
        return type(self)(self._client, address, self.longest_block_s)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def claim_restoring(self, token: str) -> bool:
        """Whether the caller may write the whole gallery now: one at a time, since it may be large."""
        return bool(self._call("set", self._key("restoring"), token, nx=True, px=_RESTORING_MS))

    def end_restoring(self, token: str) -> None:
        """Lets others write the whole gallery; a claim that is not ended runs out by itself."""
        self._script(RELEASE, [self._key("restoring")], [token])

    def acknowledge(self, worker_id: str, version: int) -> None:
        """Says that ``worker_id`` is alive and searches ``version``."""
        self._script(ACKNOWLEDGE, self._following, [worker_id, version, FORGET_WORKER_MS])

    def leave(self, worker_id: str) -> None:
        """Says that ``worker_id`` follows the gallery no longer."""
        self._script(LEAVE, self._following, [worker_id])

    def followers(self) -> list[Follower]:
        """Who follows the gallery, or did within a day."""
        now, beats, acknowledged = self._script(WORKERS, self._following, [])
        versions = pairs(acknowledged)
        return [
            Follower(worker.decode(), int(versions.get(worker, b"0")), (float(now) - float(beat)) / 1000)
            for worker, beat in pairs(beats).items()
        ]

    def _key(self, name: str) -> str:
        return gallery_key(self.name, name)

    def _script(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return self._call("eval", script, len(keys), *keys, *arguments)

    def _call(self, command: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._client, command)(*arguments, **options)
        except (RedisError, OSError) as error:
            find_servers_again(self._client)  # after a fail-over the primary is another one
            # redis-py may put the failed command, with its arguments, before the reply.
            reply = " ".join(redact(str(error)).rpartition("caused error: ")[2].split())[:200] or type(error).__name__
            raise GalleryUnavailableError(
                f"gallery {self.label}: Redis cannot be used ({reply}); is it running, and may this user use the keys "
                f"{gallery_key(self.name, '*')}?"
            ) from None
