"""The steps beyond the published test, on a run folder in the linear world."""

import numpy as np
import pandas as pd
import pytest
from vectorfind_world import make_bench

import run_vectorfind
import vectorfind.further
import vectorfind.stage
from pipeline.command import Summary
from pipeline.errors import PipelineError
from vectorfind.directions import read_vectors, write_vector
from vectorfind.effects import ORACLE_ATTRIBUTES
from vectorfind.names import EDITED
from vectorfind.selection import noise_of
from vectorfind.verdict import _targets


@pytest.fixture
def further(tmp_path, tiny_profile, monkeypatch):
    """Returns a function that runs steps in one run folder: 200 samples, 3 faces, no groups, only the finder judges."""
    for name in ("generator", "scorer"):
        (tmp_path / f"{name}.pth").write_bytes(name.encode())
    monkeypatch.setattr(vectorfind.stage, "open_bench", lambda *_: make_bench(batch=50))
    monkeypatch.setattr(vectorfind.stage, "open_identity", lambda *_: None)
    monkeypatch.setattr(vectorfind.further, "open_judge", lambda _: None)
    monkeypatch.setattr(vectorfind.further, "oracle_file", lambda _: {})

    def go(*steps, **options):
        paths = {name: str(tmp_path / f"{name}.pth") for name in ("generator", "scorer")}
        small = {"samples": 200, "faces": 3, "groups": "none", "graders": ("finder",), "groupings": ("none",)}
        wish = {
            **small,
            "profile": str(tiny_profile),
            "run": str(tmp_path / "run"),
            "device": "cpu",
            **paths,
            **options,
        }
        run_vectorfind.run(run_vectorfind.VectorFindOptions(steps=steps, **wish))
        return tmp_path / "run"

    return go


@pytest.mark.parametrize("method", ["closed_loop", "model_loop"])
def test_the_loops_go_through_every_step(further, method):
    run = further("pool", "directions", "test", "report", "judge", "effects", "reach", method=method)
    assert "No direction is fitted" in (run / f"reports/vectorfind_{method}_w_ungrouped.md").read_text()
    folder = run / f"vectorfind/judgement/{method}_w_ungrouped"
    judged = pd.read_csv(folder / "judgement.csv")
    assert judged["corr"].min() > 0.98 and (judged["reversed"] == 0).all()
    reach = pd.read_csv(folder / "reach.csv")
    assert len(reach) == 9 and (reach["low"] < 0).all() and (reach["high"] > 0).all()
    assert pd.read_csv(folder / "intended.csv")["met"].mean() >= 0.95
    assert pd.read_csv(folder / "side_effects.csv")["matched"].mean() > 0.9
    before = (folder / "judgement.csv").stat().st_mtime_ns
    further("judge", method=method)
    assert (folder / "judgement.csv").stat().st_mtime_ns == before and not Summary.printed[-1].written
    with pytest.raises(PipelineError, match="use --method model_loop"):
        further("reach")


def test_one_command_compares_methods_and_writes_the_verdict(further):
    run = further("compare", methods=("svm", "ridge_mended_conditional", "closed_loop"))
    text = (run / "reports/vectorfind.md").read_text()
    assert "Best by the 'finder' grader" in text and "closed_loop_w_ungrouped" in text
    for question in ("better-obeyed intention", "too many samples"):
        assert question in text
    paired = pd.read_csv(run / "vectorfind/judgement/paired.csv")
    assert set(paired["method"]) == {"ridge_mended_conditional_w_ungrouped", "closed_loop_w_ungrouped"}
    assert (paired["reference"] == "svm_w_ungrouped").all() and (paired["pairs"] == 3).all()
    # What was judged before stays in the verdict.
    further("compare", methods=("ridge",))
    assert "closed_loop_w_ungrouped" in (run / "reports/vectorfind.md").read_text()
    for figure in ("leakage.png", "passes.png", "strips.jpg"):
        assert (run / "reports/vectorfind" / figure).stat().st_size > 0


def test_the_verdict_shows_the_other_grid_and_the_person_on_the_scale_of_all(further):
    further("compare", methods=("closed_loop",), grid="reachable")
    run = further("compare", methods=("svm", "closed_loop"))
    lines = (run / "reports/vectorfind.md").read_text().splitlines()
    header = next(line for line in lines if line.startswith("| asked |"))
    assert "| within reach |" in header and "| within reach |" not in (
        (run / "reports/vectorfind_reachable_grid.md").read_text()
    )
    reversed_row = next(line for line in lines if line.startswith("| reversed faces"))
    assert reversed_row.endswith("| 0.000 | met |")


