"""``facestream bench``: this machine's speed, beside its peers where they are installed."""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.options import AsJson, ModelsDir, quiet_logs
from worker.cli.screen import Document, json_line, print_json, say, say_lines
from worker.errors import FacestreamError, ModelError
from worker.files import writing
from worker.names import screen_text


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    app.command("bench")(bench)


def bench(
    video: Annotated[
        Path | None,
        typer.Option("--video", metavar="FILE", help="Clip of 1920x1080 (default: that of --data, else our own)."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            envvar="FACESTREAM_TEST_DATA",
            help="Folder with video/crowd_1080p.mp4 and models/, if you have it.",
        ),
    ] = None,
    rows: Annotated[
        list[str] | None, typer.Option("--rows", metavar="PATTERN", help="Only these rows, such as 'detect*'.")
    ] = None,
    capacity: Annotated[
        bool,
        typer.Option("--capacity", help="Only say how many live cameras like --video this machine carries (a minute)."),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="One round, without the gallery of a million. With --device, each row once in small, without a GPU "
            "too, to see that all is there.",
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="RUNTIME",
            help="Only the rows of a GPU, by tensorflow, jax or torch (five minutes). With --rows same, compare faces "
            "and vectors with the processor's; that is done without a GPU, too.",
        ),
    ] = None,
    models_dir: ModelsDir = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table in Markdown.")] = False,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write the JSON documents here too.")
    ] = None,
    json_output: AsJson = False,
) -> int:
    """Measure speed beside other packages, in one run, in turns, and check that the answers agree.

    Takes about ten minutes. A row that cannot be measured says why.
    """
    from rich.console import Console

    from worker import config
    from worker.bench.contest import UnableError
    from worker.bench.run import Options, machine, measure, measure_capacity, table
    from worker.bench.run import markdown as in_markdown

    quiet_logs()
    crowd = data / "video" / "crowd_1080p.mp4" if data else None
    clip = video or (crowd if crowd and crowd.is_file() else None)
    if device is not None:
        return _measure_device(device, clip, data, rows or (), quick, _Lines(save, True))
    models = models_dir or config.models_dir() or (data / "models" if data else None)
    console = Console(stderr=True, highlight=False, markup=False)
    described = machine() | {"clip": clip.name if clip else "facestream's own"}
    lines = _Lines(save, json_output)
    lines.write(described)
    done = []
    options = Options(clip, tuple(rows or ()), quick, models)

    def progress(text: str) -> None:
        console.print(screen_text(text), style="dim", soft_wrap=not console.is_terminal)

    if capacity:
        try:
            row = measure_capacity(options, progress)
        except UnableError as error:
            raise FacestreamError(str(error)) from None
        lines.write(row.document())
        if not json_output:
            say(f"{described['note']}: keeps up with {row.ours:g} live cameras like {described['clip']}")
        return 0
    for row in measure(options, progress):
        lines.write(row.document())
        done.append(row)
    if markdown and not json_output:
        say_lines(in_markdown(done, described))
    elif not json_output:
        Console(width=None if Console().is_terminal else 200).print(table(done, described))
    return 0


def _measure_device(
    runtime: str, clip: Path | None, data: Path | None, rows: Sequence[str], quick: bool, lines: "_Lines"
) -> int:
    from worker.bench.device import NAMES, QUICK, Sizes, measure_device
    from worker.faces.device.runtimes import load_runtime
    from worker.video.clips import open_clip

    if clip is None:
        raise FacestreamError("--device needs a clip of 1920x1080: give --video or --data")
    names = [name for name in NAMES if not rows or any(fnmatch(name, pattern) for pattern in rows)]
    if not names:
        raise FacestreamError(f"--rows: no such row; those of --device are {', '.join(NAMES)}")
    progress = partial(say, err=True)
    only_compares = names == ["same"]
    processor = False
    try:
        load_runtime(runtime)
    except ModelError as problem:
        if not (only_compares or quick):
            raise
        processor = True
        what = "the faces are compared" if only_compares else "each row is tried in small"
        progress(f"no GPU: {what} on the processor ({problem})")
    frames = []
    if not only_compares:
        with open_clip(clip) as reader:
            frames = list(reader)
    # A processor computes in fp16 as if by hand; a worker takes fp32 there.
    sizes = Sizes() if not quick else replace(QUICK, precisions=("fp32",)) if processor else QUICK
    for row in measure_device(
        frames, clip=clip, data=data, runtime=runtime, names=names, sizes=sizes, processor=processor, say=progress
    ):
        lines.write(row)
    return 0


class _Lines:
    """Writes each document at once: to the file ``path``, if given, and to standard output, if asked for."""

    def __init__(self, path: Path | None, to_output: bool) -> None:
        self._path, self._to_output = path, to_output
        if path is not None:
            with writing(path):
                path.write_text("", encoding="utf-8")

    def write(self, document: Document) -> None:
        if self._path is not None:
            with writing(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(json_line(document))
        if self._to_output:
            print_json(document)
