import json
import re
import runpy
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.repository import REPOSITORY
from tests.support.sample_events import STARTED_AT, make_event
from worker.errors import SinkError
from worker.events.codec import SCHEMA, decode, encode, event_id, json_schema, sighting_id
from worker.types import Event

DOCUMENT = (REPOSITORY / "docs" / "events.md").read_text(encoding="utf-8")
VALIDATOR = jsonschema.Draft202012Validator(json_schema())

text = st.text(max_size=30)
cosine = st.none() | st.floats(-1, 1)
px = st.floats(-10_000, 10_000)
time = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
events = st.builds(
    Event,
    event_id=st.from_regex("[0-9a-f]{32}", fullmatch=True),
    type=st.sampled_from(["started", "updated", "ended", "corrected", "erased"]),
    camera_id=st.from_regex("[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    track_id=st.integers(0, 2**63 - 1),
    sighting_id=st.text(min_size=1, max_size=30),
    identity_id=text,
    identity_name=text,
    similarity=cosine,
    threshold=cosine,
    margin=st.none() | st.floats(-2, 2),
    quality=st.none() | st.floats(0, 1),
    box=st.tuples(px, px, px, px),
    frame_size=st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
    captured_at=time,
    started_at=time,
    ended_at=st.none() | time,
    pts_s=st.floats(-1e6, 1e9),
    model_id=text,
    gallery_version=st.integers(0, 2**40),
    worker_id=st.text(min_size=1, max_size=30),
    epoch=st.integers(0, 2**63 - 1),
    unknown_id=text,
    groups=text,
)


def rounded(event: Event) -> Event:
    """``event`` with the rounding that the wire format states."""

    def near(value: Any, within: float) -> Any:
        return None if value is None else pytest.approx(value, abs=within)

    def cosine(value: float | None) -> Any:
        return near(value, 0.5000001e-6)

    def time(value: datetime | None) -> Any:
        return None if value is None else value.replace(microsecond=value.microsecond // 1000 * 1000)

    return replace(
        event,
        similarity=cosine(event.similarity),
        threshold=cosine(event.threshold),
        margin=cosine(event.margin),
        quality=cosine(event.quality),
        box=near(event.box, 0.0050001),
        captured_at=time(event.captured_at),
        started_at=time(event.started_at),
        ended_at=time(event.ended_at),
        pts_s=near(event.pts_s, 1e-6),
    )


@given(events)
def test_an_event_survives_the_wire_up_to_the_stated_rounding(event: Event) -> None:
    once = decode(encode(event))
    assert once == rounded(event)
    assert decode(encode(once)) == once


@given(events)
def test_every_encoded_event_satisfies_the_shipped_schema(event: Event) -> None:
    VALIDATOR.validate(encode(event))


@given(events)
def test_what_redis_returns_as_bytes_is_read_alike(event: Event) -> None:
    encoded = encode(event)
    as_bytes = {name.encode(): value.encode() for name, value in encoded.items()}
    assert decode(as_bytes) == decode(encoded)


def test_the_schema_is_one_and_names_the_fields_of_an_event() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    names = {"schema"} | {field.name for field in fields(Event)}
    assert set(schema["required"]) == set(schema["properties"]) == names == set(encode(make_event()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schema", "facestream.sighting.v2"),
        ("event_id", "1"),
        ("type", "vanished"),
        ("captured_at", "2026-03-01T08:30:00Z"),
        ("captured_at", "2026-03-01 08:30:00.000+01:00"),
        ("captured_at", ""),
        ("box", "1,2,3"),
        ("similarity", "nan"),
        ("quality", "1.5"),
        ("track_id", ""),
    ],
)
def test_the_schema_refuses_what_is_no_event(name: str, value: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(encode(make_event()) | {name: value})


def test_fields_are_written_as_the_contract_says() -> None:
    local = timezone(timedelta(hours=2))
    event = make_event(
        captured_at=datetime(2026, 3, 1, 10, 30, 1, 999_999, tzinfo=local),
        ended_at=None,
        identity_id="",
        identity_name="",
        similarity=None,
        box=(0.0, -3.14159, 100.0, 200.5),
        pts_s=-0.0,
    )
    encoded = encode(event)
    assert encoded["schema"] == "facestream.sighting.v1"
    assert encoded["captured_at"] == "2026-03-01T08:30:01.999Z"
    assert encoded["box"] == "0,-3.14,100,200.5"
    assert encoded["frame_size"] == "1920,1080"
    assert encoded["pts_s"] == "0"
    assert encoded["epoch"] == "0"
    assert [encoded[name] for name in ("identity_id", "identity_name", "similarity", "ended_at")] == [""] * 4


def test_a_name_that_is_no_unicode_cannot_break_the_readers() -> None:
    assert encode(make_event(identity_name="Zo\udcff"))["identity_name"] == "Zo?"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        encode(make_event(similarity=value))


def test_unknown_fields_are_ignored() -> None:
    assert decode(encode(make_event()) | {"zone": "lobby"}) == make_event()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "facestream.sighting.v9"}, "schema 'facestream.sighting.v9' cannot be read"),
        ({"schema": None}, "no facestream event"),
        ({"box": None}, "lacks the field 'box'"),
        ({"box": "1,2,3"}, "field 'box' cannot be read: '1,2,3'"),
        ({"box": "1,2,3,inf"}, "field 'box'"),
        ({"frame_size": "wide"}, "field 'frame_size'"),
        ({"track_id": "x" * 5000}, "field 'track_id' cannot be read: 'xxx"),
        ({"type": "vanished"}, "field 'type'"),
        ({"similarity": "high"}, "field 'similarity'"),
        ({"captured_at": "yesterday"}, "field 'captured_at'"),
        ({"captured_at": "2026-03-01T08:30:00.000+01:00"}, "field 'captured_at'"),
        ({"captured_at": ""}, "field 'captured_at'"),
    ],
)
def test_what_is_no_event_is_refused_in_one_short_line(changes: dict[str, str | None], message: str) -> None:
    damaged = {name: value for name, value in (encode(make_event()) | changes).items() if value is not None}
    with pytest.raises(SinkError, match=re.escape(message)) as caught:
        decode(damaged)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_sighting_is_named_after_the_capture_of_its_first_frame() -> None:
    name = sighting_id("door", STARTED_AT, 7)
    assert name == "door_2026-03-01T08:30:00.123Z_7"
    assert encode(make_event())["started_at"] in name


