"""Stage 6: find the directions that open the eyes, open the mouth and tilt the head, and test them on unseen faces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pipeline.artefacts import code_version
from pipeline.command import StageOptions, main
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from pipeline.run import Run
from vectorfind.further import FURTHER, check_further, compared
from vectorfind.grounds import CODE
from vectorfind.groups import Grouping
from vectorfind.hand_made import refuse_hand_made
from vectorfind.models import locate, resolve_precision
from vectorfind.names import (
    EDITED,
    GRADERS,
    Cuts,
    GraderName,
    GridName,
    GroupsName,
    Position,
    vector_file,
)
from vectorfind.setting import POOL_START, SEED_SPAN, TEST_START, TEST_STOP, Files, Setting
from vectorfind.stage import Plan, Stage

STEPS = ("pool", "directions", "test", "report")
EXAMPLES = """
python run_vectorfind.py
python run_vectorfind.py pool -n 20000
python run_vectorfind.py directions test report --method ridge
python run_vectorfind.py test report --grid published
python run_vectorfind.py directions judge effects reach --method model_loop --faces 500
python run_vectorfind.py select --method ridge
python run_vectorfind.py compare --methods svm svm_mended ridge model_loop --positions w mapping_split1 --faces 500
python run_vectorfind.py sweep --methods svm ridge --sizes 2000 8000 --k-percents 10 20
"""


@dataclass
class VectorFindOptions(StageOptions):
    """Stage 6: directions in the latent space for eyes, mouth and pose, tested on faces that trained nothing."""

    steps: tyro.conf.Positional[
        tuple[
            Literal[  # STEPS, then FURTHER
                "pool",
                "directions",
                "test",
                "report",
                "judge",
                "effects",
                "reach",
                "select",
                "tsne",
                "compare",
                "sweep",
            ],
            ...,
        ]
    ] = STEPS
    """What to do, in this order; by default pool to report, for the methods of the profile's `beside` as well. judge:
    the test by all graders. effects: what else an edit changes. reach: how far the closed loop takes each face. select:
    faces chosen by the finder, confirmed by every grader on other noise. tsne: maps of the codes. compare: all of
    --methods at all of --positions, and the verdict on all that was judged in this run with the same options (but for
    vectors that were read). sweep: settings against correlation."""
    samples: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None
    """Faces in the pool; by default what the profile says."""
    method: Literal["svm", "ridge", "gradient", "mixed", "closed_loop", "model_loop"] = "svm"
    """svm: LinearSVC on the extremes, as published. ridge: all samples, groups shrunk toward the common
    direction. gradient: of a small network at each face. mixed: gradient for the eyes, svm for the rest. closed_loop:
    gradients through generator and scorer, step by step until the intended value is reached. model_loop: the same loop
    by the slopes of a network that learned all scores from the pool."""
    position: Position = "w"
    """Where in the generator the directions live; the split positions need a v9 generator."""
    groups: GroupsName = "16"
    """Number of groups of faces with directions of their own."""
    conditional: bool = False
    """Make each direction leave the other two properties, hair and background alone."""
    looks: bool = False
    """With --conditional: leave alone how the parsed face looks, too (colours and places of its parts)."""
    mended: bool = False
    """svm, gradient, mixed: published settings mended (standardised, tuned, along the path). ridge: on ranks. Edits
    then go where codes vary, instead of normal to what was fitted."""
    cuts: Cuts = "medians"
    """Where the groups begin: at the medians of the pool, or at the published ones of a version."""
    k_percent: float | None = None
    """svm: share of each group, at either end of the score, that trains it; by default what the profile says."""
    faces: int | None = None
    """Faces of the test; by default what the profile says."""
    grid: GridName = "deviations"
    """Weights of the 50 edits: score deviations; those published for the method and position, in latent units; or
    deviations slid for each face into what its scores can reach."""
    generator: str = "v9"
    """v9: of this run's stage 5, or else of the profile. base: the profile's. Or the path of a weight file."""
    scorer: str = ""
    """Path of a property CNN; by default that of this run's stage 4b."""
    graders: tuple[GraderName, ...] = ("finder", "second", "geometric")
    """Who judges (judge, effects, select, compare): the scorer that finds, the second CNN, parser and geometry."""
    methods: tuple[str, ...] = (
        "svm",
        "svm_mended",
        "ridge",
        "ridge_mended_conditional",
        "gradient",
        "mixed",
        "closed_loop",
        "model_loop",
    )
    """compare, sweep: methods as reports name them, with _mended, _conditional and _looks."""
    positions: tuple[Position, ...] = ("w",)
    """compare, sweep, pool: positions; the pool stores z, w and all of these (`pool` alone: all that there are)."""
    sizes: tuple[int, ...] = ()
    """sweep: numbers of samples; by default the whole pool."""
    k_percents: tuple[float, ...] = ()
    """sweep: shares at either end that train the SVM; by default the one of --k-percent."""
    groupings: tuple[GroupsName, ...] = ("16",)
    """sweep: numbers of groups."""
    vectors: str = ""
    """Folder of vector CSVs in the published format, used instead of finding directions: method `imported`. Published
    ones belong to groups that --cuts names: v7 for 8 groups (those of v6 too), v8 or v9 for 16."""
    pool_dtype: Literal["float32", "float16"] = "float32"
    """How the codes of the pool are stored."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the pictures that are drawn; auto: bfloat16 on a CPU that computes in it (AMX, AVX512-BF16), a third of a grey
    level off and up to twice as fast, else float32. A pool goes on in the one that it was begun in; scores are computed
    in float32."""
    batch: int | None = None
    """Images at a time; by default what the profile says."""


