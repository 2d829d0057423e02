"""The templates of the Helm chart, made of the files that kustomize reads; ``deploy/generate.py`` writes them.

What a cluster decides becomes an expression; all else stays as it is in ``kubernetes/``.
"""

from pathlib import Path
from typing import Final

_DEPLOY: Final = Path(__file__).resolve().parent
_KUBERNETES: Final = _DEPLOY / "kubernetes"
CHART: Final = _DEPLOY / "helm" / "facestream"

Change = tuple[str, str]
"""A text of the file, which must be there, and what stands there instead, everywhere."""


def _label(name: str, indent: int) -> str:
    return f"{' ' * indent}app.kubernetes.io/name: {name}\n"


def _named(name: str) -> Change:
    return f"metadata:\n  name: {name}\n", f"metadata:\n  name: {name}\n  labels:\n{_label(name, 4)}"


def _with(value: str, indent: int, line: str, what: str = "with") -> str:
    """A line that stands there if there is a value, or with ``range`` for each one."""
    before = " " * indent
    return f"{before}{{{{- {what} .Values.{value} }}}}\n{before}{line}\n{before}{{{{- end }}}}\n"


def _pods(part: str, name: str) -> list[Change]:
    """What a cluster decides about the pods of ``part``, whose label is ``name``."""
    selector = f"  selector:\n    matchLabels:\n{_label(name, 6)}"
    head = f"    metadata:\n      labels:\n{_label(name, 8)}"
    if part == "worker":
        head += _with("worker.accelerator", 8, "accelerator: {{ . }}")
    head += f'      annotations:\n        checksum/config: {{{{ include "facestream.{part}" . | sha256sum }}}}\n'
    placed = "".join(
        _with(f"{part}.{each}", 6, f"{each}: {{{{- toYaml . | nindent 8 }}}}")
        for each in ("nodeSelector", "tolerations")
    )
    image = f".Values.{part}.image"
    return [
        _named(name),
        ("  template:\n    spec:\n", f"{selector}  template:\n{head}    spec:\n{placed}"),
        (f"image: {name}\n",
         f'image: "{{{{ {image}.repository }}}}:{{{{ {image}.tag | default .Chart.AppVersion }}}}"\n'),
        (f"secretName: {name},", f"secretName: {{{{ .Values.{part}.secret }}}},"),
    ]  # fmt: skip


def _resources(part: str, text: str) -> Change:
    return text, f"          resources: {{{{- toYaml .Values.{part}.resources | nindent 12 }}}}\n"


def _policy(name: str) -> list[Change]:
    """Who talks to whom."""
    named = {"monitoring": "monitoring", "redis": "redis", "postgres": "postgresql"}
    if name == "facestream-console":
        named["ingress-nginx"] = "ingress"
    namespaces = [(f"metadata.name: {each}}}", f"metadata.name: {{{{ .Values.namespaces.{value} }}}}}}")
                  for each, value in named.items()]  # fmt: skip
    cameras = [
        (_CAMERAS, _with("cameras.networks", 8, "- ipBlock: {cidr: {{ . }}}", "range")),
        (_PORTS, _with("cameras.ports", 8, "- {port: {{ . }}, protocol: TCP}", "range")),
    ]
    if name == "facestream-console":
        cameras += [
            (_RECEIVERS, _with("receivers.networks", 8, "- ipBlock: {{ toJson . }}", "range")),
            (_MESSAGES, _with("receivers.ports", 8, "- {port: {{ . }}, protocol: TCP}", "range")),
        ]
    return [_named(name), *namespaces, *cameras]


def _storage(part: str, indent: int) -> str:
    line = _with(f"{part}.storage.class", indent, "storageClassName: {{ . }}")
    return f"storage: {{{{ .Values.{part}.storage.size }}}}}}}}\n{line}"


_CAMERAS: Final = """        - ipBlock: {cidr: 10.0.0.0/8}
        - ipBlock: {cidr: 172.16.0.0/12}
        - ipBlock: {cidr: 192.168.0.0/16}
"""
_RECEIVERS: Final = (
    "        - ipBlock: {cidr: 0.0.0.0/0, "
    "except: [10.0.0.0/8, 100.64.0.0/10, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]}\n"
)
_MESSAGES: Final = "".join(f"        - {{port: {port}, protocol: TCP}}\n" for port in (443, 465, 587))
_PORTS: Final = "".join(f"        - {{port: {port}, protocol: TCP}}\n" for port in (554, 8554, 322))
_MADE: Final[dict[str, tuple[str, str, list[Change]]]] = {
    "serviceaccount": ("base", "", [_named("facestream")]),
    "service": ("base", "", [_named("facestream"),
                             ("  ports:\n", f"  selector:\n{_label('facestream', 4)}  ports:\n")]),
    "poddisruptionbudget": ("base", "", [_named("facestream")]),
    "statefulset": ("base", "", [
        *_pods("worker", "facestream"),
        ("replicas: 2\n", "replicas: {{ .Values.worker.replicas }}\n"),
        _resources("worker", "          resources:\n            requests: {cpu: \"2\", memory: 1536Mi}\n"
                             "            limits: {cpu: \"4\", memory: 3Gi}\n"),
        ("storage: 4Gi}}\n", _storage("worker", 8)),
    ]),
    "networkpolicy": ("base", "networkPolicy", [
        *_policy("facestream"),
    ]),
    "podmonitor": ("monitoring", "monitoring.enabled", [
        ("interval: 5s", "interval: {{ .Values.monitoring.interval }}"),
    ]),
    "deployment": ("console", "console.enabled", [
        *_pods("console", "facestream-console"),
        _resources("console", "          resources:\n            requests: {cpu: 250m, memory: 512Mi}\n"
                              "            limits: {cpu: \"2\", memory: 2Gi}\n"),
    ]),
    "service-console": ("console", "console.enabled", [
        _named("facestream-console"), ("  ports:\n", f"  selector:\n{_label('facestream-console', 4)}  ports:\n"),
    ]),
    "volume": ("console", "console.enabled", [
        _named("facestream-console"), ("storage: 1Gi}}\n", _storage("console", 2)),
    ]),
    "networkpolicy-console": ("console", "and .Values.console.enabled .Values.networkPolicy", [
        *_policy("facestream-console"),
    ]),
}  # fmt: skip
"""Of each template: the folder of its source, the value on which it depends, and what changes."""


def chart_files(rules: str) -> dict[Path, str]:
    """Each file of the chart that is made, and what stands in it; ``rules`` are those for the Prometheus operator."""
    files = {}
    for name, (folder, condition, changes) in _MADE.items():
        source = _KUBERNETES / folder / f"{name.removesuffix('-console')}.yaml"
        text = source.read_text(encoding="utf-8")
        for old, new in changes:
            if old not in text:
                raise SystemExit(f"{source} does not hold what deploy/chart.py changes: {old!r}")
            text = text.replace(old, new)
        if condition:
            asked = condition if " " in condition else f".Values.{condition}"
            text = f"{{{{- if {asked} }}}}\n{text}{{{{- end }}}}\n"
        note = f"{{{{- /* Made by deploy/chart.py from {source.relative_to(_DEPLOY).as_posix()}. */ -}}}}\n"
        files[CHART / "templates" / f"{name}.yaml"] = note + text
    # The texts of alerts hold expressions of Prometheus, which Helm would take for its own: they are read as a file.
    files[CHART / "files" / "rules.yaml"] = rules
    return files
