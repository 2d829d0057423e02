"""Contestants in processes of their own that take turns.

A contestant is a function ``"module:name"`` that gets ready and returns its works by name. A work is two functions: the
first is timed, the second turns its result into JSON types and is not timed. The process reads from standard input
which work to do. It answers on standard output with one JSON document a line; everything that libraries print goes to
standard error instead.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Protocol, Self, cast

from worker.errors import FacestreamError

Work = tuple[Callable[[], Any], Callable[[Any], Any]]

_PATIENCE_S: Final = 300.0
_PAUSE_S: Final = 0.1


def environment() -> dict[str, str]:
    """The environment of all processes that are measured. Python may keep there what it compiles, as it does for users;
    a container or a build machine often forbids it, and then each start compiles hundreds of modules anew."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class UnableError(Exception):
    """A contestant cannot take part. The message says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One turn: its duration, its answer (JSON types), and the largest memory of the process so far in MB."""

    seconds: float
    answer: Any
    peak_mb: float


class Contestant(Protocol):
    """Does its works in turns: a :class:`ContestantProcess`, or a stand-in of a test."""

    def work(self, name: str) -> Outcome: ...

    def close(self) -> None: ...


Starter = Callable[[str, Mapping[str, Any]], Contestant]
"""Starts the contestant of a target with arguments; raises UnableError if it cannot take part."""


class ContestantProcess:
    """A contestant in a process of its own. The constructor returns when it is ready.

    Raises:
        UnableError: a package is missing, or the contestant could not get ready.
    """

    def __init__(self, target: str, arguments: Mapping[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "worker.bench.contest", target, json.dumps(dict(arguments))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(),
        )
        self._orders, self._answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        try:
            self._receive()
        except BaseException:
            self.close()
            raise

    def work(self, name: str) -> Outcome:
        """Does the work called ``name`` once.

        Raises:
            UnableError: the work failed, or took longer than five minutes.
        """
        try:
            self._orders.write(name + "\n")
            self._orders.flush()
        except OSError:
            raise UnableError(self._last_words()) from None
        return Outcome(**self._receive())

    def close(self) -> None:
        """Ends the process."""
        with suppress(OSError):
            self._orders.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self) -> dict[str, Any]:
        guard = threading.Timer(_PATIENCE_S, self._process.kill)
        guard.start()
        try:
            line = self._answers.readline()
        finally:
            guard.cancel()
        if not line:
            raise UnableError(self._last_words())
        document: dict[str, Any] = json.loads(line)
        if "problem" in document:
            raise UnableError(document["problem"])
        return document

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        said = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return f"its process ended with {code}: {said[-1] if said else 'no output'}"


@dataclass(frozen=True, slots=True)
class Results:
    """``outcomes`` by ``contestant/work``; ``problems`` says by contestant why it did not take part."""

    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def seconds(self, name: str, *, per: float = 1.0) -> list[float]:
        """The durations of a work, divided by ``per``; empty if its contestant did not take part."""
        return [outcome.seconds / per for outcome in self.outcomes.get(name, [])]

    def answer(self, name: str) -> Any:
        """The last answer of a work; None if its contestant did not take part."""
        outcomes = self.outcomes.get(name)
        return outcomes[-1].answer if outcomes else None

    def quickest(self, works: Mapping[str, float]) -> str | None:
        """The work with the smallest sum of durations, divided by its number in ``works``; None without outcomes."""
        present = [name for name in works if self.outcomes.get(name)]
        return min(present, key=lambda name: sum(self.seconds(name, per=works[name])), default=None)

    def problem(self, contestant: str) -> str:
        """Why the contestant did not take part; empty if it did."""
        return self.problems.get(contestant, "")


def compete(
    contestants: Mapping[str, tuple[str, Mapping[str, Any]]],
    works: Sequence[str],
    rounds: int,
    *,
    start: Starter = ContestantProcess,
) -> Results:
    """Lets the ``contestants`` (name: target and arguments) do their ``works`` (``contestant/work``) in turns.

    Each work is done once untimed, then once in each of the ``rounds``. Each round begins with another work. If a
    contestant fails, its results are dropped and the others go on.
    """
    results = Results()
    with ExitStack() as stack:
        running: dict[str, Contestant] = {}
        for name, (target, arguments) in contestants.items():
            try:
                running[name] = start(target, arguments)
            except UnableError as error:
                results.problems[name] = str(error)
            else:
                stack.callback(running[name].close)
        _take_turns(running, works, 1, results)
        results.outcomes.clear()
        _take_turns(running, works, rounds, results)
    for work in works:
        if results.problem(_contestant(work)):
            results.outcomes.pop(work, None)
    return results


def _take_turns(running: Mapping[str, Contestant], works: Sequence[str], rounds: int, results: Results) -> None:
    for number in range(rounds):
        first = number % len(works)
        for work in [*works[first:], *works[:first]]:
            name = _contestant(work)
            if results.problem(name):
                continue
            time.sleep(_PAUSE_S)
            try:
                outcome = running[name].work(work.partition("/")[2])
            except UnableError as error:
                results.problems[name] = str(error)
            else:
                results.outcomes.setdefault(work, []).append(outcome)


def _contestant(work: str) -> str:
    return work.partition("/")[0]


def main(target: str, arguments: str) -> None:
    """Runs in the process of a contestant."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    try:
        module, _, name = target.partition(":")
        works: Mapping[str, Work] = getattr(importlib.import_module(module), name)(**json.loads(arguments))
        answer({})
        for line in sys.stdin:
            perform, describe = works[line.strip()]
            begun_s = time.perf_counter()
            result = perform()
            seconds = time.perf_counter() - begun_s
            answer({"seconds": seconds, "answer": describe(result), "peak_mb": peak_mb()})
    except ModuleNotFoundError as error:
        answer({"problem": f"{error.name} is not installed"})
    except FacestreamError as error:
        answer({"problem": str(error)})
    except Exception as error:  # noqa: BLE001 - any error of a peer is the reason why its row has no number
        answer({"problem": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"})


def peak_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def private_mb() -> float:
    """Resident memory that belongs to this process alone and is not mapped from a file, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
