"""Where pictures of sightings are kept: a folder, or a bucket of an S3-compatible store."""

import io
import os
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from worker.config import EvidenceConfig
from worker.errors import ConfigError, SinkError
from worker.files import private_folder, replace_file
from worker.redaction import redact

_SUFFIXES: Final = (".face.jpg", ".frame.jpg")
_TIMEOUT_S: Final = 10
_AWS: Final = "https://s3.amazonaws.com"


class EvidenceStore(Protocol):
    """Keeps small files by their path, such as ``lobby/2026-01-31/NAME.face.jpg``."""

    def put(self, path: str, content: bytes) -> None:
        """Writes or replaces one.

        Raises:
            SinkError: it is not written.
        """

    def prune(self, before: float) -> int:
        """Removes those last written before this Unix time, and nothing else; returns how many.

        Raises:
            SinkError: not all could be removed.
        """


def open_store(config: EvidenceConfig) -> EvidenceStore:
    """The store that ``config.store`` names; it was checked that it can be written.

    Raises:
        ConfigError: it does not name a store, or the library for it is not installed.
        SinkError: it cannot be written.
    """
    text = str(config.store)
    if not text.startswith("s3://"):
        return FolderStore(Path(text))
    return S3Store(text, config)


class FolderStore:
    """A folder that only this user may read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            # Cameras' folders; where there is anything else, other users may need what is there.
            private_folder(folder, ours=lambda name: (folder / name).is_dir())
        except OSError as error:
            raise self._unwritable(error) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SinkError(f"evidence.store {folder} cannot be written; check its permissions")

    def put(self, path: str, content: bytes) -> None:
        target = self._folder / path
        try:
            for folder in (target.parent.parent, target.parent):
                private_folder(folder)
            replace_file(target, content)
        except OSError as error:
            raise self._unwritable(error) from None

    def prune(self, before: float) -> int:
        removed = 0
        try:
            for path in self._folder.glob("*/*/*.jpg"):
                if path.name.endswith(_SUFFIXES) and path.stat().st_mtime < before:
                    path.unlink(missing_ok=True)
                    removed += 1
            for folder in [*self._folder.glob("*/*"), *self._folder.glob("*")]:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        except OSError as error:
            raise self._unwritable(error) from None
        return removed

    def _unwritable(self, error: OSError) -> SinkError:
        reason = error.strerror or error
        return SinkError(f"evidence.store {self._folder} cannot be written: {reason}; check permissions and space")


class S3Store:
    """Objects below ``s3://BUCKET/PREFIX``.

    Credentials are found as the AWS tools find them: in the environment, in the AWS configuration, or from the role of
    the machine.
    """

    def __init__(self, address: str, config: EvidenceConfig) -> None:
        try:
            import urllib3
            from minio import Minio
            from minio.credentials import AWSConfigProvider, ChainedProvider, EnvAWSProvider, IamAwsProvider
            from minio.deleteobjects import DeleteObject
            from minio.error import MinioException
        except ImportError:
            raise ConfigError(
                "evidence.store: an S3 store needs the extra 's3': pip install 'facestream[s3]'"
            ) from None
        parts = urlsplit(address)
        endpoint = urlsplit(config.s3_endpoint or _AWS)
        if not parts.netloc:
            raise ConfigError("evidence.store: write s3://BUCKET or s3://BUCKET/PREFIX")
        if endpoint.scheme not in {"http", "https"} or not endpoint.netloc:
            raise ConfigError("evidence.s3_endpoint: write https://HOST or http://HOST:PORT")
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        self._errors = (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError)
        self._delete: Any = DeleteObject
        pool = urllib3.PoolManager(timeout=_TIMEOUT_S, retries=urllib3.Retry(total=1, redirect=False))
        try:
            self._client: Any = Minio(
                endpoint=endpoint.netloc,
                secure=endpoint.scheme == "https",
                credentials=ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider()]),
                http_client=pool,
            )
            there = self._client.bucket_exists(bucket_name=self._bucket)
        except self._errors as error:
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
        except self._errors as error:
            raise self._failed(error) from None

    def prune(self, before: float) -> int:
        try:
            found = self._client.list_objects(bucket_name=self._bucket, prefix=self._key(""), recursive=True)
            old = [
                self._delete(one.object_name)
                for one in found
                if one.object_name.endswith(_SUFFIXES) and one.last_modified.timestamp() < before
            ]
            for refused in self._client.remove_objects(bucket_name=self._bucket, delete_object_list=old):
                raise self._failed(f"{refused.object_name} cannot be removed: {refused.message}")
        except self._errors as error:
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
