"""What users write into a configuration, and what they are told of it."""

import json
from pathlib import Path

import pytest

from worker.config import load_config, models_dir, read_layers, unknown_variables
from worker.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "worker.yaml"


def refusal(file: Path | None, text: str = "") -> str:
    if file is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_config(file)
    return str(refused.value)


def mistakes(file: Path | None, text: str = "") -> list[str]:
    if file is not None:
        file.write_text(text, encoding="utf-8")
    return [str(problem) for problem in read_layers(file).examine()[0]]


# The same key twice.


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("redis: {stream: a}\nlog: {level: info}\nredis:\n  stream: b\n", "'redis'", (1, 3)),
        ("redis:\n  stream: a\n  timeout_s: 2\n  stream: b\n", "'redis.stream'", (2, 4)),
        ("cameras:\n  - id: a\n    source: x\n    id: b\n", "'cameras.0.id'", (2, 4)),
        ("log: {level: info,\n  level: debug}\n", "'log.level'", (1, 2)),
        ("gallery: a\n'gallery': b\n", "'gallery'", (1, 2)),
        ("gallery: a\ngallery: a\n", "'gallery'", (1, 2)),
        ("Gallery: a\ngallery: b\n", "'gallery'", (1, 2)),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(
    file: Path, text: str, key: str, lines: tuple[int, int]
) -> None:
    told = refusal(file, text)
    assert f"{key} is written twice, on line {lines[0]} and on line {lines[1]}" in told
    assert str(file) in told


def test_every_key_that_stands_twice_is_named(file: Path) -> None:
    told = refusal(file, "log: {}\nlog: {}\nredis: {}\nredis: {}\n")
    assert "'log' is written twice" in told
    assert "'redis' is written twice" in told


def test_anchors_may_repeat_what_they_stand_for(file: Path) -> None:
    file.write_text(
        "cameras:\n  - &door {id: door, source: a.mp4, policy: every}\n  - {<<: *door, id: gate}\n", encoding="utf-8"
    )
    assert [(camera.id, camera.policy) for camera in load_config(file).cameras] == [
        ("door", "every"),
        ("gate", "every"),
    ]


@pytest.mark.parametrize(
    "text", ["a: &a [*a]\n", "start: 2026-99-99\n", "[" * 5000, "? [a]\n: b\n", "- a\n", "a: b: c\n"]
)
def test_what_is_no_configuration_is_told_in_one_line(file: Path, text: str) -> None:
    assert "\n" not in refusal(file, text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "cameras:\n  - {id: no, source: x}\n",
            "line 2: cameras.0.id: must be text, and YAML reads true or false here",
        ),
        ("cameras:\n  - {id: 7, source: x}\n", "line 2: cameras.0.id: must be text, and YAML reads a number here"),
        ("worker_id: 2026-01-31\n", "line 1: worker_id: must be text, and YAML reads a date here: put it in quotes"),
        ("redis:\n\tstream: x\n", "a tab stands where YAML takes only blanks: indent with blanks, line 2"),
        ("GALERY: x\n", "line 1: galery: no such field; did you mean 'gallery'?"),
    ],
)
def test_what_yaml_understood_otherwise_is_told_with_the_remedy(file: Path, text: str, told: str) -> None:
    assert told in refusal(file, text)


