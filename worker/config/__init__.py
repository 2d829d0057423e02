"""The configuration of a worker, and where its values come from: the only reader of the environment and of YAML.

Order of precedence: command line, environment (prefix ``FACESTREAM_``, ``__`` between levels), YAML file, defaults.
A mistake ends the start with the name of the field (:class:`worker.errors.ConfigError`). The sections stand in
``sections``, every field with its limits, its default and what it means. Import all names from here.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs
import yaml
from pydantic import Field, SecretStr, ValidationError, field_serializer, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from worker.config.sections import (
    DEFAULT_MODEL_ID,
    DETECTOR_NAMES,
    ENGINE_NAMES,
    BatchingConfig,
    CameraConfig,
    DetectionConfig,
    EvidenceConfig,
    FleetConfig,
    HistoryConfig,
    LogConfig,
    MetricsConfig,
    OutboxConfig,
    PreviewConfig,
    RecognitionConfig,
    RedisConfig,
    TracingConfig,
    TrackingConfig,
    UnknownsConfig,
)
from worker.errors import ConfigError
from worker.redaction import first_problem, redact, redact_url

__all__ = [
    "DEFAULT_MODEL_ID",
    "DETECTOR_NAMES",
    "ENGINE_NAMES",
    "BatchingConfig",
    "CameraConfig",
    "Config",
    "ConfigOrigin",
    "DetectionConfig",
    "EvidenceConfig",
    "FleetConfig",
    "HistoryConfig",
    "LogConfig",
    "MetricsConfig",
    "OutboxConfig",
    "PreviewConfig",
    "RecognitionConfig",
    "RedisConfig",
    "TracingConfig",
    "TrackingConfig",
    "UnknownsConfig",
    "cache_dir",
    "default_state_dir",
    "history_folder",
    "load_config",
    "models_dir",
]


class Config(BaseSettings):
    """Everything a worker needs to know, validated."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="FACESTREAM_", env_nested_delimiter="__", validate_default=True
    )

    worker_id: str = Field(default_factory=socket.gethostname, min_length=1, description="name of this worker")
    cameras: tuple[CameraConfig, ...] = Field((), description="the cameras to read")
    gallery: str | None = Field(
        None,
        description="folder of the gallery, or redis://HOST/0?gallery=NAME of one that a fleet shares; "
        "without one everybody is unknown",
    )
    classifier: str | None = Field(
        None, description="folder of a trained classifier that says who it is, in place of a gallery"
    )
    state_dir: Path | None = Field(
        None,
        description="folder for the record of past sightings and for events that wait; default: GALLERY.state beside "
        "the gallery; without a gallery nothing outlives the worker, except waiting events in a fleet",
    )
    shadow_gallery: str | None = Field(
        None, description="gallery of another model that is asked as well: its verdicts are counted, not published"
    )
    gallery_key: SecretStr | None = Field(
        None, description="32 bytes in base64 or hex with which kept enrolment crops are encrypted"
    )
    gallery_key_file: Path | None = Field(None, description="file that holds that key; gallery_key takes precedence")
    model: str | None = Field(None, description="model id or manifest path; default: the gallery's model")
    models_dir: Path | None = Field(None, description="folder in which weight files are looked for, at any depth")
    engine: ENGINE_NAMES = Field("auto", description="what runs the networks")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the embedder")
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
    metrics: MetricsConfig = MetricsConfig()
    preview: PreviewConfig = PreviewConfig()
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


def load_config(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Config:
    """The configuration from ``path`` (YAML), the environment, and ``overrides`` (nested, command line).

    Raises:
        ConfigError: the file cannot be read, or a field is unknown or wrong; the message names file and field.
    """
    where = str(path) if path else "the command line or the environment"
    document = _read_yaml(path) if path else {}

    class LayeredConfig(Config):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the library's
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=document)

    try:
        return LayeredConfig(**(overrides or {}))
    except (ValidationError, SettingsError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else redact(str(error))
        raise ConfigError(f"configuration from {where}: {problem}") from None


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


def models_dir() -> Path | None:
    """``FACESTREAM_MODELS_DIR``, for commands that run without a configuration."""
    value = os.environ.get("FACESTREAM_MODELS_DIR")
    return Path(value) if value else None


def cache_dir() -> Path:
    """The folder of pulled weights and converted networks; ``FACESTREAM_CACHE_DIR`` overrides it."""
    value = os.environ.get("FACESTREAM_CACHE_DIR")
    return Path(value) if value else Path(platformdirs.user_cache_dir("facestream", appauthor=False))


def history_folder(config: Config) -> Path | None:
    """The folder for the history of a worker with ``config``: ``state_dir``, else one beside the gallery or the
    classifier; None if there is neither."""
    if config.state_dir is not None:
        return config.state_dir
    known = config.gallery or config.classifier
    if known is None or "://" in known:
        return None
    gallery = Path(known).resolve()
    return gallery.with_name(f"{gallery.name}.state")


def default_state_dir() -> Path:
    """The folder for what must outlive a worker that has no folder beside a gallery."""
    return Path(platformdirs.user_state_dir("facestream", appauthor=False))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"configuration {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(redact(str(error)).split())
        raise ConfigError(f"configuration {path} is not valid YAML: {problem}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(
            f"configuration {path}: the top level must be a mapping of fields, not {type(document).__name__}"
        )
    return document
