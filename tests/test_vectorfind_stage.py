"""Stage 6 on a run folder: all tables and figures there, run again nothing new, stopped anywhere the same tables."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from vectorfind_world import folder_bytes, make_bench

import apply_direction
import run_vectorfind
import vectorfind.stage
from pipeline.command import Summary
from pipeline.errors import PipelineError
from vectorfind.directions import read_vectors, write_vector
from vectorfind.grounds import CODE

RESULTS = "vectorfind/image_generation_report/svm_w"
TABLES = (
    *(
        f"vectorfind/image_generation_report/svm_w/{name}.csv"
        for name in ("test_result", "test_statistics", "grid_scores")
    ),
    "vectorfind/image_generation_report/svm_w/test_summary.csv",
    "vectorfind/property_score_vectors/eyes_change_w_vector_hhhh.csv",
    "vectorfind/property_score_vectors/pose_change_w_vector_llll.csv",
    "vectorfind/property_score_vectors/directions_w_16.csv",
    "vectorfind/property_score_vectors/directions_w_16.npz",
)
FIGURES = tuple(
    f"reports/vectorfind_svm_w/{name}" for name in ("scores.png", "corr.png", "curves.png", "strip_eyes.jpg")
)


class Opened(list):
    """Counts how often the models were loaded."""


@pytest.fixture
def stage(tmp_path, write_profile, monkeypatch):
    """Returns a function that runs the stage in a run folder with the linear world, and the count of model loads."""
    tiny_profile, weights = write_profile(vectorfind={"beside": []}), {}
    for name in ("generator", "scorer"):
        weights[name] = tmp_path / f"{name}.pth"
        weights[name].write_bytes(name.encode())
    opened = Opened()

    def open_bench(files, device="cpu", batch=50, precision="auto"):
        opened.append(files)
        opened.precision = precision
        return make_bench(seed=int("other" in files.generator.read_text()), batch=batch)

    monkeypatch.setattr(vectorfind.stage, "open_bench", open_bench)
    monkeypatch.setattr(apply_direction, "open_bench", open_bench)

    def go(run="run", *steps, **options):
        wish = {"samples": 600, "faces": 5, "batch": 50, "profile": str(tiny_profile), **options}
        paths = {name: str(path) for name, path in weights.items()}
        steps = steps or run_vectorfind.STEPS
        settled = run_vectorfind.VectorFindOptions(steps=steps, run=str(tmp_path / run), device="cpu", **paths, **wish)
        run_vectorfind.run(settled)
        return tmp_path / run

    go.opened, go.weights, go.profile = opened, weights, tiny_profile
    return go


def contents(run: Path, names=TABLES) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in names}


def test_one_command_writes_every_table_figure_and_the_report(stage):
    run = stage()
    for name in (*TABLES, *FIGURES, "reports/vectorfind_svm_w.md"):
        assert (run / name).stat().st_size > 0, name
    assert len(list((run / "vectorfind/property_score_vectors").glob("*_change_w_vector_*.csv"))) == 48
    text = (run / "reports/vectorfind_svm_w.md").read_text(encoding="utf-8")
    for phrase in ("mean signed correlation", "Opening the mouth", "Held-out R²", "unconverged", "Groups"):
        assert phrase in text, phrase
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (run / "reports" / link).is_file(), link
    assert str(run.parent) not in text
    assert np.linalg.norm(read_vectors(run / TABLES[4])) == pytest.approx(1, abs=1e-5)


def test_run_again_it_does_nothing_and_loads_no_model(stage):
    run = stage()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    loads = len(stage.opened)
    stage()
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    assert len(stage.opened) == loads and not Summary.printed[-1].written


def test_what_the_profile_names_beside_is_found_tested_and_reported_too(stage, write_profile):
    wish = {"profile": str(write_profile("both", vectorfind={"beside": ["ridge_conditional"]}))}
    run = stage(**wish)
    for name in ("svm_w", "ridge_conditional_w"):
        assert (run / f"reports/vectorfind_{name}.md").is_file()
        assert (run / f"vectorfind/image_generation_report/{name}/test_result.csv").is_file()
    assert len(stage.opened) == 1
    told = "\n".join(Summary.printed[-1].notes)
    assert "svm_w: mean signed corr" in told and "ridge_conditional_w: mean signed corr" in told
    stage(**wish)
    assert len(stage.opened) == 1 and not Summary.printed[-1].written
    for apart, steps, options in (("named", run_vectorfind.STEPS, {"method": "ridge"}), ("steps", ("pool",), {})):
        run = stage(apart, *steps, **wish, **options)
        assert not (run / "vectorfind/property_score_vectors/ridge_conditional").exists()


@pytest.mark.parametrize("names", ["ridge", [1], ["svn"]])
def test_methods_beside_that_do_not_exist_are_refused(tmp_path, write_profile, names):
    profile = write_profile(vectorfind={"beside": names})
    options = run_vectorfind.VectorFindOptions(run=str(tmp_path / "run"), profile=str(profile))
    with pytest.raises(PipelineError, match=r"tiny\.toml: \[vectorfind\] beside"):
        run_vectorfind.plan(options)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pictures_are_drawn_in_the_precision_that_is_asked_for(stage, precision):
    run = stage("run", "pool", "directions", "test", precision=precision)
    assert stage.opened.precision == precision
    stamp = json.loads((run / RESULTS / "test_result.csv.json").read_text())
    assert stamp["options"]["precision"] == precision


def test_same_seed_twice_same_tables_another_seed_other_ones(stage):
    first, second = contents(stage("one")), contents(stage("two"))
    assert first == second
    other = contents(stage("three", seed=1))
    assert all(other[name] != first[name] for name in TABLES)


def test_a_pool_of_another_seed_is_not_taken_for_this_one(stage):
    stage("run", "pool")
    with pytest.raises(PipelineError, match="begins at seed 1000000, with --seed 1 it would at 1001000000"):
        stage("run", "directions", seed=1)


def test_a_note_on_missing_models_goes_once_they_are_there(stage, tmp_path, monkeypatch):
    notes = ["the property CNN of this run is missing"]
    real = run_vectorfind.locate
    monkeypatch.setattr(run_vectorfind, "locate", lambda *a: replace(real(*a), notes=list(notes)))
    report = stage() / "reports/vectorfind_svm_w.md"
    assert notes[0] in report.read_text()
    notes.clear()
    stage()
    assert "is missing" not in report.read_text()


@pytest.mark.parametrize("after", ["pool", "directions", "test"])
def test_stopped_between_or_inside_steps_it_ends_with_the_same_tables(stage, monkeypatch, after):
    whole = contents(stage("whole"))
    names = {"pool": "sample_pool", "directions": "find_directions", "test": "run_graded"}
    module = {"pool": "vectorfind.pool", "directions": "vectorfind.finding", "test": "vectorfind.protocol"}[after]
    with monkeypatch.context() as patch:
        inner = __import__(module, fromlist=["x"])
        real = getattr(inner, names[after])

        def half_way(*arguments, **options):
            done = 0

            def count(rows):
                nonlocal done
                done += rows
                if done > 40:
                    raise KeyboardInterrupt

            return real(*arguments[:-1], count, **options)

        patch.setattr(inner, names[after], half_way)
        with pytest.raises(KeyboardInterrupt):
            stage("stopped")
    assert contents(stage("stopped")) == whole


def test_a_pool_that_was_stopped_while_it_grew_keeps_its_samples(stage):
    run = stage("run", "pool")
    shards = {path: path.stat().st_mtime_ns for path in run.rglob("shard_*/*.npy")}
    # As after a stop between a new position and the stamp.
    plan = run / "vectorfind/pool/pool.json"
    plan.write_text(json.dumps(json.loads(plan.read_text())))
    stage("run", "pool", samples=800)
    assert shards.items() <= {path: path.stat().st_mtime_ns for path in run.rglob("shard_*/*.npy")}.items()
    assert "of them were there" in Summary.printed[-1].written[-1][1]


def test_a_lost_table_is_written_again_and_a_lost_vector_too(stage):
    run = stage()
    before = contents(run)
    for name in (TABLES[1], TABLES[4]):
        (run / name).unlink()
        stage()
        assert contents(run) == before


def test_more_samples_extend_the_pool_and_renew_what_depends_on_it(stage):
    run = stage()
    before = {path: path.stat().st_mtime_ns for path in (run / "vectorfind/pool").rglob("*.npy")}
    stage(samples=1000)
    after = {path: path.stat().st_mtime_ns for path in (run / "vectorfind/pool").rglob("*.npy")}
    assert len(after) > len(before) and all(after[path] == before[path] for path in before)
    assert contents(run)[TABLES[0]] == contents(stage("fresh", samples=1000))[TABLES[0]]


def test_another_generator_makes_everything_anew(stage):
    run = stage()
    stage.weights["generator"].write_bytes(b"other generator")
    stage()
    assert any("input generator changed" in note for note in Summary.printed[-1].notes)
    assert contents(run) == contents(stage("fresh"))


def test_a_pool_is_not_thrown_away_for_a_smaller_one(stage):
    run = stage("run", "pool")
    before = folder_bytes(run / "vectorfind/pool")
    with pytest.raises(PipelineError, match="no longer what would be sampled .*the 200 asked for now would replace"):
        stage("run", "pool", samples=200, seed=1)
    stage.weights["generator"].write_bytes(b"other generator")
    with pytest.raises(PipelineError, match="input generator changed.*another --run, --force, or"):
        stage("run", "pool", samples=200)
    assert folder_bytes(run / "vectorfind/pool") == before
    (run / "vectorfind/pool/pool.json").unlink()
    with pytest.raises(PipelineError, match=r"holds samples without pool\.json.*\(--force\)"):
        stage("run", "pool", samples=200)
    assert len(list((run / "vectorfind/pool").glob("shard_*"))) == 3
    stage("run", "pool", samples=200, force=True)
    assert len(list((run / "vectorfind/pool").glob("shard_*"))) == 1


def test_a_step_whose_forerunner_is_missing_or_of_another_generator_says_what_to_run(stage):
    with pytest.raises(PipelineError, match=r"run_vectorfind\.py pool"):
        stage("run", "directions")
    stage("run", "pool")
    with pytest.raises(PipelineError, match="directions_w_16.npz is missing: add `directions` to the steps"):
        stage("run", "test")
    stage("run", "directions")
    stage.weights["generator"].write_bytes(b"other generator")
    with pytest.raises(PipelineError, match="another generator or scorer"):
        stage("run", "directions")
    with pytest.raises(PipelineError, match="belongs to another generator"):
        stage("run", "test")


def test_methods_share_the_pool_and_keep_apart(stage):
    run = stage()
    svm = contents(run)
    stage(method="ridge", groups="8", conditional=True)
    assert contents(run) == svm
    assert (run / "reports/vectorfind_ridge_conditional_w_8.md").is_file()
    assert (run / "vectorfind/property_score_vectors/ridge_conditional/directions_w_8.npz").is_file()
    stage("run", "test", grid="published")
    assert (run / "vectorfind/image_generation_report/svm_w_published_grid/test_result.csv").is_file()
    stage(position="z")
    assert (run / "vectorfind/property_score_vectors/mouth_change_z_vector_hlhl.csv").is_file()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"k_percent": 60.0}, "must not overlap"),
        ({"samples": 0}, "-n 0: give a number"),
        ({"position": "mapping_split1"}, "the split positions exist in a v9 generator"),
        ({"samples": 9_000_000}, "would share seeds"),
        ({"method": "magic"}, "svm, ridge"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_image(stage, options, message):
    with pytest.raises(PipelineError, match=message):
        stage(**options)


@pytest.mark.parametrize("bars", [[0.92, 0.88], 0.9, ["high", 0.9, 0.9], [0.9, 0.9, 1.5], [True, 0.9, 0.9]])
def test_bars_that_are_not_three_correlations_are_refused(tmp_path, write_profile, bars):
    profile = write_profile(vectorfind={"passes": bars})
    options = run_vectorfind.VectorFindOptions(run=str(tmp_path / "run"), profile=str(profile))
    with pytest.raises(PipelineError, match=r"\[vectorfind\] passes = .* a list of 3 correlations"):
        run_vectorfind.plan(options)


def test_without_a_fine_tuned_generator_the_base_one_serves_with_a_note(tmp_path, write_profile):
    profile = write_profile(weights={"generator_v9": ""})
    options = run_vectorfind.VectorFindOptions(profile=str(profile), run=str(tmp_path / "run"), scorer=str(profile))
    settled = run_vectorfind.plan(options)
    assert settled.models.generator.name == "generator.pth"
    assert "--generator base" in settled.models.notes[0]
    own = tmp_path / "run/stylegan_modified/stylegan_gen_fine_tuned_v9.pth"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"weights")
    settled = run_vectorfind.plan(options)
    assert settled.models.generator == own and not settled.models.notes


def test_apply_direction_refuses_a_strip_that_is_no_picture_before_it_draws(tmp_path, tiny_profile):
    options = apply_direction.ApplyOptions(profile=str(tiny_profile), run=str(tmp_path), eyes=1, out="strip.gif")
    with pytest.raises(PipelineError, match=r"--out strip\.gif: an image file ends in \.jpg"):
        apply_direction.run(options)


def test_apply_direction_draws_a_strip_and_says_what_moved(stage, tmp_path, capsys):
    stage()
    paths = {name: str(path) for name, path in stage.weights.items()}
    common = {"profile": str(stage.profile), "run": str(tmp_path / "run"), "device": "cpu", **paths}
    out = tmp_path / "strip.png"
    apply_direction.run(
        apply_direction.ApplyOptions(seed=12, eyes=1.5, mouth=-1, pose=0.5, frames=4, out=str(out), **common)
    )
    from pipeline.artefacts import read_image

    picture = read_image(out)
    assert picture.shape[1] >= 4 * 16
    said = capsys.readouterr().out
    told = re.compile(r"(\w+): ([+-][\d.]+) deviations asked, ([+-][\d.]+) measured")
    assert [(name, float(asked)) for name, asked, _ in told.findall(said)] == [
        ("eyes", 1.5),
        ("mouth", -1.0),
        ("pose", 0.5),
    ]
    # Directions that hold each other's property still do what is asked.
    wish = {"method": "ridge", "conditional": True}
    stage("run", "directions", **wish)
    capsys.readouterr()
    apply_direction.run(
        apply_direction.ApplyOptions(seed=12, eyes=1.5, mouth=-1, pose=0.5, out=str(out), **wish, **common)
    )
    measured = {name: float(change) for name, _, change in told.findall(capsys.readouterr().out)}
    assert measured == pytest.approx({"eyes": 1.5, "mouth": -1.0, "pose": 0.5}, abs=0.15)
    apply_direction.run(
        apply_direction.ApplyOptions(seed=12, eyes=1.5, mouth=-1, pose=0.5, frames=4, out=str(out), **common)
    )
    # The same face from a file of latents: the same picture.
    latents, again = tmp_path / "z.csv", tmp_path / "again.png"
    z = np.stack([np.zeros(24, np.float32), make_bench().latents([12])[0]])
    write_vector(latents, z)
    apply_direction.run(
        apply_direction.ApplyOptions(
            z=str(latents), row=1, eyes=1.5, mouth=-1, pose=0.5, frames=4, out=str(again), **common
        )
    )
    assert (read_image(again) == picture).all()
    # A file that tells a label tells another face.
    labelled = tmp_path / "labelled.csv"
    write_vector(labelled, np.concatenate([z, np.full((2, 3), 2.0, np.float32)], axis=1))
    with pytest.raises(PipelineError, match="has 27 numbers a row, this generator takes 24"):
        apply_direction.run(apply_direction.ApplyOptions(z=str(labelled), eyes=1, out=str(out), **common))
    for wrong, message in (
        ({"z": str(latents), "row": 2}, "has rows 0 to 1"),
        ({"frames": 1}, "at least 2"),
        ({"eyes": 50.0}, "deviations"),
        ({"method": "ridge"}, "missing: run first\\n  python run_vectorfind.py pool directions"),
        ({"method": "ridge", "conditional": True, "looks": True}, "directions .*--conditional --looks"),
        ({"method": "imported", "generator": "base", "cuts": "v8"}, "--vectors FOLDER .*--cuts v8 .*--generator base"),
    ):
        with pytest.raises(PipelineError, match=message):
            apply_direction.run(apply_direction.ApplyOptions(**{"out": str(out), **common, **wrong}))
    stage.weights["generator"].write_bytes(b"other generator")
    with pytest.raises(PipelineError, match="another generator"):
        apply_direction.run(apply_direction.ApplyOptions(out=str(out), **common))


def test_what_a_stopped_step_left_counts_for_nothing(stage, monkeypatch):
    run = stage("run", "pool", "directions", "test")
    before = contents(run)
    # Stopped between the first table and the last: 7 faces in some of them, 5 in the others.
    with monkeypatch.context() as patch:
        patch.setattr(vectorfind.tables, "RESULT", None)
        with pytest.raises(Exception, match="NoneType"):
            stage("run", "test", faces=7)
    assert contents(run)[f"{RESULTS}/grid_scores.csv"] != before[f"{RESULTS}/grid_scores.csv"]
    stage("run", "test")
    assert contents(run) == before
    # Nor does a table that somebody has changed.
    table = run / RESULTS / "test_summary.csv"
    table.write_bytes(table.read_bytes().replace(b"0.", b"1."))
    stage("run", "test")
    assert contents(run) == before
    assert any("test_summary.csv changed since it was written" in note for note in Summary.printed[-1].notes)


def test_directions_are_not_taken_for_those_that_other_options_ask_for(stage, monkeypatch):
    run = stage()
    tested = contents(run)
    # Nor are tables that came from those: the second wish is for as many faces as were tested.
    for wish in ({"k_percent": 5.0, "faces": 6}, {"k_percent": 5.0}, {"samples": 400}):
        for step in ("test", "report"):
            with pytest.raises(PipelineError, match="directions_w_16.npz does not hold what these options ask for"):
                stage("run", step, **wish)
    assert contents(run) == tested
    with pytest.raises(PipelineError, match="directions_mapping_split2_16.npz is missing: add `directions` to"):
        stage("run", "test", position="mapping_split2")
    groups = run / "vectorfind/property_score_vectors/groups_w_16.json"
    known = groups.read_bytes()

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vectorfind.finding.find_directions", stop)
        with pytest.raises(KeyboardInterrupt):
            stage("run", "directions", samples=300)
    assert groups.read_bytes() == known
    # Code that has changed since is told, and no reason to refuse.
    stage("run", "directions")
    stamp = run / "vectorfind/property_score_vectors/directions_w_16.npz.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "code": "older"}))
    stage("run", "test", faces=6)
    assert any("was found by earlier code" in note for note in Summary.printed[-1].notes)


def test_bars_and_extremes_renew_what_rests_on_them(stage, write_profile):
    run = stage()
    before = contents(run)
    stage(k_percent=10.0)
    changed = contents(run)
    assert changed["vectorfind/property_score_vectors/directions_w_16.csv"] != before[TABLES[6]]
    assert changed[f"{RESULTS}/test_result.csv"] != before[f"{RESULTS}/test_result.csv"]
    write_profile(vectorfind={"beside": [], "passes": [-1.0, -1.0, -1.0]})
    stage(k_percent=10.0)
    assert (run / RESULTS / "test_result.csv").read_text().count(",O,") == 5


@pytest.mark.parametrize(
    "grid, word", [("published", "units of the latent space"), ("reachable", "slid for each face")]
)
def test_the_report_tells_the_grid_of_its_test(stage, grid, word):
    run = stage(grid=grid, groups="none")
    text = (run / f"reports/vectorfind_svm_w_ungrouped_{grid}_grid.md").read_text()
    assert text.startswith(f"# VectorFind: svm_w_ungrouped_{grid}_grid\n") and word in text


# What a step imports and yet does not rest on: it finds, loads, checks, trains, draws or shows, or is a step before.
NO_GROUND = re.compile(
    r"pipeline\.(?!seeds|report)|cnn\.(models|settings)|stylegan\.checkpoint|property_score\.tables|"
    r"vectorfind\.(editor|figures|finding|further|pool|setting)"
)


@pytest.mark.parametrize("step", [name for name in CODE if name != "report"])
def test_a_change_of_any_code_that_a_step_rests_on_makes_it_stale(step):
    root = Path(run_vectorfind.__file__).parent
    ours = {path.parent.name for path in root.glob("*/__init__.py")}
    for module in CODE[step]:
        for node in ast.walk(ast.parse((root / f"{module.replace('.', '/')}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ours:
                words_only = [name.name for name in node.names] == ["PROPERTIES"]
                known = node.module in CODE[step] or NO_GROUND.match(node.module) or words_only
                assert known, f"{module} imports {node.module}, which CODE['{step}'] lacks"
