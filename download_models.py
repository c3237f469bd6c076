"""Fetch and check the published weight files of a profile, or list them."""

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.command import Summary, main
from pipeline.errors import PipelineError
from pipeline.hub import fetch_from_hub
from pipeline.profile import Profile, shown
from pipeline.published import Fetch, Offline, Outcome, Published, obtain, published_files, working_folder

EXAMPLES = """
python download_models.py --profile celeba256 --list
python download_models.py --profile celeba256
python download_models.py --profile celeba256 --all
"""


@dataclass
class Options:
    """Fetch the published weight files that a profile's stages read, and check them; run it again to go on.

    A file that you put in its place yourself is accepted when it is the right one: its kind is read off its keys, it
    must load, and its sha256 is compared where one is known and otherwise written beside it. Ends with exit code 1 and
    a list when something is missing.
    """

    profile: str = "celeba256"
    """World whose files to fetch: the name of a file in profiles/, or the path of a .toml."""
    list: bool = False
    """Only show what the files are, where they come from, how large they are and where they go."""
    all: bool = False
    """Also fetch the files that no stage reads by itself."""


def run(options: Options) -> None:
    """List or fetch; exits with code 1 when a file that was wanted is not there in the end."""
    profile = Profile.load(options.profile)
    files = published_files(profile)
    if not files:
        print(f"the weights of profile {profile.name} come with the project; there is nothing to fetch")
    elif options.list:
        print(listing(files))
    elif not download(files, options.all):
        sys.exit(1)


def download(files: list[Published], everything: bool = False, fetch: Fetch | None = None) -> bool:
    """Obtain the files that stages read, those that are there and, with `everything`, all that have a place.

    Prints a summary; returns whether all of them are there and right.
    """
    ask, summary = _until_offline(fetch or fetch_from_hub), Summary("published weights")
    wanted = [file for file in files if not file.optional or file.path.is_file() or (everything and file.source.repo)]
    _check_disk(wanted)
    outcomes = []
    for file in wanted:
        outcomes.append(obtain(file, ask, load_strictly))
        print(_line(outcomes[-1]), flush=True)
    for folder in {working_folder(file) for file in wanted}:
        if not any(folder.rglob("*.incomplete")):
            shutil.rmtree(folder, ignore_errors=True)
    for outcome in outcomes:
        if outcome.state in ("accepted", "fetched"):
            summary.wrote(outcome.file.path, outcome.state)
    bad = [outcome for outcome in outcomes if not outcome.is_good]
    summary.note(f"{len(outcomes) - len(bad)} of {len(outcomes)} files are there and right")
    summary.print()
    if bad:
        print(missing_report(bad), file=sys.stderr)
    return not bad


def missing_report(bad: list[Outcome]) -> str:
    """Say which files are missing or wrong and why, where one may get them, and what works without them."""
    lines = [f"{len(bad)} files are missing or wrong:"]
    for source in dict.fromkeys(outcome.file.source for outcome in bad):
        lines += [source.what, f"  from     {source.place}", f"  sure?    {source.sure}"]
        own = [outcome for outcome in bad if outcome.file.source == source]
        reasons: dict[tuple[str, str], list[Outcome]] = {}
        for outcome in own:
            reasons.setdefault((outcome.state, outcome.reason), []).append(outcome)
        for (state, reason), members in reasons.items():
            lines.append(f"  {state:8} {reason}")
            for group, files in _groups([outcome.file for outcome in members]):
                without = f"; without: {files[0].without}" if files[0].without else ""
                lines += [f"    {group}", f"      {_sum(files)}, {files[0].use}{without}"]
    lines.append("Save a file under the name on the right and run this command again: it is checked, then used.")
    lines.append("The profile demo needs none of them.")
    return "\n".join(lines)


