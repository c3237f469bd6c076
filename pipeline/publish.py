"""Copies reports of a run, with the pictures they show, made small, to where they are committed.

python -m pipeline.publish --run runs/demo
python -m pipeline.publish --run runs/weights --reports finetune finetune_v1 finetune_v1_published
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


QUALITY = 72


@dataclass
class PublishOptions:
    """Copy reports/NAME.md of a run to the folder that is committed; pictures go to a folder NAME beside each."""

    run: str = "runs/demo"
    reports: tuple[str, ...] = ()
    """Names without .md; all reports of the run unless given."""
    to: str = "reports"


def publish(options: PublishOptions) -> None:
    """Copy and relink; PipelineError for a report or a picture that is not there."""
    source, target = Path(options.run) / "reports", Path(options.to)
    if source.resolve() == target.resolve():
        raise PipelineError(f"--to {target} is where the reports of {options.run} lie; name another folder")
    names = options.reports or tuple(path.stem for path in sorted(source.glob("*.md")))
    if not names:
        raise PipelineError(f"{source} holds no reports; run the stages first")
    summary = Summary("publish")
    for name in names:
        report = source / f"{name}.md"
        if not report.is_file():
            raise PipelineError(f"{report} is missing; run the stage that writes it")
        text = report.read_text(encoding="utf-8")
        links = list(dict.fromkeys(PICTURE.findall(text)))
        for link in links:
            if not (report.parent / link).is_file():
                raise PipelineError(
                    f"{report} shows {link}, which is missing; delete the report and run its stage again"
                )
        shutil.rmtree(target / name, ignore_errors=True)
        for link in links:
            text = text.replace(f"]({link})", f"]({_copied(report, link, target / name)})")
        with atomic(target / f"{name}.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        pictures = len(list((target / name).glob("*"))) if (target / name).is_dir() else 0
        summary.wrote(target / f"{name}.md", f"{pictures} pictures")
    summary.print()


def _copied(report: Path, link: str, folder: Path) -> str:
    picture = report.parent / link
    folder.mkdir(parents=True, exist_ok=True)
    # A repository keeps every version for ever.
    with Image.open(picture) as image:
        if picture.suffix == ".png":
            save_plot(folder / picture.name, image)
        else:
            with atomic(folder / picture.name) as temporary:
                image.save(temporary, "JPEG", quality=QUALITY)
    return f"{folder.name}/{picture.name}"


if __name__ == "__main__":
    main(PublishOptions, publish, examples="\n".join((__doc__ or "").splitlines()[2:4]))
