"""The whole configuration, and where its values come from: the only reader of the environment and of YAML.

Order of precedence: command line, environment (prefix ``FACESTREAM_``, ``__`` between levels), YAML file, defaults.
"""

import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_serializer, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from worker.config.document import Document, FieldPath, read_document, value_at
from worker.config.environment import PHOTO_PREFIX, read_environment
from worker.config.environment import unknown_variables as find_unknown_variables
from worker.config.paths import PathText, UserPath, expand_user
from worker.config.problems import STAND_IN, Problem, find_problems
from worker.config.sections import (
    ENGINE_NAMES,
    BatchingConfig,
    CameraConfig,
    ConsoleConfig,
    DecodingConfig,
    DetectionConfig,
    EncryptionConfig,
    EvidenceConfig,
    FleetConfig,
    HistoryConfig,
    LogConfig,
    MetricsConfig,
    NetworkConfig,
    OutboxConfig,
    PreviewConfig,
    RecognitionConfig,
    RedisConfig,
    TracingConfig,
    TrackingConfig,
    UnknownsConfig,
)
from worker.encryption import Keys, parse_keys
from worker.erased import state_beside
from worker.errors import ConfigError
from worker.people_keys import PeopleKeys
from worker.redaction import redact_url

_NOTHING: Final = object()


