"""The steps beyond the published test, on a run folder in the linear world."""

from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from vectorfind_run import runner_in
from vectorfind_world import make_bench

import run_vectorfind
import vectorfind.further
import vectorfind.selection
import vectorfind.verdict
from pipeline.command import Summary
from pipeline.errors import PipelineError
from vectorfind.directions import read_vectors, write_vector
from vectorfind.effects import ORACLE_ATTRIBUTES, WAYS, largest_leak
from vectorfind.graders import Grader
from vectorfind.models import resolve_precision
from vectorfind.names import EDITED
from vectorfind.published import read_latents
from vectorfind.questions import obedience
from vectorfind.reach import JUDGED, LETTER
from vectorfind.selection import CHOOSING, CONFIRMING, noise_of, photograph, with_cameras
from vectorfind.targets import against_reference, person_leak_otherwise, targets


@pytest.fixture
def further(tmp_path, tiny_profile, monkeypatch):
    return runner_in(tmp_path, tiny_profile, monkeypatch)


@pytest.mark.parametrize("method", ["closed_loop", "model_loop"])
def test_the_loops_go_through_every_step(further, method):
    run = further("pool", "directions", "test", "report", "judge", "effects", "reach", method=method)
    assert "No direction is fitted" in (run / f"reports/vectorfind_{method}_w_ungrouped.md").read_text()
    folder = run / f"vectorfind/judgement/{method}_w_ungrouped"
    judged = pd.read_csv(folder / "judgement.csv")
    assert judged["corr"].min() > 0.98 and (judged["reversed"] == 0).all()
    reach = pd.read_csv(folder / "reach.csv")
    assert len(reach) == 9 and (reach["low"] < 0).all() and (reach["high"] > 0).all()
    met = pd.read_csv(folder / "intended.csv")
    assert met.loc[met["walk"] == LETTER, "met"].mean() >= 0.95
    assert (JUDGED in set(met["walk"])) == (method == "model_loop")
    assert pd.read_csv(folder / "side_effects.csv")["matched"].mean() > 0.9
    before = (folder / "judgement.csv").stat().st_mtime_ns
    further("judge", method=method)
    assert (folder / "judgement.csv").stat().st_mtime_ns == before and not Summary.printed[-1].written
    for step in ("judge", "effects", "reach"):
        with pytest.raises(PipelineError, match="does not hold what these options ask for"):
            further(step, method=method, samples=150)
    further("compare", methods=(method,))
    text = (run / "reports/vectorfind_ungrouped.md").read_text()
    assert f"## The reach of {method}_w_ungrouped" in text and "follows the finder alone: 100.0%" in text
    drawn = run / f"reports/vectorfind_ungrouped/reach_{method}_w_ungrouped"
    assert drawn.with_suffix(".png").stat().st_size > 0 and len(pd.read_csv(drawn.with_suffix(".csv"))) == 9
    with pytest.raises(PipelineError, match="use --method model_loop"):
        further("reach")


def test_one_command_compares_methods_and_writes_the_verdict(further):
    run = further("compare", methods=("svm", "ridge_mended_conditional", "closed_loop"))
    text = (run / "reports/vectorfind_ungrouped.md").read_text()
    assert "Best by the 'finder' grader" in text and "closed_loop_w_ungrouped" in text
    for question in ("better-obeyed intention", "too many samples"):
        assert question in text
    paired = pd.read_csv(run / "vectorfind/judgement/paired_ungrouped.csv")
    assert set(paired["method"]) == {"ridge_mended_conditional_w_ungrouped", "closed_loop_w_ungrouped"}
    assert (paired["reference"] == "svm_w_ungrouped").all() and (paired["pairs"] == 3).all()
    # What was judged before stays in the verdict.
    further("compare", methods=("ridge",))
    assert "closed_loop_w_ungrouped" in (run / "reports/vectorfind_ungrouped.md").read_text()
    for figure in ("leakage.png", "passes.png", "strips.jpg"):
        assert (run / "reports/vectorfind_ungrouped" / figure).stat().st_size > 0


