"""A typed client of the API of ``facestream console``; ``docs/console.md`` shows how it is used.

Made by ``python docs/reference.py`` from the description of the API: do not change it by hand.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, Self

from worker.api.account_documents import (
    AccountChange,
    AccountDocument,
    AccountsPage,
    ChosenPassword,
    Credentials,
    EndedDocument,
    FirstAdmin,
    LinkDocument,
    MeDocument,
    NewAccount,
    NewToken,
    NewTokenDocument,
    PasswordChange,
    SessionsPage,
    TokensPage,
)
from worker.api.asking import ApiError, Asking, ConsoleUnreachableError, LiveEvent, Photo
from worker.api.camera_documents import CameraChange, CameraDocument, CamerasPage, CheckDocument, HoursPage, NewCamera
from worker.api.documents import ErasedDocument, ErasurePlan, ErasuresPage, StatusDocument
from worker.api.person_documents import (
    ConsentSettings,
    Enrolled,
    FindingDocument,
    FindingsPage,
    GroupDocument,
    Groups,
    GroupSettings,
    Memberships,
    PeopleMerged,
    PeopleMergePlan,
    PeoplePage,
    PersonChange,
    PersonDocument,
    Removed,
    SamplesPage,
)
from worker.api.rule_documents import AlertsPage, RuleDocument, RuleSettings, RulesPage, TrialDocument
from worker.api.setting_documents import AuditEntry, AuditPage, AuditVerification, RetentionDocument, SettingsDocument
from worker.api.sighting_documents import (
    CorrectionDocument,
    CorrectionRequest,
    Explanation,
    FacesPage,
    Found,
    NearPage,
    SightingDocument,
    SightingsPage,
    Timeline,
)
from worker.api.unknown_documents import (
    AlikePage,
    MergeRequest,
    NamedDocument,
    NameRequest,
    SplitDocument,
    SplitRequest,
    StepDocument,
    UndoneDocument,
    UnknownDetail,
    UnknownDocument,
    UnknownsPage,
)

__all__ = ["ApiError", "Console", "ConsoleUnreachableError", "LiveEvent", "Photo"]


class Console:
    """The console at ``address``. ``token`` is one that an account has made there; ``verify``: as for httpx, such as
    the path of a certificate. Each method is the operation of that name.

    A request is sent again, a few times, if the console is away or busy and doing it twice is the same as doing it
    once: it reads, replaces, or has a key, which is made if none is given. Methods that give an iterator ask for the
    next page as it is needed. A context manager. Safe to use from any thread, but for ``etag``.

    All methods raise ApiError if the console refuses, and ConsoleUnreachableError if no answer comes.
    """

    def __init__(self, address: str, token: str = "", *, timeout_s: float = 30.0, verify: bool | str = True) -> None:
        self._ask = Asking(address, token, timeout_s=timeout_s, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._ask.close()

    @property
    def etag(self) -> str | None:
        """The ETag of the last answer that had one: give it back as ``if_match`` of a change."""
        return self._ask.etag

    def list_people(
        self,
        *,
        q: str = "",
        group: str = "",
        consent: Literal["ending", "over"] | None = None,
        seen: bool = False,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Iterator[PersonDocument]:
        """Everybody who is enrolled, by name."""
        return self._ask.each(
            PeoplePage,
            "cursor",
            "/people",
            query={"q": q, "group": group, "consent": consent, "seen": seen, "cursor": cursor, "limit": limit},
        )

    def enroll_person(
        self, identity_name: str, photos: Photo | Sequence[Photo], *, idempotency_key: str | None = None
    ) -> Enrolled:
        """Enrol photos of one person, as ``facestream enroll`` does; who is enrolled already gets further samples."""
        return self._ask.one(
            Enrolled,
            "POST",
            "/people",
            fields={"identity_name": identity_name},
            files={"photos": photos},
            key=idempotency_key,
            keyed=True,
        )

    def show_person(self, identity_id: str) -> PersonDocument:
        """One person, and where they were seen last."""
        return self._ask.one(PersonDocument, "GET", "/people/{}", identity_id)

    def rename_person(self, identity_id: str, body: PersonChange, *, if_match: str | None = None) -> PersonDocument:
        """Give a person another name; the id stays."""
        return self._ask.one(PersonDocument, "PATCH", "/people/{}", identity_id, body=body, if_match=if_match)

    def remove_person(self, identity_id: str, *, if_match: str | None = None) -> Removed:
        """Remove a person with all samples, as ``facestream gallery remove`` does."""
        return self._ask.one(Removed, "DELETE", "/people/{}", identity_id, if_match=if_match)

    def set_consent(self, identity_id: str, body: ConsentSettings, *, if_match: str | None = None) -> PersonDocument:
        """Note from when until when a person may be recognised, as ``facestream gallery consent`` does."""
        return self._ask.one(PersonDocument, "PUT", "/people/{}/consent", identity_id, body=body, if_match=if_match)

    def clear_consent(self, identity_id: str, *, if_match: str | None = None) -> PersonDocument:
        """Forget the consent of a person: nothing bounds the time."""
        return self._ask.one(PersonDocument, "DELETE", "/people/{}/consent", identity_id, if_match=if_match)

    def list_samples(self, identity_id: str) -> SamplesPage:
        """Every enrolled face of a person: where it came from, and how good it is."""
        return self._ask.one(SamplesPage, "GET", "/people/{}/samples", identity_id)

    def remove_sample(self, identity_id: str, sample_id: str, *, if_match: str | None = None) -> None:
        """Remove one face of a person who has others."""
        self._ask.none("DELETE", "/people/{}/samples/{}", identity_id, sample_id, if_match=if_match)

    def list_groups(
        self,
    ) -> Groups:
        """The groups of people."""
        return self._ask.one(Groups, "GET", "/groups")

    def show_group(self, group: str) -> GroupDocument:
        """One group of people."""
        return self._ask.one(GroupDocument, "GET", "/groups/{}", group)

    def set_group(self, group: str, body: GroupSettings, *, if_match: str | None = None) -> GroupDocument:
        """Make a group or set it anew, as ``facestream gallery group set`` does."""
        return self._ask.one(GroupDocument, "PUT", "/groups/{}", group, body=body, if_match=if_match)

    def delete_group(self, group: str, *, if_match: str | None = None) -> None:
        """Delete a group; its people stay."""
        self._ask.none("DELETE", "/groups/{}", group, if_match=if_match)

    def regroup_person(self, identity_id: str, body: Memberships, *, if_match: str | None = None) -> PersonDocument:
        """Put a person into these groups, and take them out of all others."""
        return self._ask.one(PersonDocument, "PUT", "/people/{}/groups", identity_id, body=body, if_match=if_match)

    def list_sightings(
        self,
        *,
        identity_id: str | None = None,
        unknown_id: str | None = None,
        camera_id: str | None = None,
        since: str | None = None,
        until: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Iterator[SightingDocument]:
        """The sightings that went on between two times, newest first."""
        return self._ask.each(
            SightingsPage,
            "cursor",
            "/sightings",
            query={
                "identity_id": identity_id,
                "unknown_id": unknown_id,
                "camera_id": camera_id,
                "since": since,
                "until": until,
                "cursor": cursor,
                "limit": limit,
            },
        )

    def show_sighting(self, sighting_id: str) -> SightingDocument:
        """One sighting."""
        return self._ask.one(SightingDocument, "GET", "/sightings/{}", sighting_id)

    def explain_sighting(self, sighting_id: str) -> Explanation:
        """What happened to the faces of a sighting, and why it ended as it did."""
        return self._ask.one(Explanation, "GET", "/sightings/{}/explanation", sighting_id)

    def list_nearest(self, sighting_id: str) -> NearPage:
        """The enrolled people whom a sighting resembles most, with the face of each that is the most similar."""
        return self._ask.one(NearPage, "GET", "/sightings/{}/nearest", sighting_id)

    def show_timeline(self, sighting_id: str) -> Timeline:
        """What is kept of the verdicts of a sighting, oldest first."""
        return self._ask.one(Timeline, "GET", "/sightings/{}/timeline", sighting_id)

    def correct_sighting(
        self, sighting_id: str, body: CorrectionRequest, *, if_match: str | None = None
    ) -> CorrectionDocument:
        """Say whom a sighting shows, if not the person whom it names; that face is not named so again."""
        return self._ask.one(
            CorrectionDocument, "POST", "/sightings/{}/correction", sighting_id, body=body, if_match=if_match
        )

    def undo_correction(self, sighting_id: str, *, if_match: str | None = None) -> CorrectionDocument:
        """Take the last correction of a sighting back."""
        return self._ask.one(CorrectionDocument, "DELETE", "/sightings/{}/correction", sighting_id, if_match=if_match)

    def find_faces(self, photo: Photo) -> FacesPage:
        """The people in a photo, from left to right, each as a picture: to choose one for ``/search``. It is one
        alone where it is clear who is meant."""
        return self._ask.one(FacesPage, "POST", "/faces", files={"photo": photo})

    def search_photo(self, photo: Photo, *, face: int | None = None, limit: int = 50) -> Found:
        """The past sightings of the person in a photo, as ``facestream search`` lists them. The photo is not kept."""
        return self._ask.one(Found, "POST", "/search", query={"face": face, "limit": limit}, files={"photo": photo})

    def show_face(self, sighting_id: str, *, side_px: int = 240) -> bytes:
        """The best face of a sighting, if pictures are kept (``evidence.store``)."""
        return self._ask.content("GET", "/sightings/{}/face", sighting_id, query={"side_px": side_px})

    def show_scene(self, sighting_id: str, *, side_px: int = 1920) -> bytes:
        """The frame from which the best face of a sighting is, if frames are kept (``evidence.frames``)."""
        return self._ask.content("GET", "/sightings/{}/scene", sighting_id, query={"side_px": side_px})

    def show_sample(self, identity_id: str, sample_id: str, *, side_px: int = 240) -> bytes:
        """An enrolled face, if it was enrolled with its picture (``enroll --keep-crops``)."""
        return self._ask.content(
            "GET", "/people/{}/samples/{}/face", identity_id, sample_id, query={"side_px": side_px}
        )

    def list_unknowns(
        self, *, cursor: str | None = None, limit: int = 50, ignored: bool = False
    ) -> Iterator[UnknownDocument]:
        """Who was seen and is not enrolled, those first who were seen most often."""
        return self._ask.each(
            UnknownsPage, "cursor", "/unknowns", query={"cursor": cursor, "limit": limit, "ignored": ignored}
        )

    def show_unknown(self, unknown_id: str) -> UnknownDetail:
        """One unknown person, whom they resemble, and what naming them risks; ``/sightings?unknown_id=`` has the
        past."""
        return self._ask.one(UnknownDetail, "GET", "/unknowns/{}", unknown_id)

    def forget_unknown(self, unknown_id: str, *, if_match: str | None = None) -> None:
        """Delete what an unknown person is recognised by; the next sighting is of somebody new. It cannot be
        undone."""
        self._ask.none("DELETE", "/unknowns/{}", unknown_id, if_match=if_match)

    def name_unknown(self, unknown_id: str, body: NameRequest, *, idempotency_key: str | None = None) -> NamedDocument:
        """Give an unknown person a name: they are enrolled, and their past sightings are published as corrected."""
        return self._ask.one(
            NamedDocument, "POST", "/unknowns/{}/name", unknown_id, body=body, key=idempotency_key, keyed=True
        )

    def merge_unknowns(
        self, unknown_id: str, body: MergeRequest, *, idempotency_key: str | None = None
    ) -> StepDocument:
        """Two ids are one person: this one gets all sightings of the other, which are published as corrected. It
        can be undone."""
        return self._ask.one(
            StepDocument, "POST", "/unknowns/{}/merge", unknown_id, body=body, key=idempotency_key, keyed=True
        )

    def split_unknown(
        self, unknown_id: str, body: SplitRequest, *, idempotency_key: str | None = None
    ) -> SplitDocument:
        """One id is two people: these sightings go to somebody new. It can be undone."""
        return self._ask.one(
            SplitDocument, "POST", "/unknowns/{}/split", unknown_id, body=body, key=idempotency_key, keyed=True
        )

    def ignore_unknown(self, unknown_id: str) -> None:
        """Do not ask about this person any more; ``GET /unknowns?ignored=true`` lists them."""
        self._ask.none("PUT", "/unknowns/{}/ignored", unknown_id)

    def heed_unknown(self, unknown_id: str) -> None:
        """Ask about this person again."""
        self._ask.none("DELETE", "/unknowns/{}/ignored", unknown_id)

    def undo_step(self, step: str) -> UndoneDocument:
        """Take a merge, a split or a name back; sightings that bore the name are published as corrected."""
        return self._ask.one(UndoneDocument, "POST", "/steps/{}/undo", step)

    def plan_erasure_of_person(self, identity_id: str) -> ErasurePlan:
        """What there is of a person, everywhere, before anything is changed."""
        return self._ask.one(ErasurePlan, "GET", "/people/{}/erasure", identity_id)

    def erase_person(
        self, identity_id: str, *, if_match: str | None = None, idempotency_key: str | None = None
    ) -> ErasedDocument:
        """Erase a person everywhere, as ``facestream forget`` does; the answer comes when all is done, with the
        signed receipt. It cannot be undone."""
        return self._ask.one(
            ErasedDocument,
            "POST",
            "/people/{}/erasure",
            identity_id,
            if_match=if_match,
            key=idempotency_key,
            keyed=True,
        )

    def plan_erasure_of_unknown(self, unknown_id: str) -> ErasurePlan:
        """What there is of an unknown person, everywhere, before anything is changed."""
        return self._ask.one(ErasurePlan, "GET", "/unknowns/{}/erasure", unknown_id)

    def erase_unknown(
        self, unknown_id: str, *, if_match: str | None = None, idempotency_key: str | None = None
    ) -> ErasedDocument:
        """Erase an unknown person everywhere, as ``facestream forget`` does. It cannot be undone."""
        return self._ask.one(
            ErasedDocument,
            "POST",
            "/unknowns/{}/erasure",
            unknown_id,
            if_match=if_match,
            key=idempotency_key,
            keyed=True,
        )

    def list_erasures(self, *, cursor: str | None = None, limit: int = 50) -> Iterator[ErasedDocument]:
        """The erasures of which this installation keeps a receipt, the newest first."""
        return self._ask.each(ErasuresPage, "cursor", "/erasures", query={"cursor": cursor, "limit": limit})

    def show_erasure(self, erasure_id: str) -> ErasedDocument:
        """One erasure; ``receipt`` as a file is what ``facestream forget --verify`` checks."""
        return self._ask.one(ErasedDocument, "GET", "/erasures/{}", erasure_id)

    def list_findings(
        self, *, identity_id: str = "", cursor: str | None = None, limit: int = 50
    ) -> Iterator[FindingDocument]:
        """What is worth a look in the gallery, as ``facestream gallery audit`` finds it: the gravest first."""
        return self._ask.each(
            FindingsPage, "cursor", "/findings", query={"identity_id": identity_id, "cursor": cursor, "limit": limit}
        )

    def list_rules(
        self,
    ) -> RulesPage:
        """All rules; addresses are not shown."""
        return self._ask.one(RulesPage, "GET", "/rules")

    def create_rule(self, body: RuleSettings, *, idempotency_key: str | None = None) -> RuleDocument:
        """Make a rule. It is about what is captured from now on."""
        return self._ask.one(RuleDocument, "POST", "/rules", body=body, key=idempotency_key, keyed=True)

    def show_rule(self, rule_id: str) -> RuleDocument:
        """One rule; addresses are not shown."""
        return self._ask.one(RuleDocument, "GET", "/rules/{}", rule_id)

    def change_rule(self, rule_id: str, body: RuleSettings, *, if_match: str | None = None) -> RuleDocument:
        """Let a rule say something else. Addresses that are null stay as they are."""
        return self._ask.one(RuleDocument, "PUT", "/rules/{}", rule_id, body=body, if_match=if_match)

    def delete_rule(self, rule_id: str, *, if_match: str | None = None) -> None:
        """Delete a rule; what it would still have told is not told."""
        self._ask.none("DELETE", "/rules/{}", rule_id, if_match=if_match)

    def try_rule(self, rule_id: str) -> TrialDocument:
        """Send one message, which says that it is a test, to each receiver of a rule; it takes up to 20 seconds.
        The answer says what came back. A webhook gets it with the field ``test``."""
        return self._ask.one(TrialDocument, "POST", "/rules/{}/try", rule_id)

    def list_alerts(self, *, limit: int = 50) -> AlertsPage:
        """What became of the newest alerts."""
        return self._ask.one(AlertsPage, "GET", "/alerts", query={"limit": limit})

    def list_suggestions(
        self,
    ) -> AlikePage:
        """Unknown people who resemble the same enrolled person, and how often a stranger is taken for that person."""
        return self._ask.one(AlikePage, "GET", "/suggestions")

    def plan_merge_of_people(self, identity_id: str, *, other: str) -> PeopleMergePlan:
        """What changes if ``other`` is the same person, and how sure that is. Its ETag is of both people."""
        return self._ask.one(PeopleMergePlan, "GET", "/people/{}/merge", identity_id, query={"other": other})

    def merge_people(
        self, identity_id: str, body: MergeRequest, *, if_match: str | None = None, idempotency_key: str | None = None
    ) -> PeopleMerged:
        """Two entries are one person: this one keeps id and name, and gets samples, groups and past sightings of
        the other. It can be undone. The ETag is that of the plan."""
        return self._ask.one(
            PeopleMerged,
            "POST",
            "/people/{}/merge",
            identity_id,
            body=body,
            if_match=if_match,
            key=idempotency_key,
            keyed=True,
        )

    def follow_events(self, after: str | None = None) -> Iterator[LiveEvent]:
        """Events as they come; the data are the fields of ``facestream tail --json``. With the id of an event, what
        came after it comes first: nothing is missed."""
        return self._ask.follow("/events", after)

    def list_cameras(self, *, q: str = "", cursor: str | None = None, limit: int = 50) -> Iterator[CameraDocument]:
        """The cameras, by id: state, owner, frames a second, delay, drops and why, faces that could not be used and
        why."""
        return self._ask.each(CamerasPage, "cursor", "/cameras", query={"q": q, "cursor": cursor, "limit": limit})

    def add_camera(self, body: NewCamera, *, idempotency_key: str | None = None) -> CameraDocument:
        """Have one worker of the fleet read a network camera, as ``facestream camera add``; ``/cameras/check``
        tests it."""
        return self._ask.one(CameraDocument, "POST", "/cameras", body=body, key=idempotency_key, keyed=True)

    def check_camera(self, body: NewCamera) -> CheckDocument:
        """Look through a camera once, without adding it: a picture, or the reason why there is none."""
        return self._ask.one(CheckDocument, "POST", "/cameras/check", body=body)

    def show_camera(self, camera_id: str) -> CameraDocument:
        """One camera. Its password is never shown."""
        return self._ask.one(CameraDocument, "GET", "/cameras/{}", camera_id)

    def change_camera(self, camera_id: str, body: CameraChange, *, if_match: str | None = None) -> CameraDocument:
        """Change what is given; what is left out stays, also the password. ``paused`` pauses and resumes."""
        return self._ask.one(CameraDocument, "PATCH", "/cameras/{}", camera_id, body=body, if_match=if_match)

    def remove_camera(self, camera_id: str, *, if_match: str | None = None) -> None:
        """Stop reading a camera, and forget its definition; past sightings stay."""
        self._ask.none("DELETE", "/cameras/{}", camera_id, if_match=if_match)

    def look_through_camera(self, camera_id: str) -> bytes:
        """One picture through a camera of the fleet, as it is now."""
        return self._ask.content("GET", "/cameras/{}/picture", camera_id)

    def list_camera_hours(self, camera_id: str, *, most: int = 48) -> HoursPage:
        """How many faces were out of focus or badly lit, hour by hour, as far as the past is kept."""
        return self._ask.one(HoursPage, "GET", "/cameras/{}/hours", camera_id, query={"most": most})

    def show_status(
        self,
    ) -> StatusDocument:
        """Workers, cameras, and what is wrong now."""
        return self._ask.one(StatusDocument, "GET", "/status")

    def show_settings(
        self,
    ) -> SettingsDocument:
        """The thresholds in use and how often they are wrong, and how long things are kept."""
        return self._ask.one(SettingsDocument, "GET", "/settings")

    def show_retention(
        self,
    ) -> RetentionDocument:
        """For how long things are kept, as far as that is set for all workers on this database."""
        return self._ask.one(RetentionDocument, "GET", "/retention")

    def change_retention(self, body: RetentionDocument, *, if_match: str | None = None) -> RetentionDocument:
        """Set for how long things are kept, for all workers on this database and ``facestream database expire``.
        What is too old by it is removed; what was recorded before is not kept longer than was said then."""
        return self._ask.one(RetentionDocument, "PUT", "/retention", body=body, if_match=if_match)

    def list_audit(
        self, *, about: str = "", action: str = "", by: str = "", before: int | None = None, limit: int = 50
    ) -> Iterator[AuditEntry]:
        """The audit log, newest first, as ``facestream audit list``."""
        return self._ask.each(
            AuditPage,
            "before",
            "/audit",
            query={"about": about, "action": action, "by": by, "before": before, "limit": limit},
        )

    def verify_audit(
        self,
    ) -> AuditVerification:
        """Whether the audit log is whole, as ``facestream audit verify``."""
        return self._ask.one(AuditVerification, "GET", "/audit/verification")

    def set_up(self, body: FirstAdmin) -> MeDocument:
        """Make the first admin, with the code that the console has written to its standard output, and log in."""
        return self._ask.one(MeDocument, "POST", "/setup", body=body)

    def log_in(self, body: Credentials) -> MeDocument:
        """Log in: the answer sets the cookie of a session."""
        return self._ask.one(MeDocument, "POST", "/session", body=body)

    def log_out(
        self,
    ) -> None:
        """Log out."""
        self._ask.none("DELETE", "/session")

    def show_me(
        self,
    ) -> MeDocument:
        """Who asks, and what they may do."""
        return self._ask.one(MeDocument, "GET", "/me")

    def change_own_password(self, body: PasswordChange) -> None:
        """Choose another password of one's own, by the old one; all other sessions end."""
        self._ask.none("PUT", "/me/password", body=body)

    def choose_password(self, body: ChosenPassword) -> AccountDocument:
        """Choose the password of the account whose link this is; the link is used up, and all sessions of the
        account end."""
        return self._ask.one(AccountDocument, "POST", "/password", body=body)

    def list_sessions(
        self,
    ) -> SessionsPage:
        """Where the caller is logged in."""
        return self._ask.one(SessionsPage, "GET", "/sessions")

    def end_other_sessions(
        self,
    ) -> EndedDocument:
        """Log the caller out everywhere else."""
        return self._ask.one(EndedDocument, "DELETE", "/sessions")

    def end_session(self, session_id: str) -> None:
        """End one session of the caller."""
        self._ask.none("DELETE", "/sessions/{}", session_id)

    def list_tokens(
        self,
    ) -> TokensPage:
        """The tokens of the caller; those of everybody for the scope ``manage``."""
        return self._ask.one(TokensPage, "GET", "/tokens")

    def create_token(self, body: NewToken, *, idempotency_key: str | None = None) -> NewTokenDocument:
        """Make a token for a program. Its secret is shown this once."""
        return self._ask.one(NewTokenDocument, "POST", "/tokens", body=body, key=idempotency_key, keyed=True)

    def revoke_token(self, token_id: str) -> None:
        """End a token of the caller; anybody's for the scope ``manage``."""
        self._ask.none("DELETE", "/tokens/{}", token_id)

    def list_accounts(
        self,
    ) -> AccountsPage:
        """Everybody who may use the console."""
        return self._ask.one(AccountsPage, "GET", "/accounts")

    def create_account(self, body: NewAccount, *, idempotency_key: str | None = None) -> AccountDocument:
        """Make an account. Without a password, ``/accounts/{name}/link`` lets somebody choose it."""
        return self._ask.one(AccountDocument, "POST", "/accounts", body=body, key=idempotency_key, keyed=True)

    def change_account(self, name: str, body: AccountChange) -> AccountDocument:
        """Give an account another role, other cameras, or another password, which ends its sessions; or disable it,
        which ends its sessions and stops its tokens."""
        return self._ask.one(AccountDocument, "PATCH", "/accounts/{}", name, body=body)

    def remove_account(self, name: str) -> None:
        """Remove an account with its sessions and tokens."""
        self._ask.none("DELETE", "/accounts/{}", name)

    def make_password_link(self, name: str) -> LinkDocument:
        """Make a link with which somebody chooses the password of an account, once, within two days. The link
        before holds no more."""
        return self._ask.one(LinkDocument, "POST", "/accounts/{}/link", name)

    def end_sessions_of(self, name: str) -> EndedDocument:
        """End all sessions of an account."""
        return self._ask.one(EndedDocument, "DELETE", "/accounts/{}/sessions", name)