def test_a_file_of_another_encoding_is_told_with_its_line(file: Path) -> None:
    file.write_bytes("worker_id: w\ngallery: Kaf\xe9\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"line 2: this is not UTF-8: save the file as UTF-8"):
        load_config(file)


def test_a_byte_order_mark_is_no_part_of_the_first_field(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfgallery: people\n")
    assert load_config(file).gallery == "people"


# Where a mistake is, and what was meant.


def test_all_mistakes_are_told_in_the_order_of_their_lines(file: Path) -> None:
    told = mistakes(
        file,
        "galery: x\n"
        "cameras:\n"
        "  - {id: door, sourse: x}\n"
        "redis: {strem: x}\n"
        "min_face_px: 30\n"
        "log: {level: wraning}\n"
        "preview:\n",
    )
    assert told == [
        f"{file}, line 1: galery: no such field; did you mean 'gallery'?",
        f"{file}, line 3: cameras.0.source: is missing",
        f"{file}, line 3: cameras.0.sourse: no such field; did you mean 'source'?",
        f"{file}, line 4: redis.strem: no such field; did you mean 'stream'?",
        f"{file}, line 5: min_face_px: no such field; did you mean 'detection.min_face_px'?",
        f"{file}, line 6: log.level: Input should be 'debug', 'info', 'warning' or 'error'; did you mean 'warning'?",
        f"{file}, line 7: preview: holds nothing; give its fields, or leave it out",
    ]


def test_what_contradicts_is_told_beside_what_is_wrong_by_itself(file: Path) -> None:
    told = mistakes(
        file, "threads: -1\ncameras:\n  - {id: a, source: x}\n  - {id: a, source: x}\ngallery: g\nclassifier: c\n"
    )
    assert any("threads" in each for each in told)
    assert any("id used twice: a" in each for each in told)
    assert any("give one" in each for each in told)


def test_one_line_names_the_first_and_says_how_many_more(file: Path) -> None:
    assert "redis.strem: no such field; did you mean 'stream'? (and 1 more: " in refusal(
        file, "redis: {strem: x}\nthreads: -1\n"
    )


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("FACESTREAM_CAMERAS__0__SOURCE", "x.mp4", "'cameras' has no parts"),
        ("FACESTREAM_REDIS__URL__HOST", "h", "'redis.url' has no parts"),
        ("FACESTREAM_REDIS__ULR", "x", "did you mean 'url'?"),
        ("FACESTREAM_REDIS__MAX_EVENTS", "lots", "redis.max_events"),
        ("FACESTREAM_CAMERAS", "[", "must be JSON"),
        ("FACESTREAM_REDIS", "redis://h", "must be JSON"),
        ("FACESTREAM_GALLERY", "", "gallery: is empty"),
        ("FACESTREAM_REDIS__URL", " ", "redis.url: is empty"),
        ("facestream_threads", "many", "threads"),
    ],
)
def test_a_wrong_variable_is_blamed_and_not_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    told = refusal(file, "cameras: [{id: door, source: a.mp4}]\n")
    assert says in told
    assert f"from {variable}: " in told
    assert str(file) not in told


def test_variables_replace_single_fields_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("redis: {stream: a, timeout_s: 2}\n", encoding="utf-8")
    monkeypatch.setenv("FACESTREAM_REDIS", '{"timeout_s": 3, "max_events": 7}')
    monkeypatch.setenv("FACESTREAM_REDIS__MAX_EVENTS", "8")
    monkeypatch.setenv("FACESTREAM_CAMERAS", json.dumps([{"id": "door", "source": "a.mp4"}]))
    config = load_config(file, {"redis": {"timeout_s": 4}})
    assert (config.redis.stream, config.redis.timeout_s, config.redis.max_events) == ("a", 4, 8)
    assert config.cameras[0].id == "door"


def test_every_value_has_its_origin(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("gallery: people\nredis:\n  stream: a\n  timeout_s: 2\n", encoding="utf-8")
    monkeypatch.setenv("FACESTREAM_REDIS__TIMEOUT_S", "3")
    layers = read_layers(file, {"threads": 2})
    assert layers.origin(("redis", "stream")) == f"{file}, line 3"
    assert layers.origin(("redis", "timeout_s")) == "FACESTREAM_REDIS__TIMEOUT_S"
    assert layers.origin(("threads",)) == "command line"
    assert layers.origin(("engine",)) == ""


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("FACESTREAM_GALERY", "FACESTREAM_GALLERY"),
        ("FACESTREAM_REDIS_URL", "FACESTREAM_REDIS__URL"),
        ("FACESTREAM_STATEDIR", "FACESTREAM_STATE_DIR"),
        ("FACESTREAM_METRICS_PORT", "FACESTREAM_METRICS__PORT"),
        ("FACESTREAM_MODEL_DIR", "FACESTREAM_MODELS_DIR"),
        ("FACESTREAM_CACHEDIR", "FACESTREAM_CACHE_DIR"),
        ("FACESTREAM_XYZZY_PLUGH", ""),
    ],
)
def test_a_variable_that_nothing_reads_is_named_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, "9464")
    assert unknown_variables() == {variable: meant}


def test_variables_that_a_cluster_sets_for_a_service_are_no_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "FACESTREAM_SERVICE_HOST": "10.0.0.1",
        "FACESTREAM_SERVICE_PORT_METRICS": "9464",
        "FACESTREAM_PORT": "tcp://10.0.0.1:9464",
        "FACESTREAM_METRICS_PORT": "tcp://10.0.0.1:9464",
        "FACESTREAM_PORT_9464_TCP_ADDR": "10.0.0.1",
        "FACESTREAM_REDIS__URL": "redis://h",
        "FACESTREAM_CACHE_DIR": "/tmp/c",
    }.items():
        monkeypatch.setenv(name, value)
    assert unknown_variables() == {}


# Paths and URLs.