def test_the_verdict_shows_the_other_grid_and_the_person_on_the_scale_of_all(further):
    # No side effects: these are the same on every grid.
    further("pool", "directions", "judge", method="closed_loop", grid="reachable")
    run = further("compare", methods=("svm", "closed_loop"))
    further("compare", methods=("closed_loop",), grid="reachable")
    lines = (run / "reports/vectorfind_ungrouped.md").read_text().splitlines()
    header = next(line for line in lines if line.startswith("| what |"))
    assert "| reachable grid |" in header and "| reachable grid |" not in (
        (run / "reports/vectorfind_ungrouped_reachable_grid.md").read_text()
    )
    reversed_row = next(line for line in lines if line.startswith("| reversed faces"))
    assert reversed_row.endswith("| 0.000 | met |")


def test_leaks_on_the_scale_of_all_faces():
    leaks = pd.DataFrame(
        {
            "property": ["eyes", "eyes", "eyes"],
            "column": ["finder eyes", "finder mouth", "glasses"],
            "signed": [1.0, 0.1, -0.5],
            "up": [1.0, -0.3, 0.9],
            "down": [1.0, 0.5, np.nan],
            "edits_up": [30, 30, 19],
            "edits_down": [30, 20, 0],
            "intended": [True, False, False],
        }
    )
    # Nineteen edits are too few to speak of; what both ways do alike is seen one way only.
    assert largest_leak(leaks, WAYS) == ("eyes down > finder mouth", 0.5)
    units = pd.DataFrame({"persona": [0.02], "all": [0.2]}, index=["glasses"])
    judged = pd.DataFrame(
        [
            {"method": "a", "grader": "finder", "property": name, "corr": 0.9, "most": 1.0}
            | {"pass_v7": 0.5, "pass_v8": 0.8, "reversed": 0.0}
            for name in EDITED
        ]
    )
    faces = pd.DataFrame({"seed": [1], "grader": "finder", **{f"{name}_corr": 0.9 for name in EDITED}})
    own_error = pd.DataFrame({"property": ["eyes"], "column": ["glasses"], "signed": [-0.4], "intended": [False]})
    true = {f"true {word}": 0.1 for word in ORACLE_ATTRIBUTES}
    moves = pd.DataFrame({"property": EDITED, "seed": [1, 2, 3], "matched": True, **true})
    moves.loc[1, "true glasses"] = -0.3
    table = targets(judged, {"a": faces}, {"a": leaks}, "a", "a").set_index("what")
    assert table.loc["leak to a head or person, oracle (eyes > glasses)", ["a", "verdict"]].tolist() == [
        "0.500",
        "MISSED",
    ]
    one_way = table.loc["leak to a score, any grader, one way (eyes down > finder mouth)", ["a", "verdict"]]
    assert one_way.tolist() == ["0.500", "MISSED"]
    read = person_leak_otherwise({"a": leaks}, "a", "a", units, own_error, {"a": moves}).set_index("read by")["a"]
    assert read.tolist() == ["0.050 (eyes > glasses)", "0.100 (eyes > glasses)", "0.300 (mouth > glasses)"]
    bare = person_leak_otherwise({"a": leaks}, "a", "a", units, own_error.head(0), {"a": pd.DataFrame()})
    assert bare["read by"].tolist() == ["the oracle, in deviations among people of every kind"]
    # What a loop met of the wishes inside the reach is told by its own promise, and as it is judged.
    met = pd.DataFrame({"walk": ["to the letter", "as judged", "as judged"], "seed": [1, 1, 2]})
    met["met"] = [True, True, False]
    table = targets(judged, {"a": faces}, {"a": leaks}, "a", "a", met=met).set_index("what")
    for what in ("wishes inside a face's reach that", "faces all of whose wishes inside their reach"):
        rows = [f"{what} are met, {walk}" for walk in ("to the letter", "as judged")]
        assert table.loc[rows, ["a", "verdict"]].to_numpy().tolist() == [["1.000", "met"], ["0.500", "MISSED"]]


