"""Manifests, where weights are found, and how they are pulled."""

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.hostile_servers import Behaviour, bomb, endless_body, serving
from worker.errors import ModelError
from worker.faces.downloading import download
from worker.faces.manifests import (
    Manifest,
    list_manifests,
    list_weights,
    load_detector_manifest,
    load_manifest,
    load_weight_set,
)
from worker.faces.weights import find_weights, pinned, pull

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def document(**changes: Any) -> dict[str, Any]:
    return {
        "id": "tiny",
        "description": "a network for tests",
        "format": "onnx",
        "files": [{"name": "tiny.onnx", "sha256": DIGEST}],
        "licence": "none",
        "source": "made here",
        "input": {"side": 32, "channel_order": "rgb", "layout": "nchw", "mean": 127.5, "scale": 127.5},
        "alignment": {"kind": "five_point"},
        "dimension": 8,
        "threshold": 0.4,
        "threshold_fitted_on": "nothing",
    } | changes


def written(folder: Path, **changes: Any) -> Manifest:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(document(**changes)))
    return load_manifest(str(path))


def shipped_like(**changes: Any) -> Manifest:
    return Manifest.model_validate(document(**changes))


def test_shipped_models_are_listed_with_the_default_first() -> None:
    ids = [manifest.id for manifest in list_manifests()]
    assert ids[0] == "vggface2-resnet50"
    assert {"dlib-resnet", "face-reidentification-retail-0095"} < set(ids)
    assert [load_manifest(model_id).id for model_id in ids] == ids


def test_unknown_id_names_the_models_there_are() -> None:
    with pytest.raises(ModelError, match=r"no model is called 'arcface'.*vggface2-resnet50.*dlib-resnet"):
        load_manifest("arcface")


@pytest.mark.parametrize("name", ["../secrets", "/etc/passwd", "", "a b"])
def test_an_id_is_no_way_into_other_folders(name: str) -> None:
    with pytest.raises(ModelError):
        load_manifest(name)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "blue"}, "colour: no such field"),
        ({"dimension": 0}, "dimension"),
        ({"threshold": 1.5}, "threshold"),
        ({"files": []}, "files"),
        ({"files": [{"name": "../x.onnx", "sha256": DIGEST}]}, "files.0.name"),
        ({"files": [{"name": "x.onnx", "sha256": "abc"}]}, "files.0.sha256"),
        ({"files": [{"name": "x.bin", "sha256": DIGEST}]}, "needs a file ending in .onnx"),
        ({"alignment": {"kind": "guess"}}, "alignment"),
        ({"alignment": {"kind": "dlib", "predictor": "p.dat"}}, "go together"),
        ({"format": "h5", "files": [{"name": "x.h5", "sha256": DIGEST}]}, "needs 'network'"),
        ({"input": document()["input"] | {"scale": 0}}, "input.scale"),
    ],
)
def test_a_wrong_manifest_is_refused_with_file_and_field(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ModelError) as caught:
        written(tmp_path, **changes)
    assert field in str(caught.value)
    assert str(tmp_path / "tiny.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2", "- 1", "", "\xff\xfe"])
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"bad\.yaml"):
        load_manifest(str(path))


def test_the_digest_follows_what_changes_vectors_and_nothing_else() -> None:
    base = shipped_like().preprocessing_digest
    same: list[dict[str, Any]] = [
        {"threshold": 0.6},
        {"description": "x"},
        {"files": [{"name": "other.onnx", "sha256": DIGEST, "size": 5}]},
    ]
    other = [
        {"files": [{"name": "tiny.onnx", "sha256": "0" * 64}]},
        {"input": document()["input"] | {"channel_order": "bgr"}},
        {"input": document()["input"] | {"mean": 0}},
        {"alignment": {"kind": "box"}},
        {"alignment": {"kind": "five_point", "template": [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.3, 0.8], [0.7, 0.8]]}},
    ]
    assert all(shipped_like(**change).preprocessing_digest == base for change in same)
    digests = {shipped_like(**change).preprocessing_digest for change in other}
    assert len(digests | {base}) == len(other) + 1


def test_weights_are_found_at_any_depth_by_name_and_digest(tmp_path: Path) -> None:
    models, deep = tmp_path / "models", tmp_path / "models" / "a" / "b"
    deep.mkdir(parents=True)
    (models / "tiny.onnx").write_bytes(b"another file of that name")
    (deep / "tiny.onnx").write_bytes(CONTENT)
    assert find_weights(shipped_like(), models, tmp_path / "cache") == {"tiny.onnx": deep / "tiny.onnx"}


def test_weights_are_found_in_the_cache_and_beside_a_manifest_of_ones_own(tmp_path: Path) -> None:
    cached = tmp_path / "cache" / "models" / "tiny" / "tiny.onnx"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    assert find_weights(shipped_like(), None, tmp_path / "cache") == {"tiny.onnx": cached}
    own = written(tmp_path)
    (tmp_path / "tiny.onnx").write_bytes(CONTENT)
    assert find_weights(own, None, tmp_path / "nothing") == {"tiny.onnx": tmp_path / "tiny.onnx"}


