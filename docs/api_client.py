"""Makes ``worker/api/client.py``, the typed client, from the description of the API.

Each operation is one method; its body and its answer are the models that the API itself uses.
"""

import inspect
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

_HEAD = '''"""A typed client of the API of ``facestream console``; ``docs/console.md`` shows how it is used.

Made by ``python docs/reference.py`` from the description of the API: do not change it by hand.
"""
'''
_CLASS = '''

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
'''
_FOLDER = Path(__file__).resolve().parent.parent / "worker" / "api"
_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
_WIDTH = 105


def source(described: Mapping[str, Any]) -> str:
    """The module, for an API that is ``described`` so (OpenAPI)."""
    schemas = described["components"]["schemas"]
    methods, used = [], set[str]()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            methods.append(_method(path.removeprefix("/api/v1"), method.upper(), operation, schemas, used))
    lines = [_HEAD, "from collections.abc import Iterator, Sequence", "from typing import Literal, Self", ""]
    lines.append("from worker.api.asking import ApiError, Asking, ConsoleUnreachableError, LiveEvent, Photo")
    for name in sorted(f"worker.api.{path.stem}" for path in _FOLDER.glob("*documents.py")):
        module = import_module(name)
        found = sorted(each for each in used if getattr(module, each, None) and _home(module, each) == name)
        used -= set(found)
        lines += [f"from {name} import ({', '.join(found)})"] if found else []
    if used:
        raise SystemExit(f"put these models into a module worker/api/*documents.py: {', '.join(sorted(used))}")
    lines += ["", '__all__ = ["ApiError", "Console", "ConsoleUnreachableError", "LiveEvent", "Photo"]', _CLASS]
    return _formatted("\n".join([*lines, *methods]) + "\n")


def _home(module: Any, name: str) -> str:
    return str(inspect.getmodule(getattr(module, name)).__name__)  # type: ignore[union-attr] # a class has one


def _method(path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any], used: set[str]) -> str:
    name = operation["operationId"]
    told = textwrap.indent(textwrap.fill(" ".join(operation["description"].split()), _WIDTH), "        ").strip()
    parameters = operation.get("parameters", [])
    if "text/event-stream" in _good(operation):
        arguments, result = ["after: str | None = None"], "Iterator[LiveEvent]"
        call = f'self._ask.follow("{path}", after)'
    else:
        arguments, result, call = _ordinary(path, method, operation, parameters, schemas, used)
    begin = "return " if result != "None" else ""
    return (
        f'    def {name}(self, {", ".join(arguments)}) -> {result}:\n        """{told}"""\n        {begin}{call}\n'
    )  # fmt: skip


def _ordinary(
    path: str, method: str, operation: Mapping[str, Any], parameters: list[Any], schemas: Mapping[str, Any],
    used: set[str],
) -> tuple[list[str], str, str]:  # fmt: skip
    places = [each["name"] for each in parameters if each["in"] == "path"]
    query = [each for each in parameters if each["in"] == "query"]
    headers = {each["name"].lower() for each in parameters if each["in"] == "header"}
    required = [f"{place}: str" for place in places]
    optional = [f"{each['name']}: {_type(each['schema'])}{_default(each)}" for each in query]
    passed = places.copy()
    if query:
        named = ", ".join(f"{each['name']!r}: {each['name']}" for each in query)
        passed.append(f"query={{{named}}}")
    for kind, given in operation.get("requestBody", {}).get("content", {}).items():
        model = given["schema"]["$ref"].rpartition("/")[2]
        if kind == "application/json":
            used.add(model)
            required.append(f"body: {model}")
            passed.append("body=body")
        else:
            _form(schemas[model]["properties"], required, passed)
    if "if-match" in headers:
        optional.append("if_match: str | None = None")
        passed.append("if_match=if_match")
    if "idempotency-key" in headers:
        optional.append("idempotency_key: str | None = None")
        passed.append("key=idempotency_key, keyed=True")
    template = path
    for place in places:
        template = template.replace(f"{{{place}}}", "{}")
    result, call = _answer(operation, method, f'"{template}"', passed, schemas, used, [each["name"] for each in query])
    return [*required, *(["*", *optional] if optional else [])], result, call


def _default(parameter: Mapping[str, Any]) -> str:
    return "" if parameter.get("required") else f" = {parameter['schema'].get('default')!r}"


def _form(properties: Mapping[str, Any], required: list[str], passed: list[str]) -> None:
    files = [name for name, told in properties.items() if "contentMediaType" in str(told) or "binary" in str(told)]
    texts = [name for name in properties if name not in files]
    required += [f"{name}: str" for name in texts]
    required += [
        f"{name}: Photo | Sequence[Photo]" if properties[name].get("type") == "array" else f"{name}: Photo"
        for name in files
    ]
    if texts:
        passed.append(f"fields={{{', '.join(f'{name!r}: {name}' for name in texts)}}}")
    passed.append(f"files={{{', '.join(f'{name!r}: {name}' for name in files)}}}")


def _answer(
    operation: Mapping[str, Any], method: str, path: str, passed: list[str], schemas: Mapping[str, Any],
    used: set[str], query: list[str],
) -> tuple[str, str]:  # fmt: skip
    asked = ", ".join([f'"{method}"', path, *passed])
    for kind, told in _good(operation).items():
        if kind != "application/json":
            return "bytes", f"self._ask.content({asked})"
        model = told["schema"]["$ref"].rpartition("/")[2]
        used.add(model)
        place = next((name for name in query if f"next_{name}" in schemas[model]["properties"]), None)
        if place is None:
            return model, f"self._ask.one({model}, {asked})"
        item = schemas[model]["properties"]["items"]["items"]["$ref"].rpartition("/")[2]
        used.add(item)
        return f"Iterator[{item}]", f'self._ask.each({model}, "{place}", {", ".join([path, *passed])})'
    return "None", f"self._ask.none({asked})"


def _good(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the operation answers with, by media type."""
    return next(told for status, told in operation["responses"].items() if status < "300").get("content") or {}


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " | ".join(_type(each) for each in schema["anyOf"] if each.get("type") != "null") + " | None"
    if "enum" in schema:
        return f"Literal[{', '.join(map(repr, schema['enum']))}]"
    if schema.get("type") == "array":
        return f"Sequence[{_type(schema['items'])}]"
    return _TYPES[schema["type"]]


def _formatted(text: str) -> str:
    for command in (["check", "--select", "I,F401", "--fix", "-q"], ["format", "-q"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", "worker/api/client.py", "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return text
