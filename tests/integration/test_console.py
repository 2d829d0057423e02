"""The console beside a real worker: who was unknown gets a name there, and the next sighting bears it."""

import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.command_line import RETAIL, facestream, running
from tests.support.console import API, PASSWORD

pytestmark = [pytest.mark.data, pytest.mark.slow]


def test_a_stranger_who_is_named_bears_the_name_at_the_next_sighting(
    tmp_path: Path, redis_url: str, test_data: Path
) -> None:
    for folder in ("photos", "pictures"):
        (tmp_path / folder).mkdir(mode=0o700)
    known = next(path for path in sorted((test_data / "photos" / "train" / "obama").iterdir()))
    shutil.copy(known, tmp_path / "photos" / "Barack.jpg")
    settings: dict[str, Any] = {
        "FACESTREAM_MODELS_DIR": str(test_data / "models"),
        "FACESTREAM_EVIDENCE__STORE": str(tmp_path / "pictures"),
        "FACESTREAM_DETECTION__DETECTOR": "yunet",
    }
    place = ["--gallery", tmp_path / "people"]
    assert facestream("enroll", *place, "--model", RETAIL, tmp_path / "photos", **settings).code == 0

    def pass_by(camera_id: str) -> None:
        clip = test_data / "video" / "speaker_katie_hill.mp4"
        done = facestream(
            "run", "--source", clip, "--camera-id", camera_id, *place, "--redis", redis_url, "--metrics-port", 0,
            **settings,
        )  # fmt: skip
        assert done.code == 0, done.stderr

    pass_by("lobby")
    with running("console", *place, "--redis", redis_url, "--port", 0, **settings) as console:
        told = console.until(lambda: re.search(r"(http://127\.0\.0\.1:\d+)/setup#(\S+)", "".join(console.stdout)))
        with httpx.Client(base_url=told[1], timeout=60) as client:
            made = client.post(f"{API}/setup", json={"code": told[2], "name": "root", "password": PASSWORD})
            client.headers["X-CSRF-Token"] = made.json()["csrf"]
            (seen,) = client.get(f"{API}/sightings").json()["items"]
            assert seen["identity_name"] == ""
            assert client.get(f"/faces/{seen['sighting_id']}").headers["content-type"] == "image/jpeg"
            shown = client.get(f"{API}/unknowns/{seen['unknown_id']}").json()
            assert shown["suggestions"][0]["similarity"] < shown["risk"]["threshold"]
            assert 0 < shown["risk"]["false_match_rate"] < 0.01
            named = client.post(f"{API}/unknowns/{seen['unknown_id']}/name", json={"identity_name": "Katie"})
            assert named.json()["corrected"] == 1
            pass_by("yard")
            names = [
                (each["camera_id"], each["identity_name"]) for each in client.get(f"{API}/sightings").json()["items"]
            ]
            assert sorted(names) == [("lobby", "Katie"), ("yard", "Katie")]
            found = client.post(f"{API}/search", files={"photo": ("a.jpg", known.read_bytes())})
            assert found.json()["items"] == [], "Barack was not there"
