"""The sections of a configuration: every field with its limits, its default and what it means."""

import re
from datetime import datetime
from fractions import Fraction as Ratio
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from worker.config.paths import PathText, UrlText, UserPath, expand_user, tidy_url
from worker.errors import ConfigError
from worker.hosts import HostPolicy, Range

DEFAULT_MODEL_ID: Final = "vggface2-resnet50"
ENGINE_NAMES = Literal["auto", "openvino", "keras", "tensorflow", "jax", "torch", "onnx", "dlib"]
_REDIS_SCHEMES: Final = (
    "redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://", "redis+cluster://",
    "rediss+cluster://",
)  # fmt: skip
DETECTOR_NAMES = Literal["mtcnn", "yunet", "dlib-hog"]
_SHORTEST_TOKEN: Final = 16
_BASE: Final = 60
"""In which YAML 1.1 reads numbers with colons."""
_CAMERA_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Days = Annotated[float, Field(gt=0, le=3650)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _read_pixel_aspect(value: Any) -> Any:
    """``2:1``, ``12/11`` or ``1.09`` as text W:H in lowest terms."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    if isinstance(value, int) and value >= _BASE:
        # YAML takes 12:11 without quotes for hours and minutes.
        value = f"{value // _BASE}:{value % _BASE}"
    try:
        width, _, height = str(value).strip().replace("/", ":").partition(":")
        aspect = (Ratio(width.strip()) / Ratio(height.strip() or 1)).limit_denominator(1000)
    except (ValueError, ZeroDivisionError):
        aspect = None
    if aspect is None or not Ratio(1, 4) <= aspect <= 4:
        raise ValueError("write the width of a pixel by its height, such as '12:11', between 1:4 and 4:1")
    return f"{aspect.numerator}:{aspect.denominator}"


PixelAspect = Annotated[str, BeforeValidator(_read_pixel_aspect)]
Outline = Annotated[tuple[tuple[Fraction, Fraction], ...], Field(min_length=3, max_length=64)]
"""Corners of an area of the picture, as shares of its width and height."""
ZoneName = Annotated[str, Field(pattern=r"^[^\s,:\x00-\x1f\x7f][^,:\x00-\x1f\x7f]{0,39}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CameraConfig(_Section):
    """One camera: where its frames come from, and how long to wait for them."""

    id: str = Field(description="name of the camera: letters, digits, '.', '_' and '-'")
    source: SecretStr = Field(
        description="rtsp://, rtsps://, http:// or https:// URL, video file, folder of images, or device index"
    )
    policy: Literal["auto", "newest", "every"] = Field(
        "auto",
        description="'newest' drops frames that the worker is too late for; 'every' drops and passes over no frame; "
        "'auto' is 'newest' for live sources and 'every' for folders; of files it drops nothing, but passes over "
        "frames that tell nothing new",
    )
    transport: Literal["tcp", "udp"] = Field("tcp", description="RTSP transport")
    decode_on: Literal["processor", "gpu"] = Field(
        "processor",
        description="what decodes the video; 'gpu' is an NVIDIA GPU, and never the processor in its place",
    )
    open_timeout_s: Seconds = Field(10.0, description="give up opening the source after this long")
    read_timeout_s: Seconds = Field(5.0, description="a live source that sends no frame for this long is reopened")
    reconnect_initial_s: Seconds = Field(0.5, description="first pause before a live source is reopened")
    reconnect_max_s: Seconds = Field(30.0, description="longest pause between two tries")
    start_time: datetime | None = Field(
        None, description="UTC time of the first frame of a file; default: from the file's own date"
    )
    threshold: Fraction | None = Field(None, description="cosine threshold of this camera; default: the gallery's")
    rotate: Literal[0, 90, 180, 270] = Field(
        0, description="turn the picture clockwise by this many degrees, after what the stream itself says"
    )
    flip: Literal["none", "horizontal", "vertical"] = Field(
        "none", description="mirror the picture after it was turned: left to right, or top to bottom"
    )
    pixel_aspect: PixelAspect | None = Field(
        None,
        description="width of a pixel by its height, such as '12:11'; for recorders that do not say it, or say it "
        "wrong; default: what the stream says",
    )
    snapshot_interval_s: float = Field(
        1.0, gt=0, le=3600, description="an http:// address of a single picture is asked for the next one this often"
    )
    max_megapixels: float = Field(
        36.0, gt=0, le=1000, description="larger pictures are refused, not decoded; 36 is more than 8K"
    )
    max_picture_mb: float = Field(
        32.0,
        gt=0,
        le=2000,
        description="most megabytes that an http:// or https:// source may send for one picture; a source that sends "
        "more is opened again",
    )
    masks: Annotated[tuple[Outline, ...], Field(max_length=32)] = Field(
        (),
        description="areas of the picture, each a list of corners [x, y] from 0 to 1, in which no face counts, such as "
        "a poster or the street",
    )
    zones: Annotated[dict[ZoneName, Outline], Field(max_length=32)] = Field(
        {}, description="areas by name; events name those in which the person was seen"
    )
    password_file: UserPath | None = Field(
        None, description="file that holds the password of the user in the source's URL, such as a mounted secret"
    )

    @model_validator(mode="before")
    @classmethod
    def _password_from_its_file(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or not fields.get("password_file"):
            return fields
        source, file = tidy_url(str(fields.get("source", ""))), expand_user(Path(str(fields["password_file"])))
        match = re.fullmatch(r"([a-z]+://)([^/@:]+)@(.+)", source)
        if match is None:
            raise ValueError("password_file needs a source with a user and no password: rtsp://user@host/...")
        try:
            password = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            raise ValueError(f"password_file {file} cannot be read") from None
        scheme, user, rest = match.groups()
        return {**fields, "source": f"{scheme}{user}:{quote(password, safe='')}@{rest}"}

    @property
    def max_pixels(self) -> int:
        return int(self.max_megapixels * 1_000_000)

    @property
    def max_picture_bytes(self) -> int:
        return int(self.max_picture_mb * 1_000_000)

    @field_validator("rotate", mode="before")
    @classmethod
    def _degrees_are_a_number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.strip().isdecimal() else value

    @field_validator("id")
    @classmethod
    def _id_is_plain(cls, value: str) -> str:
        if not _CAMERA_ID.fullmatch(value):
            raise ValueError("use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit")
        return value

    @field_validator("source", mode="before")
    @classmethod
    def _source_is_text(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return tidy_url(value) if isinstance(value, str) else value


class DetectionConfig(_Section):
    """Face detection."""

    detector: DETECTOR_NAMES = Field(
        "mtcnn", description="what finds faces: 'mtcnn', 'yunet' (OpenCV's) or 'dlib-hog'; see docs/detectors.md"
    )
    min_face_px: int = Field(40, ge=12, le=2000, description="smallest face to look for, px of the source frame")
    score_threshold: Fraction = Field(0.9, description="faces below this detection score start no track")
    max_side_px: int = Field(2400, ge=64, description="larger pictures are scaled down to this before detection")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="arithmetic of MTCNN; 'auto' takes bf16 where the processor has it, fp16 on a GPU"
    )
    interval_s: float = Field(
        0.08,
        ge=0,
        le=10,
        description="pause between two searches for faces while somebody is undecided; 0: every frame",
    )
    settled_interval_s: float = Field(
        0.16, ge=0, le=10, description="pause between two searches while everybody is settled, or nobody is there"
    )
    search_interval_s: float = Field(
        0.24,
        ge=0,
        le=10,
        description="pause between two searches of the whole picture while somebody is there; looks in between go "
        "where faces are expected; 0: every look is a search",
    )
    motion_gate: bool = Field(True, description="search again only where the picture has changed")
    unmoved_interval_s: float = Field(
        1.0, ge=0, le=60, description="even an unchanged picture is searched again after this long"
    )


class TrackingConfig(_Section):
    """Joining the faces of successive frames."""

    max_lost_s: Seconds = Field(1.0, description="a track not seen for this long is given up")
    min_hits: int = Field(2, ge=1, description="detections before a track counts as a person")
    iou_threshold: Fraction = Field(0.2, description="smallest overlap with the predicted box to continue a track")


class RecognitionConfig(_Section):
    """From embeddings of a track to a verdict."""

    threshold: Fraction | None = Field(
        None, description="cosine from which a person is named; default: the gallery's, else the model's"
    )
    margin: Fraction = Field(0.03, description="how much nearer the best person must be than the next one")
    hysteresis: Fraction = Field(0.03, description="a name is withdrawn only this far below the threshold")
    min_embeddings: int = Field(2, ge=1, description="faces of a track that must be embedded before a verdict")
    max_embeddings: int = Field(8, ge=1, description="good faces after which a settled track is left alone")
    min_quality: Fraction = Field(0.2, description="faces below this quality are not embedded")
    verdict_timeout_s: Seconds = Field(2.0, description="an undecided track is reported as unknown after this long")
    linger_s: Seconds = Field(
        10.0, description="a person who returns to the camera within this time continues the same sighting"
    )
    batch_size: int = Field(32, ge=1, le=256, description="most faces embedded at once")


class BatchingConfig(_Section):
    """How frames of several cameras are gathered."""

    max_frames: int = Field(8, ge=1, le=64, description="most frames in a batch")
    max_wait_s: Seconds = Field(0.02, description="how long a batch waits for further cameras")
    stale_after_s: Seconds = Field(2.0, description="live frames older than this are dropped")
    queue_frames: int = Field(4, ge=1, le=256, description="frames buffered for a camera whose every frame counts")


class HistoryConfig(_Section):
    """The record of sightings that have ended, for ``search``, ``explain`` and ``unknown``."""

    enabled: bool = Field(True, description="remember past sightings: times, verdicts and templates, no pixels")
    keep_days: Days = Field(7.0, description="how long a sighting is remembered after it was recorded")


class EvidenceConfig(_Section):
    """Pictures of sightings, for people to look at. None are kept unless a store is named."""

    store: PathText | None = Field(
        None, min_length=1, description="folder, or s3://BUCKET/PREFIX, for the best picture of each sighting"
    )
    s3_endpoint: UrlText | None = Field(None, description="URL of an S3-compatible server; default: AWS")
    of: Literal["all", "known", "unknown"] = Field("all", description="whose pictures are kept")
    frames: bool = Field(True, description="keep the whole frame beside the face")
    keep_days: Days = Field(7.0, description="pictures older than this are removed")
    jpeg_quality: int = Field(85, ge=30, le=100, description="quality of the JPEGs")


class UnknownsConfig(_Section):
    """People who are not enrolled, and are still told apart."""

    enabled: bool = Field(True, description="give unknown people an id that stays across sightings and cameras")
    remember_days: Days = Field(7.0, description="how long after their last sighting an unknown person keeps the id")
    threshold: Fraction | None = Field(
        None, description="cosine from which two sightings are one unknown person; default: that of naming people"
    )
    max_people: int = Field(
        5_000,
        ge=1,
        le=100_000,
        description="most unknown people remembered; beyond it, the one who was not seen for longest is forgotten",
    )


class RedisConfig(_Section):
    """Where events go."""

    url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"),
        description="redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// URL",
    )
    password: SecretStr | None = Field(None, description="password, if it should not stand in the URL")
    password_file: UserPath | None = Field(None, description="file that holds that password; password takes precedence")
    sentinel_username: str | None = Field(None, description="user at the Sentinels, which have logins of their own")
    sentinel_password: SecretStr | None = Field(None, description="password at the Sentinels")
    sentinel_password_file: UserPath | None = Field(None, description="file that holds that password")
    ca_file: UserPath | None = Field(None, description="certificates of the CA to trust (TLS); default: the system's")
    cert_file: UserPath | None = Field(None, description="certificate to show to Redis (TLS)")
    key_file: UserPath | None = Field(None, description="private key of cert_file")
    stream: str = Field("facestream:events", min_length=1, description="key of the event stream")
    max_events: int = Field(100_000, ge=1, description="approximate length to which the stream is trimmed")
    timeout_s: Seconds = Field(5.0, description="connect and reply timeout")
    buffer_events: int = Field(
        10_000, ge=1, description="most events that wait in memory, if the outbox has no file or cannot write it"
    )
    flush_timeout_s: Seconds = Field(10.0, description="how long a stop waits for buffered events to be delivered")

    @field_validator("url", mode="before")
    @classmethod
    def _url_is_tidy(cls, value: Any) -> Any:
        return tidy_url(value) if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _url_is_of_redis(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(_REDIS_SCHEMES):
            raise ValueError(
                "not a Redis URL; write redis://host:6379/0, rediss://..., unix:///path, "
                "redis+sentinel://host:26379/SERVICE/0 or redis+cluster://host:6379"
            )
        return value

    def read_password(self) -> str | None:
        """The password that is given beside the URL; None without one.

        Raises:
            ConfigError: its file cannot be read.
        """
        return _read_secret("redis.password_file", self.password, self.password_file)

    def read_sentinel_password(self) -> str | None:
        """The password for the Sentinels; None without one.

        Raises:
            ConfigError: its file cannot be read.
        """
        return _read_secret("redis.sentinel_password_file", self.sentinel_password, self.sentinel_password_file)


class OutboxConfig(_Section):
    """Where events wait while Redis is away: a file in ``state_dir``. If there are too many, the oldest are dropped."""

    max_events: int = Field(100_000, ge=1, description="most events that wait")
    max_mb: float = Field(256.0, gt=0, description="most megabytes of events that wait")
    max_age_hours: float = Field(72.0, gt=0, le=8760, description="events that waited longer are dropped")

    @property
    def max_bytes(self) -> int:
        return int(self.max_mb * 1_000_000)

    @property
    def max_age_s(self) -> float:
        return self.max_age_hours * 3600.0


class FleetConfig(_Section):
    """Workers that share the cameras registered in Redis; each camera is read by one of them."""

    enabled: bool = Field(False, description="read those cameras of the fleet that are given to this worker")
    name: str = Field(
        "facestream",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="name of the fleet; several share a Redis by name",
    )
    lease_s: float = Field(
        3.0, ge=0.3, le=300, description="a worker that is silent for this long loses its cameras to the others"
    )
    max_cameras: int = Field(32, ge=1, le=1024, description="most cameras that this worker reads")


class NetworkConfig(_Section):
    """Which hosts are reached on behalf of a camera: where its redirects, playlists and keys lead to."""

    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="names, addresses and networks (10.1.0.0/16) that a camera may lead to beside its own host, and "
        "that are reached in any case",
    )
    refused_ranges: tuple[Range, ...] = Field(
        ("link-local",), description="ranges in which no camera is looked for: 'loopback', 'private', 'link-local'"
    )

    @property
    def policy(self) -> HostPolicy:
        return HostPolicy(self.allowed_hosts, self.refused_ranges)


class EncryptionConfig(_Section):
    """Encryption of what is kept on disk. Without a key, nothing is encrypted."""

    key: SecretStr | None = Field(
        None,
        description="32 bytes in base64 or hex with which galleries, histories, waiting events and pictures are "
        "encrypted; older keys may follow after a blank, to read what they have encrypted",
    )
    key_file: UserPath | None = Field(None, description="file that holds the same; key takes precedence")
    people_file: UserPath | None = Field(
        None,
        description="file of the keys of single people, by which PostgreSQL keeps names and vectors; the same on each "
        "machine, begun with 32 bytes in base64, and writable: 'facestream forget' takes keys out of it",
    )


class DecodingConfig(_Section):
    """Where pictures are decoded."""

    processes: Literal["live", "all", "off"] = Field(
        "live",
        description="which cameras are decoded in a process of their own, so that what they send can harm no other: "
        "'live' are network streams and devices, 'all' are video files as well; 'off' decodes all in the worker itself",
    )
    memory_mb: int = Field(
        1024, ge=64, le=65_536, description="most memory that such a process may take for decoding, MB"
    )


class MetricsConfig(_Section):
    """Where Prometheus and probes look."""

    enabled: bool = Field(True, description="serve /metrics, /healthz and /readyz")
    host: str = Field(
        "127.0.0.1", description="address to listen on; 0.0.0.0 lets other machines ask, and should have a token"
    )
    port: int = Field(9464, ge=0, le=65_535, description="port; 0 takes a free one and logs it")
    token: SecretStr | None = Field(
        None, description="what a client must send to see more than whether the worker is alive and ready"
    )
    token_file: UserPath | None = Field(None, description="file that holds the token; token takes precedence")
    cert_file: UserPath | None = Field(
        None, description="certificate, and what leads to its authority: the port speaks TLS"
    )
    key_file: UserPath | None = Field(None, description="private key of cert_file")
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="names with a dot under which clients without a token may ask; addresses and names without a dot "
        "are always allowed",
    )
    max_connections: int = Field(32, ge=4, le=1000, description="most connections at once; beyond it, slow ones end")

    @model_validator(mode="after")
    def _a_certificate_has_its_key(self) -> "MetricsConfig":
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("metrics.cert_file and metrics.key_file: give both, or neither")
        return self

    def read_token(self) -> str | None:
        """The token; None without one.

        Raises:
            ConfigError: its file cannot be read, or it is shorter than 16 characters.
        """
        return _read_token("metrics", self.token, self.token_file)


class PreviewConfig(_Section):
    """What the cameras see, at ``/preview/CAMERA`` of the metrics port, for people who have the token."""

    token: SecretStr | None = Field(None, description="what a viewer must send; without a token there is no preview")
    token_file: UserPath | None = Field(None, description="file that holds the token; token takes precedence")
    max_fps: float = Field(5.0, gt=0, le=25, description="most pictures a second for each viewer")
    max_width_px: int = Field(960, ge=64, le=3840, description="wider pictures are scaled down to this")

    def read_token(self) -> str | None:
        """The token; None without one.

        Raises:
            ConfigError: its file cannot be read, or it is shorter than 16 characters.
        """
        return _read_token("preview", self.token, self.token_file)


class OidcConfig(_Section):
    """OpenID Connect: people log in to the console with the account of their organisation, beside passwords."""

    issuer: UrlText | None = Field(None, description="the provider, as its ID tokens name it; none: passwords alone")
    client_id: str = Field("", max_length=300, description="what the provider calls the console")
    client_secret: SecretStr | None = Field(None, description="what the provider has given; without one, PKCE alone")
    client_secret_file: UserPath | None = Field(
        None, description="file that holds the same; client_secret takes precedence"
    )
    ca_file: UserPath | None = Field(None, description="certificates that are trusted in place of the system's")
    scopes: tuple[str, ...] = Field(("profile", "email"), description="what is asked for, beside openid")
    roles_claim: str = Field("groups", description="claim that decides on the role, such as realm_access.roles")
    roles: dict[str, Literal["viewer", "operator", "admin"]] = Field(
        default_factory=dict, description="role by value of that claim; the highest counts, nobody without one comes in"
    )
    cameras_claim: str = Field(
        "", description="claim that names the cameras that somebody may see, '*' for all; without one, all see all"
    )
    allowed_domains: tuple[str, ...] = Field(
        (), description="domains of which the claim email must have one, and be verified; none: it is not looked at"
    )
    label: str = Field("", max_length=60, description="what the page calls the provider; default: its host")

    def read_client_secret(self) -> str | None:
        """The secret; None without one.

        Raises:
            ConfigError: its file cannot be read.
        """
        return _read_secret("console.oidc.client_secret_file", self.client_secret, self.client_secret_file)


class ConsoleConfig(_Section):
    """``facestream console``: the pages and the API (extra ``console``). A worker has none of it."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 lets other machines reach it")
    port: int = Field(8460, ge=0, le=65_535, description="port; 0 takes a free one and says which")
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="names under which people reach it, such as faces.example.org; localhost and the address to listen "
        "on are always allowed",
    )
    trusted_proxies: tuple[str, ...] = Field(
        (), description="addresses of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed"
    )
    cert_file: UserPath | None = Field(None, description="certificate (TLS); without one, a proxy should have it")
    key_file: UserPath | None = Field(None, description="private key of cert_file")
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="port for /metrics, /healthz and /readyz of the console, on metrics.host and as the other settings "
        "of metrics say; without one they are not served",
    )
    session_hours: float = Field(12.0, gt=0, le=720, description="how long somebody stays logged in, hours")
    oidc: OidcConfig = OidcConfig()


class TracingConfig(_Section):
    """OpenTelemetry traces of some frames (extra ``tracing``)."""

    sample_ratio: Fraction = Field(0.0, description="share of the batches that are traced; 0: none")
    endpoint: UrlText | None = Field(
        None,
        description="OTLP/HTTP address, such as http://collector:4318/v1/traces; default: what OpenTelemetry takes",
    )


class LogConfig(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = Field("auto", description="'auto' is human on a terminal, else json")


def _read_token(section: str, value: SecretStr | None, path: Path | None) -> str | None:
    token = value.get_secret_value() if value is not None else None
    if token is None and path is not None:
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"{section}.token_file {path} cannot be read as a token") from None
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise ConfigError(
            f"{section}.token has {len(token)} characters, too few to keep anybody out; "
            f"give {_SHORTEST_TOKEN} or more (openssl rand -hex 16)"
        )
    return token


def _read_secret(field: str, value: SecretStr | None, path: Path | None) -> str | None:
    if value is not None or path is None:
        return value.get_secret_value() if value else None
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{field}: {path} cannot be read as text") from None
    if not text:
        raise ConfigError(f"{field}: {path} is empty; write the password into it")
    return text
