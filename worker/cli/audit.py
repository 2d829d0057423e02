"""``facestream gallery audit``: what is wrong with a gallery."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.cli.common import AsJson, GalleryPath, open_crops, open_gallery, print_json, quiet_logs

_HEADINGS = {
    "same_person": "probably one person under two names",
    "wrong_sample": "sample of somebody else",
    "odd_sample": "sample unlike the person's others",
    "look_alikes": "look-alikes",
    "poor_coverage": "too little known of them",
}
_SHORT = {"same_person": "one person?", "wrong_sample": "wrong?", "odd_sample": "odd?", "look_alikes": "alike"}
_MOST_TILES = 60


def audit(
    gallery: GalleryPath,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Cosine from which a person is named (default: as in use).")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Most findings of a kind that are printed (--json prints all).")
    ] = 20,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", metavar="FILE.png", help="Picture of the findings: faces if crops are kept, else a plot."
        ),
    ] = None,
    json_output: AsJson = False,
) -> int:
    """Find people enrolled twice, look-alikes, wrong samples and thin coverage; each with what to do about it."""
    quiet_logs()
    from worker.config import RecognitionConfig
    from worker.evaluation.audit import audit as find
    from worker.evaluation.audit import counts

    opened = open_gallery(gallery)
    limit_from = threshold if threshold is not None else _threshold_in_use(opened)
    findings = find(opened, threshold=limit_from, margin=RecognitionConfig().margin)
    if json_output:
        for finding in findings:
            print_json(dataclasses.asdict(finding))
    else:
        _print(findings, counts(findings), limit)
        typer.echo(f"{len(opened)} people, {opened.sample_count} samples, threshold {limit_from:.3f}")
    if sheet:
        _draw(opened, findings, limit_from, sheet)
        typer.echo(f"written: {sheet}", err=json_output)
    return 0


def _threshold_in_use(gallery: Any) -> float:
    from worker.errors import ConfigError, ModelError
    from worker.faces.alignment import split_variant
    from worker.faces.manifests import load_manifest

    if gallery.threshold is not None:
        return float(gallery.threshold)
    try:
        return load_manifest(split_variant(gallery.model_id)[0]).threshold
    except ModelError:
        raise ConfigError(
            f"the gallery is not calibrated, and the manifest of {gallery.model_id} is your own: give --threshold"
        ) from None


def _print(findings: Sequence[Any], counts: dict[Any, int], limit: int) -> None:
    printed: dict[str, int] = {}
    for finding in findings:
        printed[finding.kind] = printed.get(finding.kind, 0) + 1
        if printed[finding.kind] <= limit:
            typer.echo(_line(finding))
    for kind, count in counts.items():
        more = f" ({count - limit} not shown: --limit {count})" if count > limit else ""
        typer.echo(f"{count:>6}  {_HEADINGS[kind]}{more}")


def _line(finding: Any) -> str:
    who = " / ".join(finding.people)
    cosine = "" if finding.similarity is None else f" [{finding.similarity:.2f}]"
    photo = f" {finding.photos[0]}" if finding.kind in {"wrong_sample", "odd_sample"} else ""
    sample = f" (sample {finding.sample_ids[0]})" if photo else ""
    return f"{_HEADINGS[finding.kind]}: {who}{cosine}:{photo} {finding.detail}{sample}; {finding.advice}"


def _draw(gallery: Any, findings: Sequence[Any], threshold: float, sheet: Path) -> None:
    from worker.evaluation.plots import plot_similarities
    from worker.video.drawing import Tile, contact_sheet

    compared = [finding for finding in findings if finding.similarity is not None]
    crops = open_crops(gallery)
    kept = crops.sample_ids() if crops else set()
    tiles = []
    for finding in compared[: _MOST_TILES // 2]:
        if not set(finding.sample_ids) & kept:
            continue
        # An odd sample stands beside another one of the same person.
        names = (*finding.people, *finding.people)
        for name, sample_id in zip(names, finding.sample_ids, strict=False):
            caption = f"{_SHORT[finding.kind]} {finding.similarity:.2f} {name}"
            tiles.append(Tile(_face(crops.read(sample_id)), caption, "rejected"))
    if tiles:
        contact_sheet(tiles, sheet, title=f"Gallery {_short(gallery)}", columns=6)
        return
    rows = [(f"{' / '.join(f.people)} ({_HEADINGS[f.kind]})", f.similarity) for f in compared[:_MOST_TILES]]
    plot_similarities(rows, title=f"Findings in gallery {_short(gallery)}", threshold=threshold, path=sheet)


def _short(gallery: Any) -> str:
    return str(gallery.label if gallery.folder is None else gallery.folder.name)


def _face(crop: Any) -> Any:
    import numpy as np

    return np.full((64, 64, 3), 200, np.uint8) if crop is None else crop.image