def test_leaks_on_the_scale_of_all_faces():
    leaks = pd.DataFrame(
        {
            "property": ["eyes", "eyes", "eyes"],
            "column": ["finder eyes", "finder mouth", "glasses"],
            "signed": [1.0, 0.1, -0.5],
            "intended": [True, False, False],
        }
    )
    units = pd.DataFrame({"persona": [0.02], "all": [0.2]}, index=["glasses"])
    judged = pd.DataFrame(
        [
            {"method": "a", "grader": "finder", "property": name, "corr": 0.9, "most": 1.0}
            | {"pass_v7": 0.5, "pass_v8": 0.8, "reversed": 0.0}
            for name in EDITED
        ]
    )
    own_error = pd.DataFrame({"property": ["eyes"], "column": ["glasses"], "signed": [-0.4], "intended": [False]})
    moves = pd.DataFrame({"property": EDITED, "matched": True, **dict.fromkeys(ORACLE_ATTRIBUTES, 0.1)})
    moves.loc[1, "glasses"] = -0.3
    table = _targets(judged, {"a": leaks}, "a", "a", units, own_error, None, {"a": moves}).set_index("asked")
    assert table.loc["leak to a head or person, oracle (eyes > glasses)", ["a", ""]].tolist() == ["0.500", "MISSED"]
    row = table.loc["leak to a head or person, beyond the oracle's own error (eyes > glasses)"]
    assert row[["a", ""]].tolist() == ["0.100", "met"]
    row = table.loc["leak to a head or person, in deviations of all faces (eyes > glasses)"]
    assert row[["a", ""]].tolist() == ["0.050", "met"]
    row = table.loc["move of a factor of head or person behind the code (mouth > glasses)"]
    assert row[["a", ""]].tolist() == ["0.300", "MISSED"]
    bare = _targets(judged, {"a": leaks}, "a", "a", units, own_error, None, {"a": pd.DataFrame()})
    assert not bare["asked"].str.contains("behind the code").any()


def test_the_finder_may_read_a_face_as_reversed_that_others_do_not():
    leaks = pd.DataFrame({"property": ["eyes"], "column": ["finder mouth"], "signed": [0.1], "intended": [False]})
    judged = pd.DataFrame(
        [
            {"method": "a", "grader": grader, "property": name, "corr": 0.9, "most": 1.0}
            | {"pass_v7": 0.5, "pass_v8": 0.8, "reversed": turned}
            for grader, turned in (("finder", 0.1), ("second", 0.0))
            for name in EDITED
        ]
    )
    nothing = pd.DataFrame()
    table = _targets(judged, {"a": leaks}, "a", "a", nothing, nothing, None, {"a": nothing}).set_index("asked")
    rows = table.loc[[row for row in table.index if row.startswith("reversed")]]
    assert rows[["a", ""]].to_numpy().tolist() == [["0.100", "MISSED"], ["0.000", "met"]]


def test_a_sweep_goes_on_where_it_stopped(further):
    run = further("sweep", methods=("ridge",), sizes=(100, 200))
    table = pd.read_csv(run / "vectorfind/sweep/sweep.csv")
    assert list(table["samples"]) == [100, 200] and table["eyes_corr"].gt(0.5).all() and table["matched"].gt(0).all()
    assert (run / "vectorfind/sweep/corr_samples.png").is_file()
    further("sweep", methods=("ridge", "svm"), sizes=(100, 200), k_percents=(10.0, 30.0))
    more = pd.read_csv(run / "vectorfind/sweep/sweep.csv")
    pd.testing.assert_frame_equal(more.head(2), table)
    assert len(more) == 6 and (run / "vectorfind/sweep/corr_k_percent.png").is_file()
    assert "vectorfind_sweep" in str(Summary.printed[-1].written[-1][0])
    # Names of groups that look like numbers are found again.
    for _ in range(2):
        further("sweep", methods=("ridge",), sizes=(200,), groupings=("8",))
    assert len(pd.read_csv(run / "vectorfind/sweep/sweep.csv")) == 7
    further("compare", methods=("svm",))
    verdict = (run / "reports/vectorfind.md").read_text()
    assert "it leaks least with" in verdict and "- 100 samples: corr" in verdict and "corr_samples.png" in verdict


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


def test_a_verdict_leaves_out_what_was_found_on_another_number_of_samples(further):
    run = further("pool", "directions", "judge", "effects", method="ridge", samples=150)
    further("compare", methods=("svm",))
    assert "ridge_w_ungrouped" not in (run / "reports/vectorfind.md").read_text()
    further("directions", "judge", "effects", method="ridge")
    further("compare", methods=("svm",))
    assert "ridge_w_ungrouped" in (run / "reports/vectorfind.md").read_text()


def test_chosen_faces_are_confirmed_by_all_before_they_are_kept(further):
    run = further("pool", "directions", "select", method="closed_loop")
    folder = run / "vectorfind/selection/closed_loop_w_ungrouped"
    groups = pd.read_csv(folder / "ohlora_w_group_names.csv", index_col=0)
    latents = read_vectors(folder / "ohlora_z_vectors.csv")
    assert len(latents) == len(groups) > 0 and set(groups["group_name"]) == {"all"}
    bench = make_bench()
    seeds = bench.latents(range(9_000_000, 9_000_003))
    assert all(any((row == seed).all() for seed in seeds) for row in latents)
    assert "pass again by every grader" in (folder / "final_OhLoRA_info.md").read_text()
    assert (folder / "sheet_mouth.jpg").is_file()
    rates = pd.read_csv(folder / "confirmed.csv")
    assert rates["grader"].tolist() == ["finder"] and rates["confirmed"].iloc[0] == len(groups)
    further("compare", methods=("closed_loop",))
    assert "Faces that closed_loop_w_ungrouped is kept for" in (run / "reports/vectorfind.md").read_text()


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


def test_maps_of_the_extremes_are_drawn(further):
    run = further("pool", "tsne", k_percent=10.0)
    assert len(list((run / "vectorfind/tsne_result/w").glob("tsne_result_*_all.png"))) == 3
