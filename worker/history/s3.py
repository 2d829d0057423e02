"""Pictures of sightings in a bucket of an S3-compatible store.

The store is not trusted: each of its answers is limited in size and time, and nothing in them is unpacked.
"""

import io
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit
from weakref import WeakSet
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.credentials import AWSConfigProvider, ChainedProvider, EnvAWSProvider, IamAwsProvider
from minio.deleteobjects import DeleteObject
from minio.error import MinioException
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from worker.config import EvidenceConfig
from worker.errors import ConfigError, SinkError
from worker.redaction import redact

_TIMEOUT_S: Final = 10
_LONGEST_S: Final = 30.0
"""A request and its answer take no longer, whatever the server does."""
_LONGEST_ANSWER: Final = 8 * 2**20
_LISTING_S: Final = 300.0
_MOST_REMOVED: Final = 100_000
_AWS: Final = "https://s3.amazonaws.com"
_ERRORS: Final = (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError, ParseError)


class _Sockets:
    """The connections of one pool, so that a watchdog can cut them."""

    def __init__(self) -> None:
        self._open: WeakSet[socket.socket] = WeakSet()

    def note(self, connection: socket.socket | None) -> None:
        if connection is not None:
            self._open.add(connection)

    def cut(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _LimitedPool(urllib3.PoolManager):
    """For one thread. Answers come whole, but not longer or later than allowed; redirects are not followed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._sockets = sockets = _Sockets()

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                sockets.note(self.sock)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                sockets.note(self.sock)

        plain = type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": Plain})
        secure = type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": Secure})
        self.pool_classes_by_scheme = {"http": plain, "https": secure}

    def urlopen(  # type: ignore[override]
        self,
        method: str,
        url: str,
        redirect: bool = True,  # noqa: ARG002 - the library's signature
        **settings: Any,
    ) -> urllib3.BaseHTTPResponse:
        settings |= {"preload_content": False, "decode_content": False}
        watchdog = threading.Timer(_LONGEST_S, self._sockets.cut)
        watchdog.daemon = True
        watchdog.start()
        try:
            answer = super().urlopen(method, url, redirect=False, **settings)
            body = answer.read(_LONGEST_ANSWER + 1, decode_content=False)
        finally:
            watchdog.cancel()
        if len(body) > _LONGEST_ANSWER:
            answer.close()
            raise urllib3.exceptions.ProtocolError(f"the answer is longer than {_LONGEST_ANSWER} bytes")
        answer.release_conn()
        return urllib3.HTTPResponse(
            io.BytesIO(body),
            answer.headers,
            answer.status,
            reason=answer.reason,
            preload_content=False,
            decode_content=False,
            request_method=method,
        )


class S3Store:
    """Objects below ``s3://BUCKET/PREFIX``.

    Credentials are found as the AWS tools find them: in the environment, in the AWS configuration, or from the role of
    the machine.
    """

    def __init__(self, address: str, config: EvidenceConfig, suffixes: tuple[str, ...]) -> None:
        """Prunes only what ends with one of ``suffixes``."""
        self._suffixes = suffixes
        parts = urlsplit(address)
        endpoint = urlsplit(config.s3_endpoint or _AWS)
        if not parts.netloc or "@" in parts.netloc:
            raise ConfigError("evidence.store: write s3://BUCKET or s3://BUCKET/PREFIX, without credentials")
        if endpoint.scheme not in {"http", "https"} or not endpoint.netloc or "@" in endpoint.netloc:
            raise ConfigError("evidence.s3_endpoint: write https://HOST or http://HOST:PORT, without credentials")
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        try:
            self._client: Any = Minio(
                endpoint=endpoint.netloc,
                secure=endpoint.scheme == "https",
                credentials=ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider()]),
                http_client=_LimitedPool(timeout=_TIMEOUT_S, retries=urllib3.Retry(total=1)),
            )
            there = self._client.bucket_exists(bucket_name=self._bucket)
        except _ERRORS as error:
            raise self._failed(error) from None
        if not there:
            raise self._failed("there is no such bucket, or these credentials may not use it")

    def put(self, path: str, content: bytes) -> None:
        try:
            self._client.put_object(
                bucket_name=self._bucket,
                object_name=self._key(path),
                data=io.BytesIO(content),
                length=len(content),
                content_type="image/jpeg",
            )
        except _ERRORS as error:
            raise self._failed(error) from None

    def get(self, path: str) -> bytes | None:
        try:
            # Not every server answers a get in the form in which the library reads that nothing is there.
            self._client.stat_object(bucket_name=self._bucket, object_name=self._key(path))
            with self._client.get_object(bucket_name=self._bucket, object_name=self._key(path)) as answer:
                return bytes(answer.read())
        except _ERRORS as error:
            if getattr(error, "code", "") == "NoSuchKey":
                return None
            raise self._failed(error) from None

    def remove(self, paths: Sequence[str]) -> int:
        there = [self._key(path) for path in paths if self.get(path) is not None]
        try:
            gone = [DeleteObject(key) for key in there]
            for refused in self._client.remove_objects(bucket_name=self._bucket, delete_object_list=gone):
                raise self._failed(f"{refused.object_name} cannot be removed: {refused.message}")
        except _ERRORS as error:
            raise self._failed(error) from None
        return len(there)

    def prune(self, before: float) -> int:
        try:
            found = self._client.list_objects(bucket_name=self._bucket, prefix=self._key(""), recursive=True)
            old = []
            due_s = time.monotonic() + _LISTING_S
            for one in found:
                if (
                    one.object_name.endswith(self._suffixes)
                    and one.last_modified
                    and one.last_modified.timestamp() < before
                ):
                    old.append(DeleteObject(one.object_name))
                if len(old) >= _MOST_REMOVED or time.monotonic() > due_s:
                    break  # the others go the next time; a server may list without end
            for refused in self._client.remove_objects(bucket_name=self._bucket, delete_object_list=old):
                raise self._failed(f"{refused.object_name} cannot be removed: {refused.message}")
        except _ERRORS as error:
            raise self._failed(error) from None
        return len(old)

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def _failed(self, error: Exception | str) -> SinkError:
        where = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        return SinkError(
            f"evidence.store {where} cannot be used: {redact(str(error))}; check the bucket, the credentials of the "
            "environment (as for the AWS tools), and evidence.s3_endpoint"
        )
