"""Copies reports of a run, with the pictures they show, made small, to where they are committed.

python -m pipeline.publish --run runs/demo
python -m pipeline.publish --run runs/weights --reports finetune finetune_v1 finetune_v1_published
python -m pipeline.publish --run runs/100k --reports vectorfind --name vectorfind_100k
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipeline.command import Summary, main
from pipeline.errors import PipelineError
from pipeline.plots import save_plot
from pipeline.whole import atomic

PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")
TABLE = re.compile(r"(?<!!)\[[^\]]*\]\(([^)]+\.csv)\)")
QUALITY = 72


@dataclass
class PublishOptions:
    """Copy reports/NAME.md of a run to where it is committed; pictures and tables go to a folder NAME beside each."""

    run: str = "runs/demo"
    reports: tuple[str, ...] = ()
    """Names without .md; all reports of the run unless given."""
    name: str = ""
    """What the one report of --reports is called there; its own name by default."""
    to: str = "reports"


def publish(options: PublishOptions) -> None:
    """Copy and relink; PipelineError for a report, or what it shows or links to, that is not there."""
    source, target = Path(options.run) / "reports", Path(options.to)
    if source.resolve() == target.resolve():
        raise PipelineError(f"--to {target} is where the reports of {options.run} lie; name another folder")
    names = options.reports or tuple(path.stem for path in sorted(source.glob("*.md")))
    if not names:
        raise PipelineError(f"{source} holds no reports; run the stages first")
    if options.name and len(names) != 1:
        raise PipelineError(f"--name {options.name} names one report; give one by --reports")
    summary = Summary("publish")
    for name in names:
        kept = options.name or name
        report = source / f"{name}.md"
        if not report.is_file():
            raise PipelineError(f"{report} is missing; run the stage that writes it")
        text = report.read_text(encoding="utf-8")
        links = list(dict.fromkeys(PICTURE.findall(text) + TABLE.findall(text)))
        for link in links:
            if not (report.parent / link).is_file():
                raise PipelineError(
                    f"{report} tells of {link}, which is missing; delete the report and run its stage again"
                )
        taken = [Path(link).name for link in links]
        twice = sorted({name for name in taken if taken.count(name) > 1})
        if twice:
            raise PipelineError(
                f"{report} tells of two files called {twice[0]}, and only one can lie beside it; rename one"
            )
        _empty(target, kept)
        for link in links:
            text = text.replace(f"]({link})", f"]({kept}/{Path(link).name})")
        # First, so that after a kill the report tells what lies in its folder.
        with atomic(target / f"{kept}.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        for link in links:
            _copy(report.parent / link, target / kept)
        files = len(list((target / kept).glob("*"))) if (target / kept).is_dir() else 0
        summary.wrote(target / f"{kept}.md", f"{files} files beside it")
    summary.print()


def _empty(target: Path, kept: str) -> None:
    """Delete what an earlier report `kept` shows of its folder; PipelineError for a folder that holds anything else."""
    report, folder = target / f"{kept}.md", target / kept
    earlier = report.read_text(encoding="utf-8") if report.is_file() else ""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in files:
        if path.is_dir() or f"]({kept}/{path.name})" not in earlier:
            raise PipelineError(
                f"{folder} holds {path.name}, which no report put there: choose another --to, or another --name"
            )
    for path in files:
        path.unlink()


def _copy(picture: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if picture.suffix == ".csv":
        shutil.copyfile(picture, folder / picture.name)
        return
    # A repository keeps every version for ever.
    with Image.open(picture) as image:
        if picture.suffix == ".png":
            save_plot(folder / picture.name, image)
        else:
            with atomic(folder / picture.name) as temporary:
                image.save(temporary, "JPEG", quality=QUALITY)


if __name__ == "__main__":
    main(PublishOptions, publish, examples="\n".join((__doc__ or "").splitlines()[2:5]))