def test_the_home_stands_for_itself_in_every_path(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "password").write_text("s3cret")
    file.write_text(
        "gallery: ~/people\nshadow_gallery: ~/others\nstate_dir: ~/state\nmodels_dir: ~/models\n"
        "model: ~/model.json\ngallery_key_file: ~/key\nevidence: {store: ~/pictures}\npreview: {token_file: ~/token}\n"
        "redis: {password_file: ~/password, ca_file: ~/ca, cert_file: ~/c, key_file: ~/k,\n"
        "  sentinel_password_file: ~/s}\n"
        "cameras: [{id: a, source: 'rtsp://u@h/x', password_file: ~/password}]\n",
        encoding="utf-8",
    )
    config = load_config(file)
    document = json.dumps(config.model_dump(mode="json"))
    assert "~" not in document
    assert document.count(str(tmp_path)) == 14
    assert config.cameras[0].source.get_secret_value() == "rtsp://u:s3cret@h/x"
    file.write_text("classifier: ~/trained\n", encoding="utf-8")
    assert load_config(file).classifier == str(tmp_path / "trained")
    monkeypatch.setenv("FACESTREAM_MODELS_DIR", "~/m")
    assert models_dir() == tmp_path / "m"


def test_a_home_that_is_not_there_is_a_mistake_of_the_field(file: Path) -> None:
    assert "gallery: '~nobody-of-that-name/x' begins with a user unknown" in refusal(
        file, "gallery: ~nobody-of-that-name/x\n"
    )


def test_a_file_itself_may_lie_at_home(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("threads: 3\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(file.parent))
    assert load_config(Path("~/worker.yaml")).threads == 3


@pytest.mark.parametrize("around", [" {}", "{} ", "\t{}\n", "\u00a0{}\u00a0", "\u200b{}\ufeff"])
def test_blanks_around_a_url_are_no_part_of_it(around: str) -> None:
    config = load_config(
        None,
        {
            "cameras": [
                {"id": "a", "source": around.format("rtsp://u:p@h/x y")},
                {"id": "b", "source": around.format("0")},
            ],
            "redis": {"url": around.format("redis://h:6379/1")},
            "gallery": around.format("postgresql://h/db?gallery=x"),
            "tracing": {"endpoint": around.format("http://h/v1/traces")},
            "evidence": {"store": around.format("s3://bucket/x")},
        },
    )
    assert [camera.source.get_secret_value() for camera in config.cameras] == ["rtsp://u:p@h/x y", "0"]
    assert config.redis.url.get_secret_value() == "redis://h:6379/1"
    assert config.gallery == "postgresql://h/db?gallery=x"
    assert config.tracing.endpoint == "http://h/v1/traces"
    assert config.evidence.store == "s3://bucket/x"


def test_a_file_may_be_called_what_it_is_called() -> None:
    config = load_config(None, {"cameras": [{"id": "a", "source": " clip.mp4 "}]})
    assert config.cameras[0].source.get_secret_value() == " clip.mp4 "


@pytest.mark.parametrize(
    "field",
    ["gallery", "classifier", "state_dir", "models_dir", "model", "worker_id", "shadow_gallery", "gallery_key",
     "redis.url", "redis.stream", "redis.ca_file", "evidence.store", "preview.token_file", "tracing.endpoint",
     "fleet.name", "metrics.host", "log.level", "threads"],
)  # fmt: skip
@pytest.mark.parametrize("value", ["''", "'  '"])
def test_an_empty_value_is_told_as_one(file: Path, field: str, value: str) -> None:
    section, _, name = field.rpartition(".")
    text = f"{section}: {{{name}: {value}}}\n" if section else f"{name}: {value}\n"
    assert refusal(file, text) == (
        f"configuration from {file}, line 1: {field}: is empty; give a value, or leave it out"
    )


def test_a_password_that_no_variable_gave_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACESTREAM_REDIS__PASSWORD", "")
    assert load_config().redis.read_password() is None


@pytest.mark.parametrize(
    "text",
    [
        "cameras:\n- source: rtsp://user:hunter2hunter2@10.0.0.1/  rotate: 80\n",
        "redis:\n  password: *hunter2hunter2\n",
        "redis:\n  password: 'hunter2hunter2\n  url: x",
        "redis: {password: hunter2hunter2, url: ]\n",
        "redis:\n  password: @hunter2hunter2\n",
        "redis:\n  password: !hunter2hunter2 x\n",
        "redis:\n\tpassword: hunter2hunter2\n",
    ],
)
def test_an_error_of_yaml_says_where_and_quotes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"not valid YAML: .* line \d, column \d+") as caught:
        load_config(tmp_path / "config.yaml")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("last", ["cameras: *a9", "gallery: *a9", "detection: {x: *a9}", "recognition: {<<: {y: *a9}}"])
def test_a_few_lines_whose_aliases_unfold_without_end_are_refused(last: str, tmp_path: Path) -> None:
    """Each line holds the one before nine times: 3.5 thousand million values in all."""
    lines = ["a0: &a0 [x]", *(f"a{one}: &a{one} [{', '.join([f'*a{one - 1}'] * 9)}]" for one in range(1, 10)), last]
    path = tmp_path / "worker.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="its aliases unfold to more than"):
        load_config(path)
