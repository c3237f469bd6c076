"""Stage 6 as four steps on a run folder: pool, directions, test, report; each does only what is missing or stale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.artefacts import is_fresh, read_json, stamp_path, write_json, write_stamp
from pipeline.command import Summary
from pipeline.errors import PipelineError
from pipeline.profile import Profile, shown
from pipeline.progress import progress
from vectorfind.hand_made import begin_vectors
from vectorfind.models import ModelFiles, identity_files, open_bench, open_identity
from vectorfind.names import EDITED
from vectorfind.setting import POOL_START, SEED_SPAN, Files, Setting

# In the folder of a pool: the options that named its models.
POOL_WISH = "asked.json"
STRIP_FACES = 8
SPACE_ROWS = 20_000


@dataclass
class Plan:
    """Everything that is settled before the first image.

    options: those of run_vectorfind.py. rows: samples of the pool. faces: of the test. k_percent: share of the pool at
    either end that is extreme. passes: the bars of `test`, by property. pool_start: first seed of the pool. test_seeds:
    of the test's faces. code_versions: hash of the code that each step rests on. precision: that pictures are drawn in.
    beside: what the stage as a whole finds, tests and reports as well, after its own setting.
    """

    options: Any
    files: Files
    models: ModelFiles
    rows: int
    faces: int
    k_percent: float
    batch: int
    passes: dict[str, float]
    pool_start: int
    test_seeds: range
    code_versions: dict[str, str]
    graders: tuple[str, ...] = ("finder",)
    precision: str = "float32"
    beside: tuple[Setting, ...] = ()

    def pool_options(self) -> dict:
        """What the rows of a pool depend on, beside the models."""
        return {"seed_start": self.pool_start, "dtype": self.options.pool_dtype}

    def pool_wish(self) -> dict:
        """The options of the command line that a pool depends on, as they were given."""
        return {name: getattr(self.options, name) for name in ("generator", "scorer", "seed", "pool_dtype")}

    def direction_options(self) -> dict:
        setting = self.files.setting
        fields = {
            name: getattr(setting, name)
            for name in ("method", "position", "groups", "conditional", "mended", "cuts", "looks")
        }
        return {"samples": self.rows, "k_percent": self.k_percent, "precision": self.precision, **fields}

    def test_options(self) -> dict:
        return {
            "faces": self.faces,
            "first_seed": self.test_seeds.start,
            "grid": self.files.setting.grid,
            "passes": self.passes,
            "samples": self.rows,
            "precision": self.precision,
        }


class Stage:
    """The four steps; the models are loaded by the first step that needs them."""

    def __init__(self, settled: Plan):
        self.plan, self.files, self.options = settled, settled.files, settled.options
        self.summary = Summary(f"6 directions ({self.files.setting.name})")
        self._bench, self._lender = None, None
        self.graders: list | None = None  # of the root's, once they have been measured: see further.open_graders
        self.is_forced = self.options.force

    def with_setting(self, setting) -> Stage:
        """A stage of another method or position in the same run, with the same models and summary."""
        other = Stage(replace(self.plan, files=Files(self.files.run, setting)))
        other.summary, other._lender = self.summary, self
        return other

    @property
    def root(self) -> Stage:
        """The stage that the script opened; those of other settings come from it."""
        return self if self._lender is None else self._lender.root

    @property
    def bench(self):
        """Generator and scorer, loaded when they are first asked for; PipelineError where they lack the position."""
        if self._bench is None and self._lender is not None:
            self._bench = self._lender.bench
        if self._bench is None:
            self._bench = open_bench(self.plan.models, self.options.device, self.plan.batch, self.plan.precision)
            position = self.files.setting.position
            if position not in self._bench.positions:
                raise PipelineError(
                    f"--position {position}: this generator has {', '.join(self._bench.positions)} only; "
                    "the split positions exist in a v9 generator"
                )
        return self._bench

    def pool(self) -> None:
        """Sample what the pool lacks; asked for alone, it stores every position that the generator has."""
        from vectorfind.pool import (
            DESCRIPTION,
            complete_shards,
            difference,
            plan_for,
            read_plan,
            remove_pool,
            sample_pool,
            stored_shards,
        )

        folder, rows = self.files.pool, self.plan.rows
        about = self.stamped("pool", self.plan.pool_options(), self.plan.models.inputs(), seeded=False)
        fresh, reason = is_fresh(folder / DESCRIPTION, **about)
        present = read_plan(folder)
        position = self.files.setting.position
        alone = self.bench.positions if tuple(self.options.steps) == ("pool",) else ()
        positions = tuple(dict.fromkeys(("z", "w", position, *self.options.positions, *alone)))
        lacks_position = present is not None and not set(positions) <= set(present.positions)
        shard_rows = present.shard_rows if present else 0
        complete = shard_rows * complete_shards(folder)
        # Once in a run of the script, though several steps may ask for a pool.
        force, self.is_forced = self.is_forced, False
        if present is None and stored_shards(folder) and not force:
            raise PipelineError(
                f"{shown(folder)} holds samples without {DESCRIPTION}, which told whose they are: bring it back, "
                "give another --run, or sample them anew (--force)"
            )
        if fresh and complete >= rows and not lacks_position and not force:
            self.summary.kept(folder, f"{complete} samples, {rows} asked for")
            return
        # A run that was stopped while it added a position or rows had written its plan, not yet its stamp.
        unstamped = ("missing", "no stamp beside it", "changed since it was written")
        if force or (not fresh and reason not in unstamped):
            self._give_up_pool(present, rows, "--force" if force else reason)
            remove_pool(folder)
            complete = 0
        details = {"dtype": self.options.pool_dtype, "code": self.plan.code_versions["pool"]}
        wanted = plan_for(self.bench, positions, self.plan.pool_start, **details)
        # One that was stopped before it had a stamp.
        if complete and (why := difference(present, wanted)):
            self._give_up_pool(present, rows, why)
            complete = 0
        write_json(folder / POOL_WISH, self.plan.pool_wish())
        with progress(rows, "sampling the pool") as bar:
            sample_pool(self.bench, folder, wanted, rows, bar.update)
        write_stamp(folder / DESCRIPTION, command="run_vectorfind.py pool", rows=rows, **about)
        self.summary.wrote(folder, f"{rows} samples, {complete} of them were there" if complete else f"{rows} samples")

    def _give_up_pool(self, present, rows: int, why: str) -> None:
        """Note that the pool (its PoolPlan, or None) is sampled anew.

        PipelineError where whole shards more would be lost than are sampled, or the command line gives other options
        than it was sampled with. Under the same ones models that were trained again, or code, make it stale: so it goes
        in every pipeline that is run twice.
        """
        from vectorfind.pool import stored_shards

        shards = stored_shards(self.files.pool)
        if shards and why != "--force":
            held, had = len(shards) * present.shard_rows, self._other_pool_wish(present)
            if had or held - rows >= present.shard_rows:
                raise PipelineError(
                    f"{shown(self.files.pool)} holds {held} samples that are no longer what would be sampled ({why}); "
                    f"the {rows} asked for now would replace them: give run_vectorfind.py another --run, --force, or "
                    f"the options they had ({had or f'-n {held}'})"
                )
        self.summary.note(f"the pool is sampled anew: {why}")

    def _other_pool_wish(self, present) -> str:
        """The options that a pool (its PoolPlan) was sampled with, where the command line gives others; else ""."""
        record, asked = self.files.pool / POOL_WISH, self.plan.pool_wish()
        had = {"seed": (present.seed_start - POOL_START) // SEED_SPAN, "pool_dtype": present.dtype}
        had |= read_json(record) if record.is_file() else {}  # earlier code left none
        other = {name.replace("_", "-"): had[name] for name in asked if had.get(name, asked[name]) != asked[name]}
        return ", ".join(f"--{name} {value}" if value != "" else f"no --{name}" for name, value in other.items())

    def directions(self) -> None:
        """Find and calibrate the directions."""
        about = self.direction_about()
        if self.is_kept("directions", self.files.directions, about, self.files.direction_files()):
            return
        files, setting = self.files, self.files.setting
        begin_vectors(files)
        pool = self.open_pool()
        grouping = self.grouping(pool.scores)
        if self.options.vectors:
            rows = self._import_vectors(pool, grouping)
        elif setting.is_vector:
            rows = self._find_vectors(pool, grouping)
        elif setting.is_loop:
            from vectorfind.finding import make_loop

            loop = make_loop(self.bench, pool, grouping, setting, self.identity(), self.options.seed)
            loop.save(files.directions)
            rows = None
        else:
            rows = self._find_networks(pool, grouping)
        grouping.save(files.grouping)
        self.stamp("directions", files.directions, about, files.direction_files(), rows)
        self.summary.wrote(files.vectors, f"{setting.method} at {setting.position}")

    def direction_about(self) -> dict:
        """What the directions of this setting rest on."""
        from vectorfind.pool import pool_digest

        wish = self.plan.direction_options() | {"pool": pool_digest(self.files.pool)}
        read = sorted(Path(self.options.vectors).glob("*.csv")) if self.options.vectors else []
        return self.stamped(
            "directions", wish, self.inputs(**self._identity_files(), **{path.name: path for path in read})
        )

    def _find_vectors(self, pool, grouping) -> int:
        from pipeline.tables import write_table
        from vectorfind.calibration import probes
        from vectorfind.directions import write_vector
        from vectorfind.finding import find_directions
        from vectorfind.tables import FITS

        files, setting, method = self.files, self.files.setting, self.method_options()
        looks = self.identity()
        fits_and_probes = len(EDITED) * len(grouping.names) + probes(EDITED, grouping.names)
        with progress(fits_and_probes, f"finding directions ({setting.method})") as bar:
            found, fits = find_directions(self.bench, pool, grouping, setting, method, bar.update, looks=looks)
        for i, name in enumerate(found.properties):
            for j, group in enumerate(found.groups):
                write_vector(files.vector(name, group), found.units[i, j])
        write_table(files.fits, fits, FITS)
        found.save(files.directions)
        loose = int((~fits["converged"]).sum())
        if loose:
            iterations = int(fits.loc[~fits["converged"], "iterations"].max())
            self.summary.note(f"{loose} of {len(fits)} SVMs stopped at {iterations} iterations before they converged")
        return len(fits)

    def _import_vectors(self, pool, grouping) -> int:
        from vectorfind.calibration import probes
        from vectorfind.directions import write_vector
        from vectorfind.published import import_vectors

        files = self.files
        with progress(probes(EDITED, grouping.names), "measuring sign and step of vectors") as bar:
            found, turned = import_vectors(
                self.bench, pool, grouping, self.options.vectors, files.setting.position, bar.update
            )
        for i, name in enumerate(found.properties):
            for j, group in enumerate(found.groups):
                write_vector(files.vector(name, group), found.units[i, j])
        found.save(files.directions)
        self.summary.note(f"{int(turned.sum())} of {turned.size} vectors lower their property, as published; turned")
        capped = found.provenance["capped"]
        if 2 * capped > turned.size:
            self.summary.note(
                f"{capped} of {turned.size} vectors hardly move their property: they are probably of another generator "
                "(--generator)"
            )
        return turned.size

    def _find_networks(self, pool, grouping) -> int:
        from pipeline.tables import write_table
        from vectorfind.directions import write_vector
        from vectorfind.finding import find_networks
        from vectorfind.tables import FITS

        with progress(0, "training gradient networks (epochs)") as bar:
            found, fits = find_networks(
                self.bench, pool, grouping, self.files.setting, self.method_options(), bar.update, self.identity()
            )
        if self.files.setting.vectors_as_found:
            for name in (name for name in EDITED if name not in found.nets):
                for group in found.vectors.groups:
                    write_vector(self.files.vector(name, group), found.vectors.get(name, group).unit)
        write_table(self.files.fits, fits[list(FITS.columns)], FITS)
        found.save(self.files.directions)
        return len(fits)

    def method_options(self):
        """MethodOptions of this setting."""
        from vectorfind.methods import MethodOptions

        setting = self.files.setting
        ranks = setting.mended and setting.method == "ridge"
        return MethodOptions(k_percent=self.plan.k_percent, seed=self.options.seed, ranks=ranks)

    def grouping(self, scores):
        """The Grouping of this setting, its medians those of scores [n, 8]."""
        from vectorfind.groups import Grouping

        setting = self.files.setting
        if setting.cuts != "medians":
            return Grouping.published(setting.cuts)
        return Grouping.at_medians(setting.groups, scores)

    def _identity_files(self) -> dict[str, Path]:
        """What an edit holds a person by, as inputs of a stamp."""
        return identity_files(Profile.load(self.options.profile), self.files.setting.holds)

    def identity(self):
        """What the setting's edits hold a person by; for a loop None, and a note, where the profile lacks it.

        PipelineError where looks were asked for.
        """
        setting = self.files.setting
        found = open_identity(Profile.load(self.options.profile), setting.holds, self.options.device)
        if found is None and setting.looks:
            raise PipelineError("--looks: this profile lacks the weights of a face parser; leave --looks out")
        if found is None and setting.is_loop:
            self.summary.note(
                f"{self.files.setting.method} holds nothing of a person but the scores: this profile lacks the weights "
                "([cnn] bundled for closed_loop, the face parser for model_loop)"
            )
        return found

    def test(self) -> None:
        """Edit the faces of the test and judge the edits."""
        result_file = self.files.test("test_result.csv")
        about = self.stamped("test", self.plan.test_options(), self.inputs(directions=self.files.directions))
        tables = [self.files.test(f"{name}.csv") for name in ("grid_scores", "test_statistics", "test_summary")]
        if self.is_kept("test", result_file, about, tables):
            return
        from pipeline.tables import write_table
        from vectorfind.evaluate import (
            check_disjoint,
            grid_table,
            result_table,
            statistics_table,
            summary_table,
        )
        from vectorfind.graders import FINDER, finder_of
        from vectorfind.protocol import run_graded
        from vectorfind.tables import GRID, RESULT, STATISTICS, SUMMARY

        directions, grouping = self.open_directions()
        start = directions.provenance["pool_seed_start"]
        check_disjoint(range(start, start + directions.provenance["pool_rows"]), self.plan.test_seeds)
        grid = self.files.setting.test_grid
        with progress(len(grid.amounts()) * self.plan.faces, f"testing on {self.plan.faces} faces") as bar:
            finder = [finder_of(self.bench, self.open_pool().scores)]
            tests = run_graded(self.bench, directions, grouping, self.plan.test_seeds, grid, finder, bar.update)
        measured = tests[FINDER]
        result = result_table(measured, self.plan.passes)
        write_table(tables[0], grid_table(measured), GRID)
        write_table(tables[1], statistics_table(result), STATISTICS)
        write_table(tables[2], summary_table(result, self.plan.passes), SUMMARY)
        write_table(result_file, result, RESULT)
        self.stamp("test", result_file, about, tables, len(result))
        self.summary.wrote(result_file, f"{len(result)} faces, {len(grid.amounts())} edits each")
        means = ", ".join(f"{name} {result[f'{name}_corr'].mean():.3f}" for name in EDITED)
        passing = int((result["passed"] == "O").sum())
        self.summary.note(
            f"{self.files.setting.name}: mean signed corr {means}; {passing} of {len(result)} faces pass all three"
        )

    def report(self) -> None:
        """Draw the figures and write the report."""
        files = self.files
        tables = {name: files.test(f"{name}.csv") for name in ("test_result", "grid_scores", "test_summary")}
        inputs = self.inputs(directions=files.directions, **tables)
        wish = {"faces": STRIP_FACES, "passes": self.plan.passes, "samples": self.plan.rows}
        wish["notes"] = self.plan.models.notes
        about = self.stamped("report", wish, inputs)
        figures = [files.figure(f"{name}.png") for name in ("scores", "corr", "curves")] + files.strips()
        if self.is_kept("report", files.report, about, figures):
            return
        from pipeline.tables import read_table
        from vectorfind.figures import draw_corr, draw_curves, draw_scores, draw_strips
        from vectorfind.finding import finite_scores
        from vectorfind.report import Findings, write_report
        from vectorfind.space import honest_space
        from vectorfind.tables import FITS, GRID, RESULT, SUMMARY

        result = read_table(tables["test_result"], RESULT)
        pool = self.open_pool()
        directions, grouping = self.open_directions()
        extremes = directions.provenance["options"]["k_percent"] if files.setting.method == "svm" else None
        draw_scores(figures[0], pool.scores, extremes)
        draw_corr(figures[1], result, self.plan.passes)
        draw_curves(
            figures[2],
            read_table(tables["grid_scores"], GRID),
            directions.score_sds,
            self.files.setting.grid == "deviations",
        )
        shown = list(self.plan.test_seeds)[:STRIP_FACES]
        draw_strips(files.strips(), self.bench, directions, grouping, shown)
        rows, scores = finite_scores(pool.head(min(len(pool), SPACE_ROWS)))
        space, cosines = honest_space({"z": pool.codes("z")[rows], "w": pool.codes("w")[rows]}, scores)
        findings = Findings(
            pool=pool,
            directions=directions,
            fits=read_table(files.fits, FITS) if files.fits in files.direction_files() else None,
            result=result,
            summary=read_table(tables["test_summary"], SUMMARY),
            space=space,
            cosines=cosines,
            notes=self.plan.models.notes,
            passes=self.plan.passes,
            strip_faces=len(shown),
        )
        write_report(files, findings)
        self.stamp("report", files.report, about, figures)
        self.summary.wrote(files.report, f"{len(figures)} figures")

    def stamped(self, step: str, options: dict, inputs: dict, seeded: bool = True) -> dict:
        """What the stamp of a step's main file tells: arguments of `is_fresh` and `write_stamp`."""
        seed = self.options.seed if seeded else None
        return {"options": options, "seed": seed, "inputs": inputs, "code": self.plan.code_versions[step]}

    def inputs(self, **more) -> dict:
        """The files that a step reads, by name: both models, and those given."""
        return {**self.plan.models.inputs(), **more}

    def is_kept(self, step: str, path: Path, about: dict, others: list[Path]) -> bool:
        """Whether a step's main file and the others beside it are what the step would write again.

        Where they are not, the main file loses its stamp: what a stopped step leaves counts for nothing. Nothing is
        kept, nor lost, of other directions than the options ask for: `open_directions` refuses them.
        """
        if "directions" in about["inputs"] and self._other_directions():
            return False
        fresh, reason = is_fresh(path, **about)
        missing = [other for other in others if not other.is_file()]
        if fresh and missing:
            fresh, reason = False, f"{missing[0].name} is missing"
        if fresh and not self.options.force:
            self.summary.kept(path)
            return True
        if path.is_file():
            self.summary.note(f"{step} again: {'--force' if self.options.force else reason}")
        stamp_path(path).unlink(missing_ok=True)
        return False

    def stamp(self, step: str, path: Path, about: dict, others: list[Path], rows: int | None = None) -> None:
        """Stamp a step's main file, once all that belongs to it is written."""
        write_stamp(path, command=f"run_vectorfind.py {step}", rows=rows, beside=others, **about)

    def open_pool(self):
        """The Pool of this run; PipelineError where it is smaller than asked for, or of other models or seeds."""
        from vectorfind.pool import Pool

        pool = Pool.open(self.files.pool, self.plan.rows)
        if pool.plan.generator_hash != self.bench.generator_hash or pool.plan.scorer_hash != self.bench.scorer_hash:
            raise PipelineError(
                f"{self.files.pool} was sampled with another generator or scorer: run `run_vectorfind.py pool` first"
            )
        if pool.plan.seed_start != self.plan.pool_start:
            raise PipelineError(
                f"{self.files.pool} begins at seed {pool.plan.seed_start}, with --seed {self.options.seed} it would at "
                f"{self.plan.pool_start}: run `run_vectorfind.py pool` with this --seed first, or give the pool's"
            )
        return pool

    def open_directions(self):
        """The editor and the grouping of this setting; PipelineError where its options ask for other directions."""
        from vectorfind.editor import load_editor
        from vectorfind.groups import Grouping

        path = self.files.directions
        if not path.is_file():
            raise PipelineError(f"{shown(path)} is missing: add `directions` to the steps, with the same options")
        editor = load_editor(path, self.files.setting.method, self.bench, self.identity)
        if reason := self._other_directions():
            raise PipelineError(
                f"{shown(path)} does not hold what these options ask for ({reason}): give the options that its "
                "directions were found with, or add `directions` to the steps"
            )
        old = f"{shown(path)} was found by earlier code; add `directions` to the steps to find it anew"
        if self._code_of_directions() != self.direction_about()["code"] and old not in self.summary.notes:
            self.summary.note(old)
        return editor, Grouping(editor.grouping, editor.cuts)

    def _other_directions(self) -> str:
        """Why the directions of this setting are not what the options ask for; "" where they are.

        Whether code that has changed since would find the same is not known; other options find others.
        """
        fresh, reason = is_fresh(
            self.files.directions, **{**self.direction_about(), "code": self._code_of_directions()}
        )
        return "" if fresh else reason

    def _code_of_directions(self) -> str:
        stamp = stamp_path(self.files.directions)
        return read_json(stamp).get("code", "") if stamp.is_file() else ""