class Config(BaseSettings):
    """Everything a worker needs to know, validated."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="FACESTREAM_", env_nested_delimiter="__", validate_default=True
    )

    worker_id: str = Field(default_factory=socket.gethostname, min_length=1, description="name of this worker")
    cameras: tuple[CameraConfig, ...] = Field((), description="the cameras to read")
    gallery: PathText | None = Field(
        None,
        description="folder of the gallery, or postgresql://user@host/database?gallery=NAME of one that a fleet "
        "shares; without one everybody is unknown",
    )
    classifier: PathText | None = Field(
        None, description="folder of a trained classifier that says who it is, in place of a gallery"
    )
    state_dir: UserPath | None = Field(
        None,
        description="folder for the record of past sightings and for events that wait; default: GALLERY.state beside "
        "the gallery; without a gallery nothing outlives the worker, except waiting events in a fleet",
    )
    shadow_gallery: PathText | None = Field(
        None, description="gallery of another model that is asked as well: its verdicts are counted, not published"
    )
    gallery_key: SecretStr | None = Field(
        None, description="32 bytes in base64 or hex with which kept enrolment crops are encrypted"
    )
    gallery_key_file: UserPath | None = Field(
        None, description="file that holds that key; gallery_key takes precedence"
    )
    model: PathText | None = Field(None, description="model id or manifest path; default: the gallery's model")
    models_dir: UserPath | None = Field(None, description="folder in which weight files are looked for, at any depth")
    engine: ENGINE_NAMES = Field("auto", description="what runs the networks")
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field("auto", description="arithmetic of the embedder")
    threads: int = Field(0, ge=0, le=256, description="processor threads for inference; 0 takes all cores")
    detection: DetectionConfig = DetectionConfig()
    tracking: TrackingConfig = TrackingConfig()
    recognition: RecognitionConfig = RecognitionConfig()
    history: HistoryConfig = HistoryConfig()
    unknowns: UnknownsConfig = UnknownsConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    batching: BatchingConfig = BatchingConfig()
    redis: RedisConfig = RedisConfig()
    outbox: OutboxConfig = OutboxConfig()
    fleet: FleetConfig = FleetConfig()
    encryption: EncryptionConfig = EncryptionConfig()
    network: NetworkConfig = NetworkConfig()
    decoding: DecodingConfig = DecodingConfig()
    metrics: MetricsConfig = MetricsConfig()
    preview: PreviewConfig = PreviewConfig()
    console: ConsoleConfig = ConsoleConfig()
    log: LogConfig = LogConfig()
    tracing: TracingConfig = TracingConfig()

    @field_serializer("gallery", "shadow_gallery", when_used="json-unless-none")
    def _without_login(self, path: str) -> str:
        return redact_url(path) if "://" in path else path

    @model_validator(mode="after")
    def _camera_ids_are_unique(self) -> "Config":
        ids = [camera.id for camera in self.cameras]
        twice = sorted({camera_id for camera_id in ids if ids.count(camera_id) > 1})
        if twice:
            raise ValueError(f"cameras: id used twice: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _one_says_who_it_is(self) -> "Config":
        if self.gallery is not None and self.classifier is not None:
            raise ValueError("gallery and classifier: one of the two says who it is; give one")
        return self

    @model_validator(mode="after")
    def _a_fleet_has_its_own_cameras(self) -> "Config":
        if self.fleet.enabled and self.cameras:
            raise ValueError("cameras: a fleet's are registered by 'facestream camera add'; list none here")
        return self

    def read_gallery_key(self) -> str | None:
        """The text of the key for kept crops; None without one.

        Raises:
            ConfigError: its file cannot be read.
        """
        if self.gallery_key is not None:
            return self.gallery_key.get_secret_value()
        if self.gallery_key_file is None:
            return None
        try:
            return self.gallery_key_file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"gallery_key_file {self.gallery_key_file} cannot be read as a key") from None

    def encryption_keys(self) -> Keys:
        """The keys of what is kept on disk; none where nothing is encrypted.

        Raises:
            ConfigError: their file cannot be read, or one is not a key.
        """
        people = None if self.encryption.people_file is None else PeopleKeys(self.encryption.people_file)
        return replace(self._file_keys(), people=people)

    def _file_keys(self) -> Keys:
        if self.encryption.key is not None:
            return parse_keys(self.encryption.key.get_secret_value())
        if (file := self.encryption.key_file) is None:
            return Keys()
        try:
            text = file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ConfigError(f"encryption.key_file {file} cannot be read: {reason}") from None
        return parse_keys(text)


def load_config(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Config:
    """The configuration from ``path`` (YAML), the environment, and ``overrides`` (nested, command line).

    Raises:
        ConfigError: the file cannot be read, or a field is unknown or wrong; the message names file and field.
    """
    return read_layers(path, overrides).config()


@dataclass(frozen=True, slots=True)
class Layers:
    """All that configures a worker, one layer over another: file, environment, command line."""

    path: Path | None
    document: Document
    overrides: dict[str, Any]
    values: dict[str, Any]
    variables: dict[FieldPath, str]
    wrong_variables: dict[str, str]

    def examine(self) -> tuple[list[Problem], Config | None]:
        """Every mistake (none in a configuration that can be used), and the configuration without them."""
        wrong = [Problem((), message, name) for name, message in self.wrong_variables.items()]
        found, config = find_problems(Config, self.values, self.blame, _build, _without_contradictions)
        return wrong + sorted(found, key=lambda problem: self._line(problem.path)), config

    def config(self) -> Config:
        """The configuration.

        Raises:
            ConfigError: a field is unknown or wrong; the message names where it stands.
        """
        problems, config = self.examine()
        if config is None or problems:
            more = f" (and {len(problems) - 1} more: 'facestream config check' names all)" if problems[1:] else ""
            raise ConfigError(f"configuration from {problems[0]}{more}")
        return config

    def origin(self, path: FieldPath) -> str:
        """Where the value of a field comes from: an option, a variable, or a line of the file; '' for a default."""
        if path and value_at(self.overrides, path, _NOTHING) is not _NOTHING:
            return "command line"
        for length in range(len(path), 0, -1):
            if name := self.variables.get(path[:length]):
                return name
        if path and value_at(self.document.values, path, _NOTHING) is not _NOTHING:
            return f"{self.path}, line {self._line(path)}" if self._line(path) else str(self.path)
        return ""

    def blame(self, path: FieldPath) -> str:
        """Where to mend a field: as :meth:`origin`, and never empty."""
        if origin := self.origin(path):
            return "the command line" if origin == "command line" else origin
        # What is missing, or was written into a part of a field, is looked for where the rest of the field is.
        beneath = [name for field, name in self.variables.items() if path and field[: len(path)] == path]
        if beneath:
            return beneath[0]
        if path:
            return self.blame(path[:-1])
        return str(self.path) if self.path else "the command line or the environment"

    def _line(self, path: FieldPath) -> int:
        """The line of the field, or of what holds it; 0 if the file says nothing of it."""
        return next((line for n in range(len(path), 0, -1) if (line := self.document.lines.get(path[:n]))), 0)


def read_layers(path: Path | None, overrides: dict[str, Any] | None = None) -> Layers:
    """What ``path``, the environment and ``overrides`` say, unchecked.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has the same key twice.
    """
    document = read_document(_user_path(str(path), "--config")) if path else Document()
    values, variables, wrong = read_environment(Config)
    merged = _merged(_merged(document.values, values), overrides or {})
    return Layers(path, document, overrides or {}, merged, variables, wrong)


def unknown_variables() -> dict[str, str]:
    """The ``FACESTREAM_`` variables of the environment that nothing reads, each with the name probably meant, or ''."""
    return find_unknown_variables(Config)


class _Merged(Config):
    """Takes its values as they are given: the layers were merged before."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def _user_path(text: str, name: str) -> Path:
    try:
        return expand_user(Path(text))
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _build(values: dict[str, Any]) -> Config:
    return _Merged(**values)


