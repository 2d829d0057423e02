"""The thorough form, guided by the coverage of our own code: ``python -m tests.fuzz.guided SECONDS [TARGET ...]``.

Each target runs in a process of its own with limits of memory and time. An input that broke something is kept in
``build/fuzz``; ``python -m tests.fuzz.guided --one TARGET FILE`` runs it again.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

FOUND = Path("build/fuzz")
LONGEST_S = 5
MOST_MB = 2048


def main(arguments: list[str]) -> int:
    """Prints a line for each target: how many cases ran, and what was found. Returns 1 if anything was."""
    if arguments[:1] == ["--one"]:
        _run_one(arguments[1], Path(arguments[2]))
        return 0
    if arguments[:1] == ["--target"]:
        _fuzz(arguments[1], arguments[2:])
        return 0
    seconds, *names = arguments or ["60"]
    from tests.fuzz.targets import TARGETS

    total, failed = 0, []
    for name in names or sorted(TARGETS):
        cases, problem = _guide(name, int(seconds))
        total += cases
        print(f"{name:<14} {cases:>10,} cases  {problem or 'nothing found'}", flush=True)  # noqa: T201
        if problem:
            failed.append(name)
    print(f"{'all':<14} {total:>10,} cases  {', '.join(failed) or 'nothing found'}")  # noqa: T201
    return 1 if failed else 0


def _guide(name: str, seconds: int) -> tuple[int, str]:
    from tests.fuzz.targets import TARGETS

    corpus = FOUND / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    command = [
        sys.executable, "-m", "tests.fuzz.guided", "--target", name, str(corpus), f"-max_total_time={seconds}",
        f"-timeout={LONGEST_S}", f"-rss_limit_mb={MOST_MB}", f"-artifact_prefix={FOUND / name}/",
        "-print_final_stats=1", "-max_len=65536", "-verbosity=1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    (FOUND / name / "log.txt").write_text(done.stdout + done.stderr)
    counted = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    seen = re.findall(r"^#(\d+)", done.stderr, re.MULTILINE)
    cases = int(counted[1]) if counted else int(seen[-1]) if seen else 0
    if done.returncode:
        said = re.findall(r"^(?:\w*(?:Error|Exception): .*|==\d+== ?ERROR.*)$", done.stdout + done.stderr, re.MULTILINE)
        return cases, f"FOUND: {said[0] if said else f'ended with {done.returncode}'}; see {FOUND / name}"
    return cases, "" if cases else "FOUND: it did not run"


def _fuzz(name: str, arguments: list[str]) -> None:
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=["worker"]):
        from tests.fuzz.targets import TARGETS
    os.environ["FACESTREAM_CACHE_DIR"] = "/nonexistent"
    import logging

    logging.disable(logging.CRITICAL)
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name].check)
    atheris.Fuzz()


def _run_one(name: str, path: Path) -> None:
    from tests.fuzz.targets import TARGETS

    TARGETS[name].check(path.read_bytes())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
