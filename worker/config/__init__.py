"""The configuration of a worker. Import its names from here.

A mistake in it ends the start with the name of the field (:class:`worker.errors.ConfigError`).

- ``sections``: the sections; every field with its limits, its default and what it means.
- ``loading``: ``Config``, all sections together, and where their values come from.
- ``document``, ``environment``: what a file and the environment say; ``problems``: what is wrong with it.
- ``paths``: paths and URLs as people write them.
"""

from worker.config.document import FieldPath
from worker.config.loading import (
    Config,
    ConfigOrigin,
    Layers,
    PhotoLimits,
    cache_dir,
    default_state_dir,
    environment_keys,
    history_folder,
    history_place,
    load_config,
    models_dir,
    photo_limits,
    read_layers,
    unknown_variables,
)
from worker.config.paths import expand_text, expand_user
from worker.config.problems import STAND_IN, Problem, nearest
from worker.config.sections import (
    DEFAULT_MODEL_ID,
    DETECTOR_NAMES,
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
    OidcConfig,
    OutboxConfig,
    Outline,
    PreviewConfig,
    RecognitionConfig,
    RedisConfig,
    TracingConfig,
    TrackingConfig,
    UnknownsConfig,
    ZoneName,
)

__all__ = [
    "DEFAULT_MODEL_ID",
    "DETECTOR_NAMES",
    "ENGINE_NAMES",
    "STAND_IN",
    "BatchingConfig",
    "CameraConfig",
    "Config",
    "ConfigOrigin",
    "ConsoleConfig",
    "DecodingConfig",
    "DetectionConfig",
    "EncryptionConfig",
    "EvidenceConfig",
    "FieldPath",
    "FleetConfig",
    "HistoryConfig",
    "Layers",
    "LogConfig",
    "MetricsConfig",
    "NetworkConfig",
    "OidcConfig",
    "OutboxConfig",
    "Outline",
    "PhotoLimits",
    "PreviewConfig",
    "Problem",
    "RecognitionConfig",
    "RedisConfig",
    "TracingConfig",
    "TrackingConfig",
    "UnknownsConfig",
    "ZoneName",
    "cache_dir",
    "default_state_dir",
    "environment_keys",
    "expand_text",
    "expand_user",
    "history_folder",
    "history_place",
    "load_config",
    "models_dir",
    "nearest",
    "photo_limits",
    "read_layers",
    "unknown_variables",
]