def test_a_face_counts_as_reversed_by_any_grader_and_property():
    about = {"property": ["eyes"], "column": ["finder mouth"], "intended": [False], "edits_up": [9], "edits_down": [9]}
    leaks = pd.DataFrame({**about, "signed": [0.1], "up": [0.1], "down": [0.1]})
    judged = pd.DataFrame(
        [
            {"method": "a", "grader": grader, "property": name, "corr": 0.9, "most": 1.0}
            | {"pass_v7": 0.5, "pass_v8": 0.8, "reversed": turned}
            for grader, turned in (("finder", 0.1), ("second", 0.0))
            for name in EDITED
        ]
    )
    # Three faces of four, each by another property: two by the finder, one by the second grader alone.
    faces = pd.DataFrame({"seed": [1, 2, 3, 4] * 2, "grader": ["finder"] * 4 + ["second"] * 4})
    faces = faces.assign(**{f"{name}_corr": 0.9 for name in EDITED})
    faces.loc[0, "pose_corr"] = faces.loc[1, "eyes_corr"] = faces.loc[6, "mouth_corr"] = -0.1
    table = targets(judged, {"a": faces}, {"a": leaks}, "a", "a").set_index("what")
    rows = table.loc[[row for row in table.index if row.startswith("reversed")]]
    assert rows[["a", "verdict"]].to_numpy().tolist() == [["0.750", "MISSED"], ["0.250", "MISSED"]]


def test_what_a_method_gains_is_told_with_its_direction():
    judged = pd.DataFrame({"grader": ["finder", "second"]})
    rows = [
        {"method": "b", "reference": "a", "grader": grader, "property": name, "difference": gain, "pairs": 9}
        | {"low": gain - 0.02, "high": gain + 0.02}
        for grader in ("finder", "second")
        for name, gain in zip(EDITED, (0.1, -0.1, 0.01) if grader == "second" else (-0.5,) * 3, strict=True)
    ]
    row = against_reference(pd.DataFrame(rows), judged).iloc[0]
    assert (row["surely better"], row["surely worse"], row["faces"]) == ("eyes", "mouth", 9)
    assert row["pose"] == "+0.010 (-0.010 to +0.030)"


