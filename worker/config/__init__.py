"""The configuration of a worker. Import its names from here.

A mistake in it ends the start with the name of the field (:class:`worker.errors.ConfigError`).

- ``sections``: the sections; every field with its limits, its default and what it means.
- ``loading``: ``Config``, all sections together, and where their values come from.
"""

from worker.config.loading import (
    Config,
    ConfigOrigin,
    cache_dir,
    default_state_dir,
    history_folder,
    load_config,
    models_dir,
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
