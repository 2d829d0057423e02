"""What the operations on rules and alerts answer with, and what they are given."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from worker.alerts.words import Names, Weekday
from worker.api.documents import Given


class RuleSettings(Given):
    """What a rule says. Where ``webhook``, ``webhook_secret`` and ``apprise`` are null, those of a rule that is there
    stay: they are not shown, because they may hold passwords."""

    name: str
    enabled: bool = True
    who: Literal["anyone", "known", "unknown"] = "anyone"
    people: Names = Field((), description="ids of people, one of whom it must be, or somebody of the groups")
    groups: Names = Field((), description="groups, one of which it must be, or one of the people")
    not_groups: Names = Field((), description="nobody of these groups")
    cameras: Names = Field((), description="none: all")
    weekdays: Annotated[tuple[Weekday, ...], Field(max_length=7)] = Field((), description="none: every day")
    after: str = Field("", description="time of the clock such as 20:00")
    before: str = Field("", description="time of the clock; one before 'after' is of the next day")
    time_zone: str = Field("UTC", description="such as Europe/Berlin")
    webhook: str | None = Field(None, description="https address; empty: none")
    webhook_secret: str | None = Field(None, description="signs what is sent; 16 characters or more")
    apprise: Annotated[list[str], Field(max_length=10)] | None = Field(None, description="addresses of Apprise")
    picture: bool = Field(False, description="whether the face is sent with it")


class ReceiverDocument(BaseModel):
    """Where alerts go; the address itself is not shown."""

    receiver: str
    address: str = Field(description="its kind, such as mailtos://***")


class RuleDocument(BaseModel):
    """A rule, without its secrets."""

    rule_id: str
    name: str
    enabled: bool
    who: str
    people: list[str]
    groups: list[str]
    not_groups: list[str]
    cameras: list[str]
    weekdays: list[str]
    after: str
    before: str
    time_zone: str
    picture: bool
    receivers: list[ReceiverDocument]


class RulesPage(BaseModel):
    """The rules, by name."""

    items: list[RuleDocument]


class TrialOutcome(ReceiverDocument):
    """What came back from a receiver."""

    taken: bool
    problem: str = Field(description="why it did not take the message; empty if it did")


class TrialDocument(BaseModel):
    """What came back from the receivers of a rule."""

    rule_id: str
    items: list[TrialOutcome]


class AlertDocument(BaseModel):
    """What became of an alert."""

    rule_id: str
    rule: str
    sighting_id: str
    address: str
    state: str = Field(description="due, sent or failed")
    problem: str
    tries: int
    made_at: str


class AlertsPage(BaseModel):
    """The newest alerts, newest first."""

    items: list[AlertDocument]