@given(events, st.integers(0, 99))
def test_an_event_id_is_the_same_again_and_differs_for_any_other_transition(event: Event, ordinal: int) -> None:
    def name(**changes: Any) -> str:
        arguments: dict[str, Any] = {
            "sighting_id": event.sighting_id, "event_type": event.type, "ordinal": ordinal, "identity_id": "p-1",
        }  # fmt: skip
        return event_id(**(arguments | changes))

    assert name() == name()
    others = {
        name(sighting_id=event.sighting_id + "0"),
        name(ordinal=ordinal + 1),
        name(identity_id=""),
        name(previous_id="0" * 32),
        name(event_type="ended" if event.type != "ended" else "started"),
    }
    assert len(others) == 5
    assert name() not in others


def test_event_ids_stay_what_they_were() -> None:
    assert event_id("door_2026-03-01T08:30:00.123Z_7", "started") == "1ad89c876f564de6d961b670d0b59944"


def test_the_copies_in_the_repository_say_what_the_model_says() -> None:
    made = runpy.run_path(str(REPOSITORY / "docs/reference.py"))
    advice = "run 'python docs/reference.py'"
    shipped = (REPOSITORY / "worker/schemas/sighting.v1.json").read_text(encoding="utf-8")
    assert shipped == made["event_schema"](), advice
    assert f"{made['TABLE_BEGINS']}\n\n{made['event_table']()}\n\n{made['TABLE_ENDS']}" in DOCUMENT, advice


def test_the_documents_example_is_an_event() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    encoded = json.loads(example)
    VALIDATOR.validate(encoded)
    event = decode(encoded)
    assert encode(event) == encoded
    assert encoded["schema"] == SCHEMA
    assert event.sighting_id == sighting_id(event.camera_id, event.started_at, event.track_id)
    assert event.event_id == event_id(event.sighting_id, event.type, 0, event.identity_id)