def test_missing_weights_are_one_line_with_three_ways_on(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find_weights(load_manifest("vggface2-resnet50"), tmp_path / "none", tmp_path / "cache")
    message = str(caught.value)
    assert "facestream models pull vggface2-resnet50" in message
    assert "rcmalli_vggface_tf_notop_resnet50.h5" in message
    assert str(tmp_path / "none") in message
    assert "--model" in message
    assert "\n" not in message


def test_a_wrong_file_shows_both_digests(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelError) as caught:
        find_weights(shipped_like(), tmp_path, tmp_path / "cache")
    assert DIGEST in str(caught.value)
    assert hashlib.sha256(b"damaged").hexdigest() in str(caught.value)


def test_dlib_weights_come_from_the_installed_package(tmp_path: Path) -> None:
    pytest.importorskip("dlib")
    manifest = load_manifest("dlib-resnet")
    found = find_weights(manifest, None, tmp_path)
    assert set(found) == {file.name for file in manifest.files}
    assert pull(manifest, tmp_path) == found


class Server(http.server.ThreadingHTTPServer):
    """Serves ``CONTENT`` with byte ranges, and can be told to misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.broken_after: list[int] = []
        self.statuses: list[int] = []
        self.ignores_ranges = False
        self.ranges: list[str | None] = []
        self.leads_to = ""

    @property
    def url(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.server_address[1]}/tiny.onnx"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if self.server.leads_to:
            self.send_response(302)
            self.send_header("Location", self.server.leads_to)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if self.server.ignores_ranges:
            start = 0
        body = self.server.content[start:]
        if wanted and not body:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.broken_after.pop(0)] if self.server.broken_after else body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def fetch(server: Server, target: Path, **arguments: Any) -> None:
    options: dict[str, Any] = {"sha256": DIGEST, "size": len(CONTENT), "retry_wait_s": 0} | arguments
    download(server.url, target, **options)


def test_pull_places_the_file_and_does_not_fetch_it_twice(server: Server, tmp_path: Path) -> None:
    manifest = shipped_like(files=[{"name": "tiny.onnx", "sha256": DIGEST, "size": len(CONTENT), "url": server.url}])
    seen: list[tuple[str, int, int | None]] = []
    found = pull(manifest, tmp_path, lambda *step: seen.append(step))
    assert found["tiny.onnx"].read_bytes() == CONTENT
    assert seen[-1] == ("tiny.onnx", len(CONTENT), len(CONTENT))
    assert find_weights(manifest, None, tmp_path) == found
    assert pull(manifest, tmp_path) == found
    assert len(server.ranges) == 1


def test_a_server_of_weights_leads_to_no_host_that_only_this_machine_reaches(server: Server, tmp_path: Path) -> None:
    with Server() as inner:
        threading.Thread(target=inner.serve_forever, kwargs={"poll_interval": 0.01}).start()
        server.leads_to = f"http://localhost:{inner.server_address[1]}/tiny.onnx"
        with pytest.raises(ModelError, match=r"it leads to localhost .* refused"):
            fetch(server, tmp_path / "x")
        assert inner.ranges == []
        server.leads_to = f"http://127.0.0.1:{inner.server_address[1]}/tiny.onnx"
        fetch(server, tmp_path / "x")
        inner.shutdown()


def test_without_a_network_the_other_ways_to_a_model_are_named(server: Server, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(ModelError, match=r"run the command again .* --models-dir, or .* \(dlib-resnet\)"):
        fetch(server, tmp_path / "x")


def test_a_circle_of_redirects_is_left(server: Server, tmp_path: Path) -> None:
    server.leads_to = server.url
    with pytest.raises(ModelError, match="more than 5 times"):
        fetch(server, tmp_path / "x")
    assert len(server.ranges) <= 6


def test_a_link_in_place_of_an_unfinished_download_is_not_followed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "x.part").symlink_to(tmp_path / "precious")
    with pytest.raises(ModelError, match="cannot write"):
        fetch(server, tmp_path / "x", size=None, sha256=None)
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.broken_after = [300_000, 200_000]
    fetch(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT
    starts = [int(wanted.removeprefix("bytes=").removesuffix("-")) for wanted in server.ranges[1:] if wanted]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] <= 500_000


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(CONTENT[:1000])
    fetch(server, tmp_path / "x")
    assert server.ranges == ["bytes=1000-"]
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ignores_ranges = True
    (tmp_path / "x.part").write_bytes(b"?" * 1000)
    fetch(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_leftover_that_is_too_long_starts_over(server: Server, tmp_path: Path, size: int | None) -> None:
    (tmp_path / "x.part").write_bytes(CONTENT + b"more")
    fetch(server, tmp_path / "x", size=size)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_failures_of_the_moment_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    fetch(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_server_that_stays_away_is_one_line_and_keeps_what_came(server: Server, tmp_path: Path) -> None:
    server.broken_after = [1000] * 5
    with pytest.raises(ModelError, match="again to go on") as caught:
        fetch(server, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert (tmp_path / "x.part").read_bytes() == CONTENT[:5000]
    assert "secret" not in str(caught.value)


def test_a_refusal_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(ModelError, match="answers 404") as caught:
        fetch(server, tmp_path / "x")
    assert len(server.ranges) == 1
    assert "secret" not in str(caught.value)


def test_another_file_of_the_same_length_is_refused_with_both_digests(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[::-1]
    with pytest.raises(ModelError) as caught:
        fetch(server, tmp_path / "x")
    assert DIGEST in str(caught.value)
    assert hashlib.sha256(server.content).hexdigest() in str(caught.value)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.part").exists()


def test_a_longer_file_is_not_read_to_its_end(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT * 2
    with pytest.raises(ModelError, match="more than the expected"):
        fetch(server, tmp_path / "x")


def test_a_model_without_an_address_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be pulled.*open_model_zoo"):
        pull(load_manifest("face-reidentification-retail-0095"), tmp_path)


def test_a_file_of_unknown_digest_is_trusted_once_and_then_held_to_it(tmp_path: Path) -> None:
    manifest, cache = shipped_like(files=[{"name": "tiny.onnx"}]), tmp_path / "cache"
    with pytest.raises(ModelError, match="known only once its files are there"):
        _ = manifest.preprocessing_digest
    models = tmp_path / "models"
    models.mkdir()
    (models / "tiny.onnx").write_bytes(CONTENT)
    known = pinned(manifest, find_weights(manifest, models, cache), cache)
    assert known.preprocessing_digest == shipped_like().preprocessing_digest
    assert find_weights(manifest, models, cache) == {"tiny.onnx": models / "tiny.onnx"}
    (models / "tiny.onnx").write_bytes(b"another network")
    with pytest.raises(ModelError) as caught:
        find_weights(manifest, models, cache)
    message = str(caught.value)
    assert DIGEST in message
    assert hashlib.sha256(b"another network").hexdigest() in message
    record = cache / "models" / "tiny" / "tiny.onnx.sha256"
    assert f"delete {record}" in message
    record.unlink()
    assert find_weights(manifest, models, cache)


def test_looking_at_what_is_there_trusts_nothing(tmp_path: Path) -> None:
    manifest = shipped_like(files=[{"name": "tiny.onnx"}])
    (tmp_path / "tiny.onnx").write_bytes(CONTENT)
    find_weights(manifest, tmp_path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_file_of_unknown_digest_is_pulled(server: Server, tmp_path: Path) -> None:
    manifest = shipped_like(files=[{"name": "tiny.onnx", "url": server.url}])
    assert pull(manifest, tmp_path)["tiny.onnx"].read_bytes() == CONTENT
    assert pull(manifest, tmp_path)
    assert len(server.ranges) == 1


def test_detectors_have_files_too_and_are_no_models(tmp_path: Path) -> None:
    ids = [each.id for each in list_weights()]
    assert {"yunet", "dlib-hog", "facenet", "vggface-vgg16", "vggface2-senet50"} < set(ids)
    assert load_weight_set("yunet").files[0].url
    with pytest.raises(ModelError, match="choose it with --detector yunet"):
        load_manifest("yunet")
    with pytest.raises(ModelError, match=r"take one of dlib-hog, yunet"):
        load_detector_manifest("haar")


@pytest.mark.parametrize(
    "behaviour",
    [endless_body(b"HTTP/1.1 200 OK"), bomb(b"HTTP/1.1 200 OK"), endless_body(b"HTTP/1.1 302 Found\r\nLocation: /")],
    ids=["endless", "bomb", "redirects"],
)
def test_a_download_takes_no_more_than_the_file_may_have(behaviour: Behaviour, tmp_path: Path) -> None:
    with serving(behaviour) as server, pytest.raises(ModelError):
        download(f"{server.url}/x", tmp_path / "x", sha256=DIGEST, size=len(CONTENT), retry_wait_s=0)
    left = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert left <= len(CONTENT)


def test_a_manifest_that_unfolds_or_nests_without_end_or_is_a_pipe_is_one_line(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]", *(f"a{one}: &a{one} [{', '.join([f'*a{one - 1}'] * 9)}]" for one in range(1, 10))]
    path, pipe = tmp_path / "model.yaml", tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    for content in ("\n".join(lines), "id: " + "[" * 5000):
        path.write_text(content)
        with pytest.raises(ModelError, match="is not valid YAML") as told:
            load_manifest(str(path))
        assert "\n" not in str(told.value)
    with pytest.raises(ModelError, match="no ordinary file"):
        load_manifest(str(pipe))
    path.write_text("# line\n" * 200_000 + "id: x\n")
    with pytest.raises(ModelError, match="is larger than"):
        load_manifest(str(path))
