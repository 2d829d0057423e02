"""Pages that are made from the code when the documentation is built, so that they cannot say anything else."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

_ABOUT_CONFIGURATION = (
    "One YAML file; each field may be overridden by the environment (`FACESTREAM_`, `__` between levels) and by flags. "
    "`facestream config check` names every mistake with its line, `facestream config show` prints what is in force "
    "with credentials masked, `facestream config schema` prints the JSON Schema of all this. While a worker runs, "
    "changes of `cameras`, `recognition` and `log` are taken up by themselves."
)

TABLE_BEGINS = "<!-- The table of fields is made by `python docs/reference.py` from the model of the events. -->"
TABLE_ENDS = "<!-- End of the table of fields. -->"


def write(folder: Path) -> None:
    """Writes the pages into ``folder``; one that says the same stays as it is, so that nothing is built anew."""
    folder.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        page, text = folder / name, make()
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def commands() -> str:
    """Every command, with its arguments and options."""
    from worker.cli import app
    from worker.cli.help import EXAMPLES

    lines = ["# Commands", "", "Exit codes: 0 done, 1 something met in the world, 2 wrong arguments, 130 interrupted."]
    for name, command in _leaves("facestream", typer.main.get_command(app)):
        lines += ["", f"## {name}", "", _escaped(_paragraphs(command.help or "")), ""]
        parameters = [parameter for parameter in command.params if parameter.name != "help"]
        for example in EXAMPLES.get(name.removeprefix("facestream "), ()):
            lines.append(f"    {example}")
        lines.append("")
        if parameters:
            lines += ["| argument or option | meaning | default |", "|---|---|---|"]
        for parameter in parameters:
            names = ", ".join(f"`{option}`" for option in parameter.opts)
            if parameter.param_type_name == "argument":
                names = f"`{parameter.metavar or parameter.name.upper()}`"
            meaning = _escaped(_paragraphs(getattr(parameter, "help", None) or ""))
            lines.append(f"| {names} | {meaning} | {_default(parameter.default)} |")
    return "\n".join(lines) + "\n"


def configuration() -> str:
    """Every field of the configuration."""
    from worker.config import Config

    lines = [
        "# Configuration",
        "",
        _ABOUT_CONFIGURATION,
        "",
        *_fields(Config, ""),
    ]
    return "\n".join(lines) + "\n"


def metrics() -> str:
    """Every metric that a worker can have."""
    from worker.service.metrics import PrometheusObserver

    lines = [
        "# Metric names",
        "",
        "As the code registers them; [what they tell](../metrics.md) is written by hand.",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    observer = PrometheusObserver()
    for value in vars(observer).values():
        if all(hasattr(value, attribute) for attribute in ("_labelnames", "_documentation", "_type")):
            suffix = "_total" if value._type == "counter" else ""
            labels = ", ".join(f"`{label}`" for label in value._labelnames)
            lines.append(f"| `{value._name}{suffix}` | {value._type} | {labels} | {_escaped(value._documentation)} |")
    return "\n".join([*lines[:6], *sorted(lines[6:])]) + "\n"


def event_fields() -> str:
    """The fields of an event, and its JSON Schema."""
    lines = ["# Event fields", "", event_table(), "", "```json", event_schema().rstrip("\n"), "```"]
    return "\n".join(lines) + "\n"


def event_table() -> str:
    """The fields of an event as a table, which ``docs/events.md`` holds."""
    from worker.events.codec import field_forms, json_schema

    fields = json_schema()["properties"]
    rows = [f"| `{name}` | {_escaped(fields[name]['description'])} | {form} |" for name, form in field_forms().items()]
    return "\n".join(["| field | meaning | form |", "|---|---|---|", *rows])


def event_schema() -> str:
    """The JSON Schema of an event, as the package ships it in a file."""
    from worker.events.codec import json_schema

    return json.dumps(json_schema(), indent=2) + "\n"


def openapi() -> str:
    """The description of the console's API (OpenAPI 3.1), as ``docs/openapi.json`` holds it."""
    from worker.api.app import described

    return json.dumps(described(), indent=1, ensure_ascii=False) + "\n"


def write_copies(repository: Path) -> None:
    """Writes the copies that the repository keeps: the JSON Schema of an event, the table in ``docs/events.md``, the
    description of the API, and its client."""
    from api_client import source  # beside this file

    (repository / "docs" / "openapi.json").write_text(openapi(), encoding="utf-8")
    (repository / "worker" / "api" / "client.py").write_text(source(json.loads(openapi())), encoding="utf-8")
    (repository / "worker" / "schemas" / "sighting.v1.json").write_text(event_schema(), encoding="utf-8")
    page = repository / "docs" / "events.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(TABLE_BEGINS)
    after = rest.partition(TABLE_ENDS)[2]
    page.write_text(f"{before}{TABLE_BEGINS}\n\n{event_table()}\n\n{TABLE_ENDS}{after}", encoding="utf-8")


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "configuration.md": configuration,
    "metrics.md": metrics,
    "events.md": event_fields,
}


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if not children:
        yield name, command
        return
    for child, below in sorted(children.items()):
        yield from _leaves(f"{name} {child}", below)


def _fields(model: type[BaseModel], prefix: str) -> Iterator[str]:
    sections = []
    if prefix:
        yield from ("", f"## {prefix.rstrip('.').removesuffix('[]')}", "", _paragraphs(model.__doc__ or ""), "")
    yield from ("| field | default | meaning |", "|---|---|---|")
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            several = field.annotation is not section
            sections.append((section, f"{prefix}{name}{'[]' if several else ''}."))
            continue
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=False))
        yield f"| `{prefix}{name}` | {default} | {_escaped(field.description or '')} |"
    for section, below in sections:
        yield from _fields(section, below)


def _section(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _default(value: Any) -> str:
    if isinstance(value, SecretStr):
        return f"`{value.get_secret_value()}`"
    if value is None or value is PydanticUndefined or value == () or callable(value) or "Sentinel" in repr(value):
        return ""
    return f"`{value}`"


def _paragraphs(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    write_copies(Path(__file__).resolve().parent.parent)
