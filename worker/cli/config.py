"""``facestream config``: check a configuration, or show it with everything that is set."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from worker.cli.options import ConfigFile, command_group
from worker.cli.screen import complain, count_of, say, say_lines
from worker.errors import ConfigError, FacestreamError
from worker.redaction import redact, redact_url

if TYPE_CHECKING:
    from worker.config import CameraConfig, Config, FieldPath, Layers, Problem

_COMMENT_COLUMN = 40


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    group = command_group(app, "config", "Check a configuration, or show it with everything that is set.")
    group.command("check")(check_config)
    group.command("show")(show_config)
    group.command("schema")(print_schema)


def check_config(config: ConfigFile = None) -> int:
    """Say whether the configuration is valid; each mistake is named with its line or variable and its field.

    Files, galleries and sources that it names are looked for as well; no camera and no server is asked.
    """
    from worker.config import Problem, photo_limits, read_layers, unknown_variables
    from worker.video.cameras import unguarded

    layers = read_layers(config)
    mistakes, settings = layers.examine()
    try:
        photo_limits()
    except ConfigError as error:
        mistakes.append(Problem((), str(error)))
    missing = list(_look_around(settings, layers)) if settings is not None else []
    for problem in mistakes + [problem for problem, _code in missing]:
        complain(f"configuration from {problem}")
    if mistakes or missing or settings is None:
        return 2 if mistakes else max(code for _problem, code in missing)
    warnings = [*unknown_variables()]
    if unheld := unguarded(settings, lasting=settings.fleet.enabled):
        say(f"facestream: warning: {unheld}", err=True)
        warnings.append(unheld)
    told = f"valid, with {count_of(len(warnings), 'warning')}" if warnings else "valid"
    say(f"{told}: {count_of(len(settings.cameras), 'camera')}")
    return 0


def _look_around(config: "Config", layers: "Layers") -> "Iterator[tuple[Problem, int]]":
    """What the configuration names and is not there, or cannot be used, each with the exit code of its kind."""
    from worker.config import Problem

    for index, camera in enumerate(config.cameras):
        if (found := _source_problem(camera)) is not None:
            path: FieldPath = ("cameras", index, "source")
            yield Problem(path, found[0], layers.blame(path)), found[1]
    for field, look in _looks(config):
        try:
            look()
        except FacestreamError as error:
            path = tuple(field.split("."))
            message = str(error).removeprefix(field).removeprefix(":").lstrip()
            yield Problem(path, message, layers.blame(path)), error.exit_code


def _looks(config: "Config") -> "Iterator[tuple[str, Callable[[], object]]]":
    """The fields that name something outside of the configuration, each with what fails where that is not there."""
    from worker.database.address import parse_database_url
    from worker.encryption import parse_key, use
    from worker.gallery.classifier import Classifier
    from worker.gallery.opening import is_shared
    from worker.redis.client import address_and_options

    if config.encryption.key is not None or config.encryption.key_file is not None:
        yield (
            "encryption.key" if config.encryption.key else "encryption.key_file",
            lambda: use(config.encryption_keys()),
        )
    for name in ("gallery", "shadow_gallery"):
        path = getattr(config, name)
        if path is not None:
            yield name, partial(parse_database_url if is_shared(path) else _try_gallery, path)
    if config.classifier is not None:
        yield "classifier", partial(Classifier.open, config.classifier)
    if config.models_dir is not None:
        yield "models_dir", partial(_require_folder, config.models_dir)
    if config.model is not None:
        yield "model", partial(_require_model, config.model)
    if config.gallery_key is not None or config.gallery_key_file is not None:
        yield (
            "gallery_key" if config.gallery_key else "gallery_key_file",
            lambda: parse_key(config.read_gallery_key() or "", "the gallery key"),
        )
    if config.preview.token is not None or config.preview.token_file is not None:
        yield "preview.token" if config.preview.token else "preview.token_file", config.preview.read_token
    yield "redis.url", lambda: address_and_options(config.redis)


def _try_gallery(path: str) -> None:
    from worker.gallery.opening import open_gallery

    open_gallery(path).close()


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise FacestreamError(f"there is no folder {folder}")


def _require_model(model: str) -> None:
    from worker.faces.alignment import split_variant
    from worker.faces.manifests import load_manifest

    load_manifest(split_variant(model)[0])


def _source_problem(camera: "CameraConfig") -> tuple[str, int] | None:
    """What is wrong with the source of a camera, with an exit code; None if it can be tried."""
    from worker.config import STAND_IN, nearest
    from worker.video.addresses import SCHEMES, parse_address

    source = camera.source.get_secret_value()
    if source.startswith(STAND_IN):
        return None
    try:
        address = parse_address(source)
    except ConfigError as error:
        scheme, mark, _rest = source.partition("://")
        meant = nearest(scheme, SCHEMES) if mark else ""
        return f"{error}" + (f"; did you mean {meant}://?" if meant and meant != scheme else ""), 2
    if address.kind == "device" and not Path(address.target).exists():
        return f"there is no device {address.target}; is the camera plugged in?", 1
    if address.kind != "network" and not Path(address.target).exists():
        return (
            f"there is no file or folder {redact_url(source)}; a URL begins with {SCHEMES[0]}:// or {SCHEMES[2]}://",
            1,
        )
    return None


def show_config(config: ConfigFile = None) -> None:
    """Print the configuration as it is understood, with where each value comes from; credentials are masked."""
    from worker.config import read_layers

    layers = read_layers(config)
    settings = layers.config()
    values = settings.model_dump(mode="python")
    say("# A value without a remark is the default.")
    for line in _yaml_lines(values, (), "", layers.origin):
        say(line)
    say("")
    for line in _thresholds(settings):
        say(f"# {line}")


def _yaml_lines(
    values: dict[str, Any], path: "FieldPath", indent: str, origin: "Callable[[FieldPath], str]"
) -> Iterator[str]:
    """``values`` as YAML, each with a remark where it comes from."""
    for name, value in values.items():
        here = (*path, name)
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _yaml_lines(value, here, f"{indent}  ", origin)
        elif isinstance(value, list | tuple) and value and all(isinstance(item, dict) for item in value):
            yield f"{indent}{name}:"
            for index, item in enumerate(value):
                first, *rest = _yaml_lines(item, (*here, index), f"{indent}  ", origin)
                yield f"{indent}- {first.removeprefix(f'{indent}  ')}"
                yield from rest
        else:
            line = f"{indent}{name}: {_scalar(name, value)}"
            remark = origin(here)
            yield f"{line:<{_COMMENT_COLUMN}}  # {remark}" if remark else line


def _scalar(name: str, value: Any) -> str:
    """A value as YAML on one line, without credentials."""
    import yaml
    from pydantic import SecretStr

    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        value = redact_url(text) if name in ("url", "source") else "***"
    elif isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        value = redact_url(value) if "://" in value else redact(value)
    text = yaml.safe_dump(
        list(value) if isinstance(value, tuple) else value, default_flow_style=True, allow_unicode=True, width=10**6
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _thresholds(config: "Config") -> Iterator[str]:
    """The threshold in force, for all cameras and for those with another one, and where it comes from."""
    from worker.config import DEFAULT_MODEL_ID
    from worker.faces.alignment import split_variant
    from worker.faces.manifests import load_manifest
    from worker.gallery.opening import open_gallery

    of_cameras: dict[str, float] = {}
    calibrated: float | None = None
    model = config.model or DEFAULT_MODEL_ID
    try:
        if config.classifier is not None:
            from worker.gallery.classifier import Classifier

            trained = Classifier.open(config.classifier)
            calibrated, model = trained.threshold, trained.model
        elif config.gallery is not None and config.recognition.threshold is None:
            gallery = open_gallery(config.gallery)
            calibrated, of_cameras, model = gallery.threshold, gallery.camera_thresholds, gallery.model_id
            gallery.close()
        if config.recognition.threshold is not None:
            value, source = config.recognition.threshold, "recognition.threshold"
        elif calibrated is not None:
            value, source = calibrated, "the classifier" if config.classifier else "the gallery's calibration"
        else:
            value, source = load_manifest(split_variant(model)[0]).threshold, f"the model {model}"
    except FacestreamError as error:
        yield f"threshold in force: not known, because {redact(str(error))}"
        return
    yield f"threshold in force: {value:.4f}, from {source}"
    own = {camera.id: camera.threshold for camera in config.cameras if camera.threshold is not None}
    for camera_id in sorted({*own, *of_cameras}):
        text = f"{own[camera_id]:.4f}, its own" if camera_id in own else f"{of_cameras[camera_id]:.4f}, calibrated"
        yield f"threshold of camera {camera_id}: {text}"


def print_schema() -> None:
    """Print the JSON Schema of the configuration."""
    from worker.config import Config

    say_lines(json.dumps(Config.model_json_schema(), indent=2))
