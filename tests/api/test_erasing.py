"""Somebody is erased by the API and on the page, with the receipt of ``facestream forget``."""

import json
import re
import shutil
from pathlib import Path

from tests.support.command_line import facestream
from tests.support.console import API, Console, console_config, form, keep_picture, of_anna, running_console
from tests.support.publishing import stored
from worker.gallery.opening import open_gallery
from worker.history.store import History


def left_of_anna(folder: Path) -> list[str]:
    with History.open(folder / "people.state") as history:
        return [past.sighting_id for past in history.sightings() if past.identity_id == "p-anna"]


def test_a_person_is_erased_everywhere_and_the_receipt_is_genuine(
    console: Console, tmp_path: Path, redis_url: str
) -> None:
    keep_picture(tmp_path / "pictures", of_anna(1))
    client = console.as_role("operator")
    plan = client.get(f"{API}/people/p-anna/erasure").json()
    assert (plan["name"], plan["samples"], plan["past_sightings"]) == ("Anna", 1, 4), (
        "and an unknown person who is as similar"
    )
    late = client.post(f"{API}/people/p-anna/erasure", headers={"If-Match": '"other"'})
    assert (late.status_code, left_of_anna(tmp_path)) == (412, ["door_1", "door_2"])
    told = client.post(f"{API}/people/p-anna/erasure").json()
    assert told["whole"] is True
    assert "Anna" not in json.dumps(told)
    assert any(place["place"] == "pictures of sightings" for place in told["receipt"]["places"])
    assert told["receipt"]["remains"]
    assert [person["identity_name"] for person in client.get(f"{API}/people").json()["items"]] == ["Bob"]
    assert left_of_anna(tmp_path) == []
    assert {event.type for event in stored(redis_url)} == {"erased"}
    assert client.get(f"{API}/erasures").json()["items"] == [told]
    kept = client.get(f"/erasures/{told['erasure_id']}/receipt")
    file = tmp_path / "receipt.json"
    file.write_bytes(kept.content)
    checked = facestream("forget", "--verify", str(file), "Anna", "--gallery", str(tmp_path / "people"), "--json")
    assert json.loads(checked.stdout)["about"] is True
    assert client.get(f"{API}/erasures/none").status_code == 404


def test_an_unknown_person_is_erased_on_the_page_which_tells_each_step(console: Console) -> None:
    client = console.as_role("operator")
    asked = client.get("/unknown/u-1/erase").text
    assert "Erase <bdi>u-1</bdi> everywhere" in asked
    told = form(client, "/unknown/u-1/erase", "/unknown/u-1/erase").text
    assert "Nothing is left within reach" in told
    assert "<li><bdi>past sightings, " in told
    assert "BGREWRITEAOF" in told, "what is out of reach"
    (link,) = re.findall(r'href="(/erasures/\w+/receipt)"', told)
    assert client.get(link).headers["content-disposition"].startswith("attachment")
    assert client.get("/unknown/u-1").status_code == 404
    assert link in client.get("/erasures").text
    assert console.as_role("viewer").get("/erasures").status_code == 403


def test_without_redis_nobody_is_erased_and_the_page_says_why(tmp_path: Path) -> None:
    with running_console(console_config(tmp_path, "redis://127.0.0.1:1/0")) as console:
        client = console.as_role("operator")
        told = form(client, "/people/p-anna/erase", "/people/p-anna/erase").text
        assert "nothing was changed" in told
        assert "Nothing is left" not in told
        refused = client.post(f"{API}/people/p-anna/erasure")
        assert (refused.status_code, "nothing was changed" in refused.json()["detail"]) == (409, True)
    assert [person.name for person in open_gallery(tmp_path / "people").people()] == ["Anna", "Bob"]


def test_an_unknown_person_is_erased_before_anybody_is_enrolled(console: Console, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "people")
    client = console.as_role("operator")
    assert client.get(f"{API}/unknowns/u-1/erasure").json()["past_sightings"] == 2
    told = client.post(f"{API}/unknowns/u-1/erasure")
    assert (told.status_code, told.json().get("whole")) == (200, True), told.text
    assert client.get(f"{API}/unknowns/u-1").status_code == 404
    refused = facestream("forget", "Anna", "--yes", "--no-events", "--gallery", str(tmp_path / "people"))
    assert (refused.code, "no gallery at" in refused.stderr) == (1, True), refused
