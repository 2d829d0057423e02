"""Take credentials out of text before anybody can read it."""

import re
from typing import Final

# Everything from "scheme://" to the last "@" before the path is user information, even when the password
# itself holds "@", ":" or "/" unescaped: a malformed URL must not leak more than a good one.
_USER_INFORMATION: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:/{1,3})(?P<secret>[^\s'\"<>]*)@")
_SECRET_PARAMETER: Final = re.compile(
    r"(?P<name>(?:^|[?&;\s,'\"{(])(?:password|passwd|pwd|pass|token|secret|api_?key|auth|access_?key|signature)['\"]?\s*[=:]\s*)"
    r"(?P<secret>(?:'[^']*'|\"[^\"]*\"|[^\s&;,'\")}]+))",
    re.IGNORECASE,
)
_AUTHORIZATION: Final = re.compile(r"(?P<name>\b(?:Bearer|Basic|Digest)\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)


def redact(text: str) -> str:
    """``text`` with the user information of URLs, secret parameters and authorisation values replaced by ``***``.

    Works on any text (a URL, a log line, a traceback) and on malformed URLs.
    """
    text = _USER_INFORMATION.sub(r"\g<scheme>***@", text)
    text = _SECRET_PARAMETER.sub(r"\g<name>***", text)
    return _AUTHORIZATION.sub(r"\g<name>***", text)
