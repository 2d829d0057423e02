"""What is installed: the wheel holds all it needs, and the rules of the source hold."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.repository import REPOSITORY

PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
SOURCES = sorted((REPOSITORY / "worker").rglob("*.py"))
# Only these may read the environment; the others hand it on to a process, or ask what libpq was told there.
ENVIRONMENT_OWNERS = {
    "api/erasing.py",  # hands it on, without the width of a terminal
    "config/environment.py",
    "config/loading.py",
    "alerts/delivery.py",
    "bench/contest.py",
    "bench/live.py",
    "database/backup.py",
    "database/database.py",
    "cli/options.py",
    "cli/parsing.py",
    "cli/screen.py",
    "faces/device/runtimes.py",
    "faces/engines/backend.py",
    "faces/networks/conversion.py",
    "faces/networks/h5.py",
    "faces/networks/face_cnn.py",
    "faces/networks/parity.py",
    "video/child_video.py",  # hands on a few of its variables
}

# dlib-bin does not say that it provides dlib; gi belongs to the system's own Python.
_UNLISTED = {"dlib": "dlib-bin"}
_SYSTEM_MODULES = {"gi"}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", folder, REPOSITORY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, away from the repository."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", folder, wheel], check=True, capture_output=True)
    return folder


def test_the_wheel_holds_the_package_its_manifests_schemas_and_licence_and_no_weights(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for source in (path.relative_to(REPOSITORY).as_posix() for path in SOURCES):
        assert source in names
    manifests = REPOSITORY / "models"
    assert {f"worker/manifests/{path.relative_to(manifests)}" for path in manifests.rglob("*.yaml")} <= names
    scripts = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "worker").rglob("*.lua")}
    assert scripts
    assert scripts <= names
    assert {f"worker/schemas/{path.name}" for path in (REPOSITORY / "worker/schemas").iterdir()} <= names
    pages = [path for path in (REPOSITORY / "worker/console").rglob("*.*") if path.suffix in {".html", ".css", ".js"}]
    assert len(pages) > 10
    assert {path.relative_to(REPOSITORY).as_posix() for path in pages} <= names
    runbooks = {f"worker/console/runbooks/{path.name}" for path in (REPOSITORY / "docs/runbooks").glob("*.md")}
    assert len(runbooks) > 10
    assert runbooks <= names
    assert "worker/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith((".h5", ".onnx", ".dat", ".bin", ".npz"))]
    assert not [name for name in names if name.startswith("tests/")]


def test_the_installed_wheel_lists_its_models_and_loads_nothing_from_the_repository(installed: Path) -> None:
    done = _python(installed, "-m", "worker", "models", "list", "--json")
    assert done.returncode == 0, done.stderr
    listed = {json.loads(line)["model_id"] for line in done.stdout.splitlines()}
    assert {"vggface2-resnet50", "dlib-resnet", "face-reidentification-retail-0095"} <= listed
    listing = _python(
        installed, "-c", "import worker.faces.manifests as r; print(r.__file__); print(r.list_manifests()[0].id)"
    )
    assert listing.stdout.splitlines() == [str(installed / "worker" / "faces/manifests.py"), "vggface2-resnet50"]


def test_help_loads_no_heavy_library(installed: Path) -> None:
    code = (
        "import sys\n"
        "from worker.cli import run_command_line\n"
        "assert run_command_line(['--help']) == 0\n"
        "print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = _python(installed, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    loaded = set(done.stdout.rpartition("LOADED ")[2].split())
    assert "worker" in loaded
    heavy = {
        "tensorflow",
        "keras",
        "openvino",
        "onnxruntime",
        "cv2",
        "faiss",
        "sklearn",
        "scipy",
        "av",
        "dlib",
        "skimage",
    }
    assert not loaded & heavy


def test_python_m_worker_answers_and_refuses(installed: Path) -> None:
    assert _python(installed, "-m", "worker", "--help").returncode == 0
    wrong = _python(installed, "-m", "worker", "no-such-command")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_everything_that_the_code_imports_is_declared() -> None:
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    core = _names(project["dependencies"])
    optional = core | _names(line for lines in extras.values() for line in lines)
    assert _undeclared(SOURCES, optional | {"facestream"}) == set()
    assert _undeclared(SOURCES, core | {"facestream"}, top_level_only=True) <= {
        "argon2-cffi",
        "authlib",
        "fastapi",
        "jinja2",
        "joserfc",
        "markdown-it-py",
        "markupsafe",
        "minio",
        "onnxruntime",
        "starlette",
        "tf-keras",
        "urllib3",
        "uvicorn",
    }
    tests = sorted((REPOSITORY / "tests").rglob("*.py"))
    (ours,) = (line for line in extras["test"] if line.startswith("facestream["))
    installed_for_tests = ["test", *ours.removeprefix("facestream[").removesuffix("]").split(",")]
    tested = core | _names(line for extra in installed_for_tests for line in extras[extra])
    assert _undeclared(tests, tested | {"facestream"}) == {"atheris"}, "which make fuzz installs for itself"


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("requirements.txt", ["dlib"]),
        ("requirements-console.txt", ["console", "dlib"]),
        ("requirements-test.txt", ["dlib", "test"]),
    ],
)
def test_the_lock_covers_every_requirement_with_hashes_and_names_no_registry(lock: str, extras: list[str]) -> None:
    text = (REPOSITORY / lock).read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text)
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if entry.strip()]
    assert all("--hash=sha256:" in entry for entry in entries)
    pinned = {
        canonicalize_name(requirement.name): requirement
        for requirement in (Requirement(entry.split("\\")[0].strip()) for entry in entries)
    }
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    for requirement in map(Requirement, wanted):
        if requirement.name == "facestream":
            continue
        (pin,) = pinned[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version), f"{requirement} but {lock} has {pin}: run make lock"
    assert not pinned.keys() & {"torch", "facenet-pytorch"}, "the peers of the benchmark are no requirement of ours"


def test_the_locks_agree() -> None:
    core, console, test = (
        set(re.findall(r"^(\S+==\S+)", (REPOSITORY / lock).read_text(), re.MULTILINE))
        for lock in ("requirements.txt", "requirements-console.txt", "requirements-test.txt")
    )
    assert core <= console <= test


def test_only_the_configuration_reads_the_environment() -> None:
    readers = {
        path.relative_to(REPOSITORY / "worker").as_posix()
        for path in SOURCES
        if re.search(r"\bos\.(environ|getenv|putenv)\b|from os import .*environ", path.read_text())
    }
    assert readers <= ENVIRONMENT_OWNERS


def test_no_frames_are_decoded_outside_of_their_owners() -> None:
    users = [path.name for path in SOURCES if re.search(r"^[^#\n`]*\bVideoCapture\(", path.read_text(), re.MULTILINE)]
    assert users == []


def test_nothing_unpickles() -> None:
    pattern = re.compile(r"^\s*(import pickle|from pickle)|\bpickle\.loads?\(|allow_pickle\s*=\s*True", re.MULTILINE)
    assert [path.name for path in SOURCES if pattern.search(path.read_text())] == []


def test_no_test_imports_from_another() -> None:
    paths = {path.relative_to(REPOSITORY).as_posix(): path for path in sorted((REPOSITORY / "tests").rglob("*.py"))}
    assert "tests/test_packaging.py" in paths
    for name, path in paths.items():
        taken = [part for module in _imported(path) for part in module.split(".") if _is_of_pytest(part)]
        assert not taken, f"{name} imports from {taken}: what several tests share belongs in tests/support"


def _imported(path: Path) -> Iterator[str]:
    """All that a file imports, with the modules that it is taken from."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_of_pytest(name: str) -> bool:
    return name == "conftest" or name.startswith("test_")


def _python(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FACESTREAM_"))}
    environment |= {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=installed, env=environment, capture_output=True, text=True, check=False
    )


def _names(lines: object) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}  # type: ignore[attr-defined]


def _undeclared(files: list[Path], declared: set[str], *, top_level_only: bool = False) -> set[str]:
    """Distributions (or modules that nothing provides) that ``files`` import and ``declared`` lacks."""
    modules: set[str] = set()
    for path in files:
        tree = ast.parse(path.read_text())
        for node in tree.body if top_level_only else ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    providers = packages_distributions()
    missing: set[str] = set()
    for module in modules - sys.stdlib_module_names - _SYSTEM_MODULES - {"worker", "tests"}:
        names = {canonicalize_name(name) for name in providers.get(module, [_UNLISTED.get(module, module)])}
        if not names & declared:
            missing |= names
    return missing


def test_nothing_that_a_run_leaves_behind_is_part_of_the_repository() -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("this is no checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    left = re.compile(r"\.(sqlite3|lock|npz|log|pyc|dat|h5)$|\.state/")
    assert [name for name in listed.stdout.splitlines() if left.search(name)] == []