def plan(options: VectorFindOptions) -> Plan:
    """Check paths, names and numbers without loading a model; PipelineError for what cannot work."""
    profile, run = Profile.load(options.profile), Run(options.run)
    known = ("pool", "k_percent", "faces", "passes", "batch", "beside")
    profile.refuse_unknown("vectorfind", profile.section("vectorfind"), known)
    method = "imported" if options.vectors else options.method
    shape = (method, options.position, options.groups, options.conditional, options.grid)
    setting = Setting(*shape, options.mended, options.cuts, options.looks)
    chosen = {
        "rows": _at_least(2, options.samples, profile, "pool", 8000, "-n"),
        "faces": _at_least(1, options.faces, profile, "faces", 100, "--faces"),
        "batch": _at_least(1, options.batch, profile, "batch", 50, "--batch"),
    }
    k_percent = profile.read("vectorfind.k_percent", float, 20.0) if options.k_percent is None else options.k_percent
    if not 0 < k_percent <= 50:
        raise PipelineError(
            f"--k-percent {k_percent:g}: the top and the bottom must not overlap; give more than 0, at most 50"
        )
    pool_start = options.seed * SEED_SPAN + POOL_START
    test_start = options.seed * SEED_SPAN + TEST_START
    if chosen["rows"] > TEST_START - POOL_START or chosen["faces"] > TEST_STOP - TEST_START:
        raise PipelineError(
            f"a pool of {chosen['rows']} and a test of {chosen['faces']} faces would share seeds: "
            f"at most {TEST_START - POOL_START} and {TEST_STOP - TEST_START}"
        )
    settled = Plan(
        options,
        Files(run, setting),
        locate(profile, run, options.generator, options.scorer),
        **chosen,
        k_percent=k_percent,
        passes=_passes(profile),
        pool_start=pool_start,
        test_seeds=range(test_start, test_start + chosen["faces"]),
        code_versions={step: code_version(*modules) for step, modules in CODE.items()},
        graders=tuple(name for name in GRADERS if name == "finder" or name in options.graders),
        precision=resolve_precision(options.precision, options.device),
        beside=_beside(profile, setting) if options.steps == STEPS else (),
    )
    check_further(settled)
    if options.vectors:
        _check_vectors(Path(options.vectors), settled.files)
    if not options.force:
        for written in _written(settled):
            refuse_hand_made(Files(run, written))
    return settled


def run(options: VectorFindOptions) -> None:
    """Do the asked steps that are missing or stale, in order."""
    settled = plan(options)
    stage = Stage(settled)
    for inner in (stage, *map(stage.with_setting, settled.beside)):
        for step in STEPS:
            if step in options.steps and not (step == "pool" and inner is not stage):
                getattr(inner, step)()
    for step, take in FURTHER.items():
        if step in options.steps:
            take(stage)
    for note in settled.models.notes:
        stage.summary.note(note)
    if options.vectors and options.cuts == "medians" and options.groups != "none":
        stage.summary.note(
            "the groups of the read vectors were cut at the medians of this run's pool; published vectors belong to "
            "groups cut at fixed values: --cuts v7 with --groups 8 (those of v6 too), v8 or v9 with 16"
        )
    stage.summary.print()


def _at_least(low: int, given: int | None, profile: Profile, key: str, default: int, option: str) -> int:
    number = profile.read(f"vectorfind.{key}", int, default, low=low) if given is None else given
    if number < low:
        raise PipelineError(f"{option} {number}: give a number of at least {low}")
    return number


def _written(settled: Plan) -> list[Setting]:
    """The settings whose directions these steps find and write."""
    steps = settled.options.steps
    own = [settled.files.setting, *settled.beside] if "directions" in steps else []
    return own + (compared(settled.options) if "compare" in steps else [])


def _check_vectors(folder: Path, files: Files) -> None:
    setting = files.setting
    if folder.resolve() == files.vectors.resolve():
        raise PipelineError(
            f"--vectors {folder} is where this run writes what it has read and turned: move the files that are meant "
            "to a folder of their own, and give that"
        )
    groups = Grouping(setting.groups, ()).names
    wanted = [vector_file(name, setting.position, group) for name in EDITED for group in groups]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise PipelineError(
            f"--vectors {folder}: {len(missing)} of {len(wanted)} files are missing, the first is {missing[0]}; give a "
            "folder with one for each property and group, or the --position and --groups that its files are of"
        )


def _beside(profile: Profile, setting: Setting) -> tuple[Setting, ...]:
    """The methods of `[vectorfind] beside`, which accompany the published one on the grid of deviations."""
    names = profile.get("vectorfind.beside", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PipelineError(
            f"profile {profile.path}: [vectorfind] beside = {names!r}; write a list of methods, for instance "
            '["ridge_mended_conditional"]'
        )
    found = []
    for name in names:
        try:
            found.append(replace(Setting.named(name, setting.position, setting.groups), cuts=setting.cuts))
        except PipelineError as error:
            raise PipelineError(f"profile {profile.path}: [vectorfind] beside names {name!r}: {error}") from error
    return tuple(found) if setting.is_published_svm and setting.grid == "deviations" else ()


def _passes(profile: Profile) -> dict[str, float]:
    bars = profile.get("vectorfind.passes", [0.92, 0.88, 0.88])
    numbers = isinstance(bars, list) and all(type(bar) in (int, float) and -1 <= bar <= 1 for bar in bars)
    if not numbers or len(bars) != len(EDITED):
        raise PipelineError(
            f"profile {profile.path}: [vectorfind] passes = {bars!r}; write a list of {len(EDITED)} correlations from "
            f"-1 to 1, for {', '.join(EDITED)}"
        )
    return dict(zip(EDITED, map(float, bars), strict=True))


if __name__ == "__main__":
    main(VectorFindOptions, run, EXAMPLES)