def obeying(seeds, obeys: np.ndarray, most: np.ndarray, pixel: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    faces = pd.DataFrame({"grader": "finder", "seed": seeds})
    for name in EDITED:
        faces[f"{name}_corr"], faces[f"{name}_most"] = obeys, most
    edits = {"seed": seeds, "property": "eyes", "asked": 1.0, "matched": True, "pixel": pixel, "drift": pixel}
    return faces, pd.DataFrame(edits)


def test_obedience_is_not_credited_for_what_a_face_could_not_do():
    rng = np.random.default_rng(0)
    most, noise = rng.uniform(0.8, 1, 300), rng.normal(0, 0.005, (2, 300))
    # Closed mouths obey less and are changed more, but among alike ones obedience says nothing.
    faces, edits = obeying(np.arange(300), most + noise[0], most, 5 - 4 * most + noise[1])
    assert "That is not settled" in obedience({"a": faces}, {"a": edits}, "a")
    faces, edits = obeying(np.arange(300), most + noise[0], most, 5 - 4 * noise[0] + noise[1])
    assert "Within a method: Yes" in obedience({"a": faces}, {"a": edits}, "a")
    faces, edits = obeying(np.arange(300), most + noise[0], most, 5 + 4 * noise[0] + noise[1])
    assert "No: it disturbs it more" in obedience({"a": faces}, {"a": edits}, "a")
    # Faces that obey less lack one kind of edit, the one that changes more.
    kinds = [edits.assign(property=name, pixel=pixel, drift=pixel) for name, pixel in (("eyes", 1.0), ("mouth", 9.0))]
    kinds = pd.concat([kind.assign(pixel=kind["pixel"] + rng.normal(0, 0.01, 300)) for kind in kinds])
    lacking = kinds[(kinds["property"] == "eyes") | kinds["seed"].isin(np.flatnonzero(noise[0] > 0))]
    assert "That is not settled" in obedience({"a": faces}, {"a": lacking}, "a")
    # Four methods of which the better obeyed disturb more.
    some = {str(k): obeying(np.arange(300), most - 0.01 * k, most, 5 - k + noise[1]) for k in range(4)}
    text = obedience({k: pair[0] for k, pair in some.items()}, {k: pair[1] for k, pair in some.items()}, "0")
    assert "Between 4 methods, rank correlation of mean obedience with mean pixel +1.00" in text
    assert "the least is 2, of 3)" in text


def test_a_sweep_goes_on_where_it_stopped(further, monkeypatch):
    run = further("sweep", methods=("ridge",), sizes=(100, 200))
    table = pd.read_csv(run / "vectorfind/sweep/sweep.csv")
    assert list(table["samples"]) == [100, 200] and table["eyes_corr"].gt(0.5).all() and table["matched"].gt(0).all()
    plot = run / "vectorfind/sweep/corr_samples.png"
    assert plot.is_file()
    with monkeypatch.context() as patch:  # stopped after a row that made the others stale: no plot of theirs is left
        patch.setattr("vectorfind.sweep._plot", lambda *_: pytest.fail("drawn"))
        patch.setattr("vectorfind.sweep.write_stamp", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            further("sweep", methods=("ridge",), sizes=(100, 200), faces=4)
    assert not plot.is_file()
    kept = run / "vectorfind/sweep/sweep_before_1.csv"
    pd.testing.assert_frame_equal(pd.read_csv(kept), table)
    (run / "vectorfind/sweep/sweep.csv").unlink()
    further("sweep", methods=("ridge",), sizes=(100, 200))
    table = pd.read_csv(run / "vectorfind/sweep/sweep.csv")
    further("sweep", methods=("ridge", "svm"), sizes=(100, 200), k_percents=(10.0, 30.0))
    more = pd.read_csv(run / "vectorfind/sweep/sweep.csv")
    pd.testing.assert_frame_equal(more.head(2), table)
    assert len(more) == 6 and (run / "vectorfind/sweep/corr_k_percent.png").is_file()
    assert "vectorfind_sweep" in str(Summary.printed[-1].written[-1][0])
    by_share = more[more["method"] == "svm"].set_index(["samples", "k_percent"])["eyes_corr"]
    assert by_share[200, 10.0] != by_share[200, 30.0]
    # Names of groups that look like numbers are found again, and shares with more digits than the table has.
    for _ in range(2):
        further("sweep", methods=("ridge",), sizes=(200,), groupings=("8",), k_percents=(7.0,))
        further("sweep", methods=("svm",), sizes=(200,), k_percents=(100 / 7,))
    assert len(pd.read_csv(run / "vectorfind/sweep/sweep.csv")) == 8
    further("compare", methods=("svm",))
    verdict = (run / "reports/vectorfind_ungrouped.md").read_text()
    assert "from 100 to 200 samples" in verdict and "- 100 samples: corr" in verdict and "corr_samples.png" in verdict
    # One that was measured otherwise is none of this verdict; of another number of faces, it is.
    further("compare", methods=("svm",), faces=4)
    assert "from 100 to 200 samples" in (run / "reports/vectorfind_ungrouped.md").read_text()
    other = {"float32": "bfloat16", "bfloat16": "float32"}[resolve_precision("auto", "cpu")]
    further("compare", methods=("svm", "svm"), precision=other)
    assert "Not measured in this run" in (run / "reports/vectorfind_ungrouped.md").read_text()
    assert any("the sweep is left out of the verdict" in note for note in Summary.printed[-1].notes)


def test_a_sweep_refuses_what_it_could_not_measure_before_the_first_row(further):
    for options, message in (
        ({"sizes": (100, 900)}, "--sizes 900: the pool has 200"),
        ({"k_percents": (80.0,)}, "--k-percents 80"),
        ({"methods": ("ridge", "nonsense")}, "nonsense"),
        ({"methods": ()}, "--methods names none"),
        ({"methods": ("imported",)}, "--vectors FOLDER"),
        ({"vectors": "somewhere"}, "belongs to one method"),
        ({"grid": "reachable"}, "grid of deviations only"),
    ):
        with pytest.raises(PipelineError, match=message):
            further("sweep", **{"methods": ("ridge",), **options})
    for options in ({"methods": ()}, {"methods": ("imported",)}, {"methods": ("svm",), "vectors": "somewhere"}):
        with pytest.raises(PipelineError, match="--methods|--vectors"):
            further("compare", **options)


def test_what_cannot_be_done_is_told_before_a_face_is_sampled(further, tmp_path, write_profile):
    lacking = write_profile("lacking", weights={"parsenet": "gone.pth"})
    for steps, options, message in (
        (("pool", "judge", "reach"), {}, "use --method model_loop"),
        (("pool", "compare"), {"methods": ("svm", "model_loop"), "grid": "published"}, "leave it out of --methods"),
        (("pool", "directions"), {"vectors": str(tmp_path)}, "3 of 3 files are missing, the first is eyes_change_w"),
        (("pool",), {"samples": 1}, "-n 1: give a number of at least 2"),
        (("pool", "sweep"), {"sizes": (1,)}, "give at least 2"),
        (
            ("pool", "compare"),
            {"position": "z", "mended": True},
            "--position, --mended: compare and sweep take --methods",
        ),
        (("sweep",), {"groups": "8"}, "--groups: .*--groupings"),
        (("pool", "judge"), {"graders": ("geometric",), "profile": str(lacking)}, "--graders finder second"),
    ):
        with pytest.raises(PipelineError, match=message):
            further(*steps, **options)
    assert not (tmp_path / "run/vectorfind").exists()


def test_graders_judge_in_one_order_however_they_are_named(tmp_path, tiny_profile):
    for name in ("generator", "scorer"):
        (tmp_path / f"{name}.pth").write_bytes(b"x")
    options = run_vectorfind.VectorFindOptions(
        profile=str(tiny_profile),
        run=str(tmp_path / "run"),
        generator=str(tmp_path / "generator.pth"),
        scorer=str(tmp_path / "scorer.pth"),
        graders=("geometric", "second"),
    )
    assert run_vectorfind.plan(options).graders == ("finder", "second", "geometric")


def test_a_conditional_mixture_goes_as_far_as_it_is_asked(further):
    run = further("pool", "directions", "judge", method="mixed", conditional=True)
    judged = pd.read_csv(run / "vectorfind/judgement/mixed_conditional_w_ungrouped/judgement.csv")
    slopes = judged.set_index("property")["slope"]
    assert abs(slopes["mouth"] - 1) < 0.05 and abs(slopes["pose"] - 1) < 0.05
    # Its vectors are part of it: without them it is found again.
    vectors = run / "vectorfind/property_score_vectors/mixed_conditional/directions_w_none_vectors.npz"
    vectors.unlink()
    further("directions", method="mixed", conditional=True)
    assert vectors.is_file()


def test_a_verdict_leaves_out_what_was_found_on_another_number_of_samples(further):
    run = further("pool", "directions", "judge", "effects", method="ridge", samples=150)
    further("compare", methods=("svm",))
    assert "ridge_w_ungrouped" not in (run / "reports/vectorfind_ungrouped.md").read_text()
    told = "the judgement of ridge_w_ungrouped is left out of the verdict"
    assert any(told in note for note in Summary.printed[-1].notes)
    # Nor is one judged by the deviations of fewer samples than found it.
    with pytest.raises(PipelineError, match="option samples changed from 150 to 200"):
        further("judge", method="ridge")
    further("directions", "judge", "effects", method="ridge")
    further("compare", methods=("svm",))
    assert "ridge_w_ungrouped" in (run / "reports/vectorfind_ungrouped.md").read_text()
    assert not any(told in note for note in Summary.printed[-1].notes)


def test_a_damaged_table_is_named(further):
    run = further("compare", methods=("model_loop",))
    further("reach", method="model_loop")
    further("compare", methods=("model_loop",))
    folder = run / "vectorfind/judgement/model_loop_w_ungrouped"
    (folder / "reach.csv").write_text("")
    further("compare", methods=("model_loop",))
    assert any("reach of model_loop_w_ungrouped is left out" in note for note in Summary.printed[-1].notes)
    before = (folder / "judged_faces.csv").read_bytes()
    (folder / "judged_faces.csv").write_text("")
    further("compare", methods=("model_loop",))
    assert (folder / "judged_faces.csv").read_bytes() == before
    with pytest.raises(PipelineError, match=r"judgement\.csv is damaged"):
        (folder / "judgement.csv").write_text("")
        vectorfind.verdict._read(folder / "judgement.csv")


def test_a_sweep_of_lines_without_two_points_has_no_plot(further):
    run = further("sweep", methods=("ridge",), sizes=(100,))
    further("sweep", methods=("svm",), sizes=(200,))
    assert not (run / "vectorfind/sweep/corr_samples.png").exists()
    assert "corr_samples" not in (run / "reports/vectorfind_sweep.md").read_text()


def test_two_samples_are_enough_or_refused_in_a_sentence(further):
    with pytest.raises(PipelineError, match="no group of faces holds two of these 2 samples; give more samples"):
        further("pool", "directions", samples=2, groups="16", method="ridge")
    run = further("directions", samples=2, method="svm", mended=True)
    vector = read_vectors(run / "vectorfind/property_score_vectors/svm_mended/eyes_change_w_vector_all.csv")
    assert np.isfinite(vector).all()


def test_a_face_that_one_grader_does_not_confirm_is_not_kept(further, monkeypatch):
    monkeypatch.setattr(vectorfind.selection, "photograph", lambda images, rng: images + 1e-4 * rng.standard_normal())
    run = further("pool", "directions", "select", method="closed_loop")
    folder = run / "vectorfind/selection/closed_loop_w_ungrouped"
    assert (folder / "sheet_mouth.jpg").is_file()
    used, lent = [], vectorfind.selection.noise_of
    monkeypatch.setattr(vectorfind.selection, "noise_of", lambda bench, seed: used.append(seed) or lent(bench, seed))
    find = vectorfind.further.open_graders

    class Backward:
        def score_tensor(self, images):
            return -make_bench().scorer.score_tensor(images)

    def two(stage):
        finder = find(stage)[0]
        return [finder, Grader("second", Backward(), finder.sds, finder.ends)]

    monkeypatch.setattr(vectorfind.further, "open_graders", two)
    further("select", method="closed_loop", force=True)
    rates = pd.read_csv(folder / "confirmed.csv").set_index("grader")["confirmed"]
    assert rates["finder"] > 0 and rates["second"] == 0 and used == [CHOOSING, CONFIRMING]
    assert pd.read_csv(folder / "ohlora_z_vectors.csv").empty and not (folder / "sheet_mouth.jpg").exists()


def test_chosen_faces_are_confirmed_by_all_before_they_are_kept(further, monkeypatch):
    # Pictures of the linear world are all noise: a camera's own is kept far below it.
    monkeypatch.setattr(vectorfind.selection, "photograph", lambda images, rng: images + 1e-4 * rng.standard_normal())
    run = further("pool", "directions", "select", method="closed_loop")
    folder = run / "vectorfind/selection/closed_loop_w_ungrouped"
    groups = pd.read_csv(folder / "ohlora_w_group_names.csv", index_col=0)
    latents, _ = read_latents(folder / "ohlora_z_vectors.csv", 24)
    assert len(latents) == len(groups) > 0 and set(groups["group_name"]) == {"all"}
    bench = make_bench()
    seeds = bench.latents(range(9_000_000, 9_000_003))
    assert all(any((row == seed).all() for seed in seeds) for row in latents)
    assert "pass again by every grader" in (folder / "final_OhLoRA_info.md").read_text()
    assert (folder / "sheet_mouth.jpg").is_file()
    rates = pd.read_csv(folder / "confirmed.csv")
    assert rates["grader"].tolist() == ["finder"] and rates["confirmed"].iloc[0] == len(groups)
    assert rates["noise"].iloc[0] > 0
    (folder / "ohlora_z_vectors.csv").unlink()
    further("select", method="closed_loop")
    assert (read_latents(folder / "ohlora_z_vectors.csv", 24)[0] == latents).all()
    (folder / "sheet_eyes.jpg").unlink()
    further("select", method="closed_loop")
    assert (folder / "sheet_eyes.jpg").is_file()
    further("compare", methods=("closed_loop",))
    assert "Faces that closed_loop_w_ungrouped is kept for" in (run / "reports/vectorfind_ungrouped.md").read_text()


def test_other_noise_is_lent_and_given_back(tiny_generator):
    from stylegan.checkpoint import load_generator

    bench = make_bench()
    bench.generator = load_generator(tiny_generator, "cpu").eval()
    w = bench.encode(bench.latents([0]), "w")
    for layer in bench.generator.modules():
        if hasattr(layer, "apply_noise"):
            layer.apply_noise.weight.data.fill_(0.5)
    stored = bench.images(w, "w")
    with noise_of(bench, 1):
        other = bench.images(w, "w")
    assert (stored != other).any() and (bench.images(w, "w") == stored).all()


def test_a_camera_changes_every_picture_a_little_and_each_half_in_its_own_way():
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    smooth = torch.nn.functional.avg_pool2d(images, 9, 1, 4)
    taken = photograph(smooth, np.random.default_rng(3))
    gap = (taken - smooth).abs().mean((1, 2, 3))
    assert taken.shape == smooth.shape and taken.abs().max() <= 1 and gap.min() > 0.005 and gap.max() < 0.3
    assert (photograph(smooth, np.random.default_rng(3)) == taken).all()

    class Light:
        def score_tensor(self, images):
            return images.mean((1, 2, 3))[:, None].repeat(1, 8)

    graders = [Grader("finder", Light(), np.ones(8), np.zeros((8, 2)))]
    first, second = (with_cameras(graders, half)[0].scores(smooth) for half in (CHOOSING, CONFIRMING))
    again = with_cameras(graders, CHOOSING)[0].scores(smooth)
    assert (first == again).all() and np.abs(first - second).max() > 0.005


def test_published_vectors_are_used_instead_of_found_ones(further, tmp_path):
    run = further("pool", "directions")
    own = run / "vectorfind/property_score_vectors"
    folder = tmp_path / "theirs"
    folder.mkdir()
    for path in own.glob("*_change_w_vector_all.csv"):
        write_vector(folder / path.name, -read_vectors(path)[0])
    further("directions", "test", "report", vectors=str(folder))
    assert any("3 of 3 vectors lower their property" in note for note in Summary.printed[-1].notes)
    imported = own / "imported/eyes_change_w_vector_all.csv"
    np.testing.assert_allclose(read_vectors(imported), read_vectors(own / imported.name), atol=1e-6)
    # The same files are not read again, others under the same names are.
    further("directions", vectors=str(folder))
    assert not Summary.printed[-1].written
    write_vector(folder / imported.name, read_vectors(folder / imported.name)[0][::-1])
    further("directions", vectors=str(folder))
    assert not np.allclose(read_vectors(imported), read_vectors(own / imported.name), atol=1e-3)
    # Several SVMs of one property: which of them is meant is not ours to guess.
    write_vector(folder / imported.name, np.repeat(read_vectors(folder / imported.name), 2, axis=0))
    with pytest.raises(PipelineError, match=r"eyes_change_w_vector_all\.csv holds 2 vectors"):
        further("directions", vectors=str(folder))


def test_the_vectors_of_a_mixed_method_are_written_as_published(further):
    run = further("pool", "directions", method="mixed")
    folder = run / "vectorfind/property_score_vectors/mixed"
    found = {path.name for path in folder.glob("*_change_w_vector_all.csv")}
    assert found == {"mouth_change_w_vector_all.csv", "pose_change_w_vector_all.csv"}
    assert np.linalg.norm(read_vectors(folder / "pose_change_w_vector_all.csv")[0]) == pytest.approx(1, abs=1e-4)
    (folder / "pose_change_w_vector_all.csv").unlink()
    further("directions", method="mixed")
    assert any("pose_change_w_vector_all.csv is missing" in note for note in Summary.printed[-1].notes)


def test_maps_of_the_extremes_are_drawn(further):
    run = further("pool", "tsne", k_percent=10.0)
    assert len(list((run / "vectorfind/tsne_result/w_none").glob("tsne_result_*_all.png"))) == 3
