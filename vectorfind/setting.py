"""One way to find directions, and where its files lie in a run folder; light enough for a freshness check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pipeline.errors import PipelineError
from pipeline.run import Run
from vectorfind.grid import Grid, grid_named
from vectorfind.groups import Grouping
from vectorfind.names import (
    EDITED,
    METHODS,
    POSITIONS,
    Cuts,
    GridName,
    GroupsName,
    Holds,
    mixed_file,
    net_file,
    vector_file,
)

# Seeds of one --seed: the pool from 1,000,000, the test from 9,000,000 up to 10,000,000, so that they never meet, nor
# those that trained bundled networks (from 10,000,000 on). The next --seed begins far beyond these.
SEED_SPAN, POOL_START, TEST_START, TEST_STOP = 1_000_000_000, 1_000_000, 9_000_000, 10_000_000
VECTOR_METHODS = ("svm", "ridge")


@dataclass(frozen=True)
class Setting:
    """Method, position and groups of directions, and the grid of their test.

    conditional: each direction leaves the other properties, hair and background alone. mended: not at the published
    settings (ridge: on ranks), and along which codes vary. cuts: where the groups begin, at the pool's medians or at a
    published version's. looks: a conditional direction also leaves alone how the parsed face looks.
    """

    method: str = "svm"
    position: str = "w"
    groups: str = "16"
    conditional: bool = False
    grid: str = "deviations"
    mended: bool = False
    cuts: str = "medians"
    looks: bool = False

    def __post_init__(self):
        known = {
            "method": METHODS,
            "position": POSITIONS,
            "groups": get_args(GroupsName),
            "grid": get_args(GridName),
            "cuts": get_args(Cuts),
        }
        for field, names in known.items():
            if getattr(self, field) not in names:
                raise PipelineError(f"--{field} {getattr(self, field)} is unknown; use {', '.join(names)}")

        if self.cuts == "v7" and self.groups != "8" or self.cuts in ("v8", "v9") and self.groups != "16":
            raise PipelineError(f"--cuts {self.cuts} are for {'8' if self.cuts == 'v7' else '16'} groups (--groups)")
        if self.mended and self.is_loop:
            raise PipelineError(
                f"--mended: {self.method} was never published, so there is nothing to mend; leave --mended out"
            )
        if self.mended and self.method == "imported":
            raise PipelineError("--mended: read vectors are used as they are; leave it out, or leave --vectors out")
        if self.conditional and (self.is_loop or self.method == "imported"):
            why = "holds hair, background and hairstyle anyway" if self.is_loop else "vectors are used as they are"
            raise PipelineError(f"--conditional: {self.method} {why}; leave it out")
        if self.looks and not self.conditional:
            raise PipelineError("--looks: how a face looks is held beside its scores; add --conditional")
        if self.is_loop and self.grid == "published":
            raise PipelineError(
                f"--grid published: {self.method} has no unit vectors to measure latent units along; use --grid "
                "deviations, or for compare leave it out of --methods"
            )

    @classmethod
    def named(cls, method: str, position: str = "w", groups: str = "16") -> Setting:
        """The setting of a method as reports name it: `svm`, `svm_mended`, `ridge_conditional_looks`, `closed_loop`.

        PipelineError for what is no method, and for vectors that were read: a name does not tell from where.
        """
        looks, rest = method.endswith("_looks"), method.removesuffix("_looks")
        conditional, rest = rest.endswith("_conditional"), rest.removesuffix("_conditional")
        mended, rest = rest.endswith("_mended"), rest.removesuffix("_mended")
        if rest == "imported":
            raise PipelineError(f"{method}: read vectors are judged with --vectors FOLDER, one folder at a time")
        return cls(rest, position, groups, conditional, mended=mended, looks=looks)

    @property
    def test_grid(self) -> Grid:
        """The grid of the test, with the weights that belong to this method and position."""
        return grid_named(self.grid, self.method, self.position)

    @property
    def is_vector(self) -> bool:
        """Whether the directions are vectors that can be written down once for all faces of a group."""
        return self.method in (*VECTOR_METHODS, "imported")

    @property
    def is_published_svm(self) -> bool:
        """Whether this is the published method at its published settings."""
        return self.method == "svm" and not self.mended and not self.conditional

    @property
    def vectors_as_found(self) -> bool:
        """Whether a network method moves the properties that it has no network of along vectors as they were found."""
        return self.method == "mixed" and not self.conditional

    @property
    def is_loop(self) -> bool:
        """Whether an edit is a walk that measures its own way."""
        return self.method in ("closed_loop", "model_loop")

    @property
    def holds(self) -> Holds:
        """What is read of a face, besides its scores, that an edit is to leave as it is."""
        if self.method == "closed_loop":
            return "features"
        return "looks" if self.looks or self.method == "model_loop" else ""

    @property
    def variant(self) -> str:
        """What sets this method apart from the published one: "" for the SVM, else a folder name."""
        return "" if self._method == "svm" else self._method

    @property
    def name(self) -> str:
        """Name in reports: `svm_w`, `ridge_w`, `svm_w_8`, `ridge_conditional_w_published_grid`."""
        return "_".join([self._method, self.position, *self._groups_and_grid])

    @property
    def suffix(self) -> str:
        """What a verdict on such settings is told apart by: "" for 16 groups at medians and the grid of deviations."""
        cuts = [] if self.cuts == "medians" else [f"cuts_{self.cuts}"]
        return "".join(f"_{part}" for part in [*cuts, *self._groups_and_grid])

    @property
    def _groups_and_grid(self) -> list[str]:
        groups = [] if self.groups == "16" else [{"8": "8", "none": "ungrouped"}[self.groups]]
        return groups + ([] if self.grid == "deviations" else [f"{self.grid}_grid"])

    @property
    def _method(self) -> str:
        parts = [self.method, "mended" * self.mended, "conditional" * self.conditional, "looks" * self.looks]
        return "_".join([part for part in parts if part] + ([] if self.cuts == "medians" else [f"cuts_{self.cuts}"]))


@dataclass(frozen=True)
class Files:
    """Where the files of one setting lie in one run."""

    run: Run
    setting: Setting

    @property
    def pool(self) -> Path:
        return self.run.path("vectorfind", "pool")

    @property
    def vectors(self) -> Path:
        """Folder of the vector CSVs; only the published method lies at the top."""
        folder = self.run.path("vectorfind", "property_score_vectors")
        return folder / self.setting.variant if self.setting.variant else folder

    @property
    def directions(self) -> Path:
        return self.vectors / f"directions_{self.setting.position}_{self.setting.groups}.npz"

    @property
    def fits(self) -> Path:
        return self.directions.with_suffix(".csv")

    @property
    def grouping(self) -> Path:
        return self.vectors / f"groups_{self.setting.position}_{self.setting.groups}.json"

    def vector(self, name: str, group: str) -> Path:
        return self.vectors / vector_file(name, self.setting.position, group)

    def direction_files(self) -> list[Path]:
        """Everything that belongs to a set of directions, the set itself left out."""
        names = Grouping(self.setting.groups, ()).names
        if self.setting.is_loop:
            return [self.grouping]
        if not self.setting.is_vector:
            edited = EDITED if self.setting.method == "gradient" else EDITED[:1]
            nets = [net_file(name, self.setting.position, self.setting.groups) for name in edited]
            left = [name for name in EDITED if name not in edited] if self.setting.vectors_as_found else []
            vectors = [self.vector(name, group) for name in left for group in names]
            vectors += [mixed_file(self.directions)] if self.setting.method == "mixed" else []
            return [self.fits, self.grouping, *(self.vectors / net for net in nets), *vectors]
        if self.setting.method == "imported":
            return [self.grouping, *(self.vector(name, group) for name in EDITED for group in names)]
        return [self.fits, self.grouping, *(self.vector(name, group) for name in EDITED for group in names)]

    def test(self, name: str) -> Path:
        """A table of the test: test_result.csv, test_statistics.csv, test_summary.csv or grid_scores.csv."""
        return self.run.path("vectorfind", "image_generation_report", self.setting.name, name)

    def judged(self, name: str) -> Path:
        """A table of the graded test: judged_faces.csv, judgement.csv, leakage.csv, side_effects.csv or reach.csv."""
        return self.run.path("vectorfind", "judgement", self.setting.name, name)

    @property
    def report(self) -> Path:
        return self.run.path("reports", f"vectorfind_{self.setting.name}.md")

    def figure(self, name: str) -> Path:
        return self.run.path("reports", f"vectorfind_{self.setting.name}", name)

    def strips(self) -> list[Path]:
        return [self.figure(f"strip_{name}.jpg") for name in EDITED]
