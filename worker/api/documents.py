"""What several operations answer with, and are given; and those on erasures and on the state of everything. Times are
RFC 3339 in UTC."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=300)]


class Given(BaseModel):
    """What is sent to an operation: a field that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid")


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field("about:blank", description="kind of the problem")
    title: str = Field(description="the kind in words")
    status: int = Field(description="HTTP status")
    detail: str = Field(description="what is wrong with this request, and what to do next")


class Risk(BaseModel):
    """How often naming goes wrong here."""

    threshold: float = Field(description="cosine from which the stream names somebody")
    enrolled_samples: int
    is_calibrated: bool
    false_match_rate: float | None = Field(description="of one comparison at the threshold; null where not known")
    stranger_rate: float | None = Field(
        description="share of strangers who are taken for somebody at the threshold; null where not known"
    )
    from_: str = Field(alias="from", description="where the rates come from, in words")

    model_config = ConfigDict(populate_by_name=True)


class ErasurePlan(BaseModel):
    """How much there is of somebody, of what; all of it goes if they are erased."""

    name: str
    people: int
    samples: int
    crops: int = Field(description="kept pictures of enrolled faces")
    unknown_people: int
    past_sightings: int
    frames_of_others: int = Field(description="kept frames of others in which they may be")


class ErasedDocument(BaseModel):
    """Somebody was erased."""

    erasure_id: str
    asked_at: str
    finished_at: str
    whole: bool = Field(description="all within reach is gone, and each worker has said so")
    receipt: dict[str, Any] = Field(
        description="signed, as 'facestream forget' writes it: 'places' says what was removed where and when, "
        "'remains' what is out of reach and what to do about it. It names nobody"
    )


class ErasuresPage(BaseModel):
    """Some of the erasures, the newest first."""

    items: list[ErasedDocument]
    next_cursor: str | None


class WrongDocument(BaseModel):
    """Something that is wrong now."""

    what: str
    alert: str = Field(description="the alert of Prometheus that says the same; empty if there is none")
    runbook: str = Field(description="the page in 'docs/runbooks' that says what to do; empty if there is none")


class StatusDocument(BaseModel):
    """How everything is."""

    version: str
    workers: list[dict[str, Any]] = Field(description="as 'facestream status --json' has them")
    unowned: dict[str, str] = Field(description="cameras of the fleet that nobody reads, and why")
    problems: list[str] = Field(description="what is wrong now, one line each")
    wrong: list[WrongDocument] = Field(description="the same, with what to do")
    people: int | None
    gallery_version: int | None
