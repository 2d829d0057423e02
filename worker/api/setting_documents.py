"""What the operations on settings and the audit log answer with, and what they are given."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from worker.api.documents import Given, Risk
from worker.config.sections import Days


class AuditEntry(BaseModel):
    """One line of the audit log. It names nobody: ``subjects`` are digests of ids."""

    number: int
    at: str
    by: str
    action: str
    subjects: list[str]
    details: dict[str, Any]


class AuditPage(BaseModel):
    """Some lines of the audit log, newest first."""

    items: list[AuditEntry]
    next_before: int | None = Field(description="give it back as 'before' for earlier lines; null on the last page")


class AuditVerification(BaseModel):
    """Whether the log is whole."""

    lines: int
    problems: list[str] = Field(description="what was changed, taken out or cut off; empty if all is well")


class RetentionDocument(Given):
    """For how many days things are kept. Where that is null, each worker goes by its own configuration."""

    sightings_days: Days | None = Field(None, description="past sightings, after they were recorded")
    unknowns_days: Days | None = Field(None, description="unknown people, after they were seen last")
    pictures_days: Days | None = Field(None, description="pictures of sightings, after they were taken")


class ThresholdDocument(Risk):
    """From which similarity somebody is named, and how often that is wrong."""

    of: Literal["everybody", "camera", "group"]
    name: str = Field(description="the camera or the group; empty for everybody")
    false_alarm_days: float | None = Field(
        description="about once in so many days a stranger is taken for somebody, if as many come as did lately"
    )


class SettingsDocument(BaseModel):
    """What holds here. Days are those that are set for all; else those of the console's configuration, where workers go
    by their own."""

    risk: Risk | None = Field(description="null where nobody is enrolled yet")
    thresholds: list[ThresholdDocument] = Field(description="that of everybody, then those of cameras and groups")
    sightings_days: float
    unknowns_days: float
    pictures_days: float | None = Field(description="null where no pictures are kept")
    retention: RetentionDocument = Field(description="what is set for all who use this database")
    session_hours: float
