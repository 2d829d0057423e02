"""What goes wrong with accounts, their passwords, sessions and tokens."""

from worker.errors import FacestreamError


class LoginError(FacestreamError):
    """The name or the password is wrong. It does not say which."""


class TooManyAttemptsError(LoginError):
    """Too many log-ins have failed; the next one may come after ``wait_s``."""

    def __init__(self, wait_s: float) -> None:
        minutes = int(wait_s // 60) + 1
        super().__init__(f"too many failed log-ins: try again in {minutes} minute{'' if minutes == 1 else 's'}")
        self.wait_s = wait_s


class AccountError(FacestreamError):
    """An account or a token cannot be made or changed so."""


class NoSuchAccountError(AccountError):
    """There is no such account, session or token."""
