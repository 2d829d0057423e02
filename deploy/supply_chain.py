"""What is in an installation, and what is known against it: ``supply_chain.py sbom OUTPUT``, ``supply_chain.py audit``.

``sbom`` writes ``sbom.cdx.json`` (CycloneDX) and ``licences.md`` for exactly what ``requirements.txt`` pins, from what
is installed for the Python that ``PYTHON`` names. ``audit`` compares the pins with the known weaknesses of packages; it
fails where there is one, and where what is known cannot be had: an audit that saw nothing is none.

Both run with the Python of an environment in which cyclonedx-bom and pip-audit are (``make sbom``, ``make audit``).
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements.txt"
TOOLS = Path(sys.executable).parent


def pinned() -> dict[str, str]:
    """The version of each package that is pinned, by its normal name."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
    return {normal(name): version for name, version in found}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def sbom(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "sbom.cdx.json"
    python = os.environ.get("PYTHON", sys.executable)
    command = [TOOLS / "cyclonedx-py", "environment", "--of", "JSON", "--pyproject", ROOT / "pyproject.toml",
               "-o", target, python]  # fmt: skip
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    document = json.loads(target.read_text())
    pins = pinned()
    kept = [part for part in document["components"] if normal(part["name"]) in pins]
    references = {part["bom-ref"] for part in kept} | {document["metadata"]["component"]["bom-ref"]}
    document["components"] = kept
    document["dependencies"] = [
        one | ({"dependsOn": [each for each in one["dependsOn"] if each in references]} if "dependsOn" in one else {})
        for one in document.get("dependencies", [])
        if one["ref"] in references
    ]
    target.write_text(json.dumps(document, indent=1) + "\n")
    rows = sorted((part["name"].lower(), part["version"], licence(part)) for part in kept)
    lines = [f"| {name} | {version} | {text} |" for name, version, text in rows]
    (folder / "licences.md").write_text("\n".join(["| package | version | licence |", "|---|---|---|", *lines, ""]))
    missing = sorted(pins.keys() - {normal(part["name"]) for part in kept})
    print(f"{target}: {len(kept)} packages; {folder / 'licences.md'}")
    if missing:
        print(f"not installed here, so not described (other systems, extras): {', '.join(missing)}")
    return 0


def licence(part: dict[str, Any]) -> str:
    """Its licences in one line; the first line of a text."""
    texts = []
    for one in part.get("licenses", []):
        given = one.get("license", {})
        texts.append(one.get("expression") or given.get("id") or given.get("name") or "")
    named = [text.strip().splitlines()[0].replace("|", "/")[:80] for text in texts if text.strip()]
    return "; ".join(dict.fromkeys(named)) or "not stated"


def audit() -> int:
    command = [TOOLS / "pip-audit", "--disable-pip", "--require-hashes", "--format", "json", "--timeout", "10",
               "--progress-spinner", "off", "-r", REQUIREMENTS]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        packages = []
    seen = [package for package in packages if "skip_reason" not in package]
    if not seen:
        said = f"none of {len(packages)} packages is known there" if packages else _last_line(done.stderr)
        print(f"no audit: what is known of weaknesses cannot be had from here ({said}); run 'make audit' where it can")
        return 1
    found = 0
    for package in seen:
        for weakness in package["vulns"]:
            found += 1
            mended = ", ".join(weakness["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {weakness['id']}, mended in {mended}")
    print(f"{len(seen)} packages looked at, {len(packages) - len(seen)} unknown to the audit, {found} weaknesses")
    return 1 if found else 0


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["pip-audit said nothing"])[-1]


if __name__ == "__main__":
    sys.exit(sbom(Path(sys.argv[2])) if sys.argv[1] == "sbom" else audit())