def _without_contradictions(values: dict[str, Any]) -> None:
    """Takes one thing out of ``values`` that is wrong only together with others, in the order of the checks above."""
    ids = [camera.get("id") for camera in values.get("cameras", ())]
    if len(ids) > len(set(ids)):
        for index, camera in enumerate(values["cameras"]):
            camera["id"] = f"{STAND_IN}{index}"
    elif "classifier" in values and "gallery" in values:
        del values["classifier"]
    else:
        values.pop("fleet", None)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both, with what ``above`` says where they differ."""
    merged = dict(below)
    for name, value in above.items():
        inner = merged.get(name)
        merged[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


@dataclass(frozen=True, slots=True)
class ConfigOrigin:
    """Where a configuration comes from, so that it can be read again: its file, and what the command line overrides."""

    path: Path | None
    overrides: dict[str, Any]

    def load(self) -> Config:
        """Reads it again, as :func:`load_config`.

        Raises:
            ConfigError: the file cannot be read, or a field is unknown or wrong.
        """
        return load_config(self.path, self.overrides)


class PhotoLimits(BaseSettings):
    """How large a photo may be: ``FACESTREAM_PHOTO_MAX_MEGAPIXELS`` and ``FACESTREAM_PHOTO_MAX_MB``."""

    model_config = SettingsConfigDict(frozen=True, env_prefix=PHOTO_PREFIX)

    max_megapixels: float = Field(64.0, gt=0, le=1000)
    max_mb: float = Field(200.0, gt=0, le=10_000)

    @property
    def max_pixels(self) -> int:
        return int(self.max_megapixels * 1_000_000)

    @property
    def max_bytes(self) -> int:
        return int(self.max_mb * 1_000_000)


def photo_limits() -> PhotoLimits:
    """The limits of photos, for commands that run without a configuration.

    Raises:
        ConfigError: a variable holds no number, or one that is too large.
    """
    try:
        return PhotoLimits()
    except ValidationError as error:
        problem = error.errors()[0]
        name = f"{PHOTO_PREFIX}{problem['loc'][0]}".upper()
        raise ConfigError(f"environment variable {name}: {problem['msg'].lower()}") from None


def environment_keys() -> Keys:
    """The keys that the environment names, for commands that run without a configuration.

    Raises:
        ConfigError: a variable is wrong, their file cannot be read, or one is not a key.
    """
    if not any(name.upper().startswith("FACESTREAM_ENCRYPTION") for name in os.environ):
        return Keys()  # a mistake in another variable is of no interest to such a command
    return load_config(None, {}).encryption_keys()


def models_dir() -> Path | None:
    """``FACESTREAM_MODELS_DIR``, for commands that run without a configuration."""
    value = os.environ.get("FACESTREAM_MODELS_DIR")
    return _user_path(value, "FACESTREAM_MODELS_DIR") if value else None


def cache_dir() -> Path:
    """The folder of pulled weights and converted networks; ``FACESTREAM_CACHE_DIR`` overrides it."""
    value = os.environ.get("FACESTREAM_CACHE_DIR")
    if value:
        return _user_path(value, "FACESTREAM_CACHE_DIR")
    return Path(platformdirs.user_cache_dir("facestream", appauthor=False))


def history_folder(config: Config) -> Path | None:
    """The folder for the history of a worker with ``config``: ``state_dir``, else one beside the gallery or the
    classifier; None if there is neither."""
    if config.state_dir is not None:
        return config.state_dir
    known = config.gallery or config.classifier
    if known is None or "://" in known:
        return None
    return state_beside(Path(known).resolve())


def history_place(config: Config) -> Path | str | None:
    """Where the history of a worker with ``config`` is: the URL of its gallery's database, else a folder; None if there
    is neither."""
    if config.gallery is not None and "://" in config.gallery:
        return config.gallery
    return history_folder(config)


def default_state_dir() -> Path:
    """The folder for what must outlive a worker that has no folder beside a gallery."""
    return Path(platformdirs.user_state_dir("facestream", appauthor=False))
