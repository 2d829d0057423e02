"""Takes credentials out of text before anybody can read it."""

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic import ValidationError

# The scheme is a token up to its first ":" and slashes. Everything from there to the last "@" of the token is user
# information, even if the password holds "@", ":" or "/" unescaped: a malformed URL must not leak more than a good
# one. Anchored at the start of a token, so that long text takes linear time.
_USER_INFORMATION: Final = re.compile(r"(?<![^\s'\"<>])(?P<scheme>[^\s'\"<>:]*:[/\\]{0,3})[^\s'\"<>]*@")
# A password with white space or quotes in it: everything after "scheme://name:", unless a port follows the colon.
_BROKEN_USER_INFORMATION: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,31}://)[^\s/:@]{0,256}:(?!\d{1,5}(?:[/?#\s,;)'\"\]]|$))[^\n@]{0,256}@"
)
_NAMES: Final = (
    r"(?:password|passwd|passphrase|pwd|psw|pass|loginpas|token|secret|credentials?|api[_-]?key|auth|authbasic|"
    r"access[_-]?key|signature|sig)"
)
_SECRET_PARAMETER: Final = re.compile(
    r"(?P<name>(?:^|[?&;\s,'\"{(\[])[\w.-]{0,64}?" + _NAMES + r"['\"]?\s{0,8}[=:]\s{0,8})"
    r"(?P<secret>'[^']*'|\"[^\"]*\"|[^\s&;,'\")}]+)",
    re.IGNORECASE,
)
_QUERY_KEY: Final = re.compile(r"(?P<name>[?&]key=)[^\s&;,'\")}]+", re.IGNORECASE)
# The last part of a URL's path may be one of these words, with the rest of a sentence after it.
_AUTHORIZATION_HEADER: Final = re.compile(
    r"(?P<name>(?<![/\\])\bauthorization['\"]?\s{0,8}[:=]\s{0,8})[^\r\n]+", re.IGNORECASE
)
_AUTHORIZATION: Final = re.compile(
    r"(?P<name>(?<![/\\.-])\b(?:Bearer|Basic|Digest)\s{1,8})[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE
)
_WHOLE_URL: Final = re.compile(r"^(?P<scheme>\s*[^:/@]*:[/\\]{0,3}).*@", re.DOTALL)


def redact(text: str) -> str:
    """``text`` with the user information of URLs, secret parameters and authorisation values replaced by ``***``.

    Works on any text (a URL, a log line, a traceback) and on malformed URLs. If in doubt, it takes out too much rather
    than too little.
    """
    if "@" in text:
        text = _USER_INFORMATION.sub(r"\g<scheme>***@", text)
        text = _BROKEN_USER_INFORMATION.sub(r"\g<scheme>***@", text)
    text = _AUTHORIZATION_HEADER.sub(r"\g<name>***", text)
    text = _SECRET_PARAMETER.sub(r"\g<name>***", text)
    text = _QUERY_KEY.sub(r"\g<name>***", text)
    return _AUTHORIZATION.sub(r"\g<name>***", text)


def redact_url(url: str) -> str:
    """``url``, which must be one URL or path and nothing else, with its credentials replaced by ``***``.

    Stricter than :func:`redact`: everything between the scheme and the last ``@`` is replaced, including white space.
    """
    return redact(_WHOLE_URL.sub(r"\g<scheme>***@", url))


def first_problem(error: "ValidationError") -> str:
    """What is wrong with a document, as ``field: message``, with the number of further problems; holds no values."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    first = problems[0]
    field = ".".join(str(part) for part in first["loc"])
    message = "no such field" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return redact(f"{field}: {message}{more}" if field else message + more)