def listing(files: list[Published]) -> str:
    """Return the table of files, a block for each source."""
    lines = []
    for source in dict.fromkeys(file.source for file in files):
        lines += [
            source.what,
            f"  from     {source.place}",
            f"  sure?    {source.sure}",
            f"  licence  {source.licence}",
        ]
        for group, members in _groups([file for file in files if file.source == source]):
            file, there = members[0], sum(member.path.is_file() for member in members)
            state = "missing" if not there else "there" if there == len(members) else f"{there} of {len(members)}"
            lines += [
                f"  {state:7}{' ' if file.optional else '*'} {group}",
                f"      {_sum(members)}, {file.use}; {file.kind}{f'; sha256 {file.sha256}' if file.sha256 else ''}",
            ]
        lines.append("")
    needed = [file for file in files if not file.optional]
    lines.append(f"* what stages read: {len(needed)} files, {_sum(needed)}; in all {len(files)} files, {_sum(files)}")
    lines.append("where no sha256 is given none is known: the first check of a file writes its own beside it")
    return "\n".join(lines)


def load_strictly(path: Path, kind: str) -> None:
    """Load a file as the stages do; PipelineError when it does not fit."""
    from cnn.filter_cnn import FilterEnsemble
    from cnn.settings import FILTERS, Architecture
    from property_score.property_cnn import load_hairstyle_cnn, load_property_cnn
    from segmentation.facexformer import load_facexformer
    from stylegan.checkpoint import load_discriminator, load_generator
    from stylegan_modified.cvae import load_cvae_encoder
    from vectorfind.gradient_net import load_gradient_net

    loaders = {
        "StyleGAN checkpoint": [load_generator, load_discriminator],
        "StyleGAN generator": [load_generator],
        "StyleGAN discriminator": [load_discriminator],
        "FaceXFormer": [load_facexformer],
        "property CNN": [load_property_cnn],
        "hairstyle CNN": [load_hairstyle_cnn],
        "gradient network": [load_gradient_net],
        "cVAE encoder": [load_cvae_encoder],
    }
    for name, functions in loaders.items():
        if kind.startswith(name):
            for load in functions:
                load(path)
            return
    found = re.fullmatch(r"filter CNN \((\w+)\), (\d+)x\d+", kind)
    if not found:
        raise PipelineError(f"{path}: no loader for a file of kind '{kind}'; mend [download] of the profile")
    architecture = Architecture(int(found[2]), 1.0, 512, FILTERS[found[1]].window)
    FilterEnsemble.load(found[1], [path], architecture)


def _check_disk(wanted: list[Published]) -> None:
    absent = [file for file in wanted if file.source.repo and not file.path.is_file()]
    if not absent:
        return
    parents = absent[0].path.parents
    free = shutil.disk_usage(next(folder for folder in parents if folder.exists())).free
    parts = {part for file in absent for part in working_folder(file).rglob("*") if part.is_file()}
    needed = max(0.0, sum(file.mb for file in absent) * 1e6 - sum(part.stat().st_size for part in parts))
    if free < needed:
        raise PipelineError(
            f"{shown(absent[0].path.parent)}: {_size(needed / 1e6)} are to be fetched, {_size(free / 1e6)} are free"
            "; free some space"
        )


def _until_offline(fetch: Fetch) -> Fetch:
    """The same transport, but once it finds no network it says so for every further file without another try."""
    found: list[Offline] = []

    def ask(repo: str, name: str, folder: Path) -> Path:
        if found:
            raise found[0]
        try:
            return fetch(repo, name, folder)
        except Offline as error:
            found.append(error)
            raise

    return ask


def _line(outcome: Outcome) -> str:
    reason = f"  ({outcome.reason})" if outcome.reason and outcome.is_good else ""
    return f"  {outcome.state:8}  {shown(outcome.file.path)}{reason}"


def _groups(files: list[Published]) -> list[tuple[str, list[Published]]]:
    """Files that are shown in one line: the five of an ensemble."""
    groups: dict[str, list[Published]] = {}
    for file in files:
        groups.setdefault(file.group, []).append(file)
    return list(groups.items())


def _sum(files: list[Published]) -> str:
    return _size(sum(file.mb for file in files))


def _size(mb: float) -> str:
    return f"{mb / 1000:.1f} GB" if mb >= 1000 else f"{mb:.0f} MB"


if __name__ == "__main__":
    main(Options, run, EXAMPLES)
