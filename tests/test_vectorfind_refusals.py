"""What stage 6 refuses, or tells, rather than write over somebody's work or end in an exception hours later."""

import sys

import numpy as np
import pytest
from vectorfind_run import runner_in
from vectorfind_world import W, folder_bytes, gradients, make_bench

import run_vectorfind
from apply_direction import ApplyOptions
from apply_direction import run as apply_direction
from pipeline.command import Summary, main
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from pipeline.run import Run
from vectorfind.directions import read_vectors, write_vector
from vectorfind.graders import check_size
from vectorfind.groups import Grouping
from vectorfind.models import locate
from vectorfind.names import EDITED, PROPERTIES, vector_file
from vectorfind.published import read_latents
from vectorfind.setting import TEST_STOP, Setting

VECTORS = "vectorfind/property_score_vectors"


@pytest.fixture
def go(tmp_path, write_profile, monkeypatch):
    return runner_in(tmp_path, write_profile(vectorfind={"beside": []}), monkeypatch)


def put_vectors(folder, vector=None, groups="none"):
    """Vectors of the three properties as somebody's files; along what raises a score by default."""
    truth = gradients(make_bench())
    for name in EDITED:
        for group in Grouping(groups, ()).names:
            own = truth[:, PROPERTIES.index(name)] if vector is None else vector
            write_vector(folder / vector_file(name, "w", group), own)
    return folder


@pytest.mark.parametrize("steps", [("pool", "directions"), ("compare",)])
def test_vectors_that_were_put_into_a_run_by_hand_are_not_written_over(go, tmp_path, steps):
    folder = put_vectors(tmp_path / "run" / VECTORS)
    before = folder_bytes(folder)
    wish = {"methods": ("svm",)} if "compare" in steps else {}
    told = r"eyes_change_w_vector_all\.csv was put there, or changed, by hand \(3 such files in all\).*--vectors"
    with pytest.raises(PipelineError, match=told):
        go(*steps, **wish)
    assert folder_bytes(folder) == before and not (tmp_path / "run/vectorfind/pool").exists()
    # Other groups, and other methods, write elsewhere; and they may be read from where they are.
    go("pool", "directions", method="ridge")
    go("directions", vectors=str(folder))
    assert before.items() <= folder_bytes(folder).items()
    go("directions", force=True)
    assert read_vectors(folder / "eyes_change_w_vector_all.csv").shape == (1, W)
    assert folder_bytes(folder)["eyes_change_w_vector_all.csv"] != before["eyes_change_w_vector_all.csv"]


def test_a_runs_own_vectors_are_found_anew_but_not_once_they_were_exchanged(go, monkeypatch):
    folder = go("pool", "directions") / VECTORS
    go("directions", k_percent=10.0)
    assert Summary.printed[-1].written

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # between the first vector and the stamp
        patch.setattr("pipeline.tables.write_table", stop)
        with pytest.raises(KeyboardInterrupt):
            go("directions", k_percent=15.0)
    go("directions", k_percent=15.0)
    go("directions", k_percent=15.0)
    assert not Summary.printed[-1].written
    theirs = folder / "mouth_change_w_vector_all.csv"
    write_vector(theirs, np.ones(W))
    with pytest.raises(PipelineError, match=r"mouth_change_w_vector_all\.csv was put there, or changed, .*\(1 such"):
        go("directions", k_percent=15.0)
    assert (read_vectors(theirs) == 1).all()


def test_vectors_are_not_read_from_where_they_are_written_to(go, tmp_path):
    folder = put_vectors(tmp_path / "run" / VECTORS / "imported")
    (tmp_path / "link").symlink_to(folder)
    for named in (folder, tmp_path / "link"):
        with pytest.raises(PipelineError, match=rf"--vectors {named} is where this run writes"):
            go("pool", "directions", vectors=str(named))


@pytest.mark.parametrize(
    "wish, told",
    [
        ({"generator": "other"}, r"--generator .*generator\.pth"),
        ({"scorer": "other"}, r"--scorer .*scorer\.pth"),
        ({"seed": 1}, "--seed 0"),
        ({"pool_dtype": "float16"}, "--pool-dtype float32"),
    ],
)
@pytest.mark.parametrize("stopped", [False, True])
def test_a_pool_is_not_thrown_away_for_other_options(go, tmp_path, monkeypatch, wish, told, stopped):
    pool = go("pool") / "vectorfind/pool"
    if stopped:  # before it had a stamp
        (pool / "pool.json.json").unlink()
        monkeypatch.setattr("vectorfind.stage.open_bench", lambda *_: make_bench(seed=1, batch=50))
    (tmp_path / "other.pth").write_bytes(b"another network")
    wish = {name: str(tmp_path / "other.pth") if value == "other" else value for name, value in wish.items()}
    before = folder_bytes(pool)
    with pytest.raises(PipelineError, match=rf"the options they had \({told}\)"):
        go("pool", **wish)
    assert folder_bytes(pool) == before
    go("pool", force=True, **wish)
    assert "the pool is sampled anew: --force" in Summary.printed[-1].notes


def test_a_pool_of_models_that_were_trained_again_is_sampled_anew_unasked(go, tmp_path):
    pool = go("pool") / "vectorfind/pool"
    (tmp_path / "generator.pth").write_bytes(b"trained again")
    go("pool")
    assert "the pool is sampled anew: input generator changed" in Summary.printed[-1].notes
    # Nor does a pool of earlier code, which left no record of its options, ask for those of its models.
    (pool / "asked.json").unlink()
    (tmp_path / "other.pth").write_bytes(b"another network")
    go("pool", generator=str(tmp_path / "other.pth"))
    assert "the pool is sampled anew: input generator changed" in Summary.printed[-1].notes


def test_a_vector_without_length_is_named(go, tmp_path):
    folder = put_vectors(tmp_path / "theirs")
    write_vector(folder / "pose_change_w_vector_all.csv", np.zeros(W))
    with pytest.raises(PipelineError, match=r"pose_change_w_vector_all\.csv has length 0"):
        go("pool", "directions", vectors=str(folder))


def test_vectors_that_move_nothing_are_told(go, tmp_path):
    hint = "vectors hardly move their property: they are probably of another generator"
    go("pool", "directions", vectors=str(put_vectors(tmp_path / "theirs")))
    assert not any(hint in note for note in Summary.printed[-1].notes)
    dead = np.linalg.svd(gradients(make_bench()).T)[2][-1]
    go("directions", vectors=str(put_vectors(tmp_path / "dead", dead)))
    assert any(note.startswith(f"3 of 3 {hint}") for note in Summary.printed[-1].notes)


def test_read_vectors_are_told_of_their_cuts(go, tmp_path):
    told = "published vectors belong to groups cut at fixed values: --cuts v7 with --groups 8"
    folder = str(put_vectors(tmp_path / "theirs", groups="8"))
    for cuts in ("medians", "v7"):
        go("pool", "directions", vectors=folder, groups="8", cuts=cuts)
        assert any(told in note for note in Summary.printed[-1].notes) == (cuts == "medians")
    go("directions", vectors=str(put_vectors(tmp_path / "ungrouped")))
    assert not any(told in note for note in Summary.printed[-1].notes)


def test_without_stage_5_the_profiles_v9_generator_serves_then_its_base(tmp_path, write_profile, tiny_generator):
    v9 = tmp_path / "v9.pth"
    run, wish = Run(tmp_path / "run"), {"scorer": str(tiny_generator)}
    for there, base, found in ((True, tiny_generator, v9), (True, "gone.pth", v9), (False, tiny_generator, None)):
        v9.write_bytes(b"weights") if there else v9.unlink()
        profile = Profile.load(write_profile(weights={"generator": base, "generator_v9": v9}))
        files = locate(profile, run, **wish)
        assert files.generator == (found or tiny_generator)
        told = "v9.pth (generator_v9 of the profile" if there else "those of the base generator"
        assert told in files.notes[0]
    profile = Profile.load(write_profile(weights={"generator": "gone.pth", "generator_v9": v9}))
    for which in ("v9", "base"):
        with pytest.raises(PipelineError, match=r"(?s)'generator' of profile tiny is missing.*--generator FILE"):
            locate(profile, run, which, **wish)


def test_a_second_grader_for_pictures_of_another_size_is_named(tmp_path, write_profile):
    class Scorer:
        resolution = 128

    second = tmp_path / "second.pth"
    second.write_bytes(b"weights")
    profile = Profile.load(write_profile(weights={"second_grader": second}))
    check_size(profile, {"second": Scorer(), "geometric": object()}, tmp_path / "g.pth", 128)
    check_size(profile, {}, tmp_path / "g.pth", 256)
    with pytest.raises(PipelineError, match=r"g\.pth draws 256 px, .*second\.pth reads 128 px: .*--graders"):
        check_size(profile, {"second": Scorer()}, tmp_path / "g.pth", 256)


def test_a_grader_of_another_size_does_not_judge(go):
    # The tiny world draws 16 px, the bundled second grader reads 128.
    with pytest.raises(PipelineError, match=r"draws 16 px, the second grader .*second_grader\.pth reads 128 px"):
        go("pool", "directions", "judge", graders=("finder", "second"))


def test_looks_need_a_face_parser(go):
    with pytest.raises(PipelineError, match="--looks: this profile lacks the weights of a face parser"):
        go("pool", "directions", method="ridge", conditional=True, looks=True)


def test_read_vectors_are_no_method_beside_the_published_one(tmp_path, write_profile):
    profile = write_profile(vectorfind={"beside": ["imported"]})
    options = run_vectorfind.VectorFindOptions(run=str(tmp_path / "run"), profile=str(profile))
    with pytest.raises(PipelineError, match=r"beside names 'imported': .*--vectors FOLDER"):
        run_vectorfind.plan(options)
    with pytest.raises(PipelineError, match="imported_mended: read vectors"):
        Setting.named("imported_mended")


@pytest.mark.parametrize("header, number", [("0,1,2", ""), (",0,1,2", "7,")])
def test_latents_may_have_excels_mark_and_blank_lines(tmp_path, header, number):
    path = tmp_path / "z.csv"
    path.write_text(f"\n{header}\n{number}1,2,3\n\n  \n{number}4,5,6\n", encoding="utf-8-sig")
    assert read_latents(path, 3)[0].tolist() == [[1, 2, 3], [4, 5, 6]]
    path.write_text(f"\n{header}\n{number}1,2,3\n\n  \n{number}4,five,6\n", encoding="utf-8-sig")
    with pytest.raises(PipelineError, match=r"z\.csv, row 6, column 1: expected a number, found 'five'; mend it"):
        read_latents(path, 3)


def test_a_file_of_ones_own_that_is_no_csv_is_not_to_be_written_by_a_run(tmp_path):
    path = tmp_path / "z.csv"
    for content in (b"0,1\n1,2,3\n4\n5,6,7,8\n", "0,1\n1,2\n".encode("utf-16")):
        path.write_bytes(content)
        with pytest.raises(PipelineError, match=r"z\.csv cannot be read .*in UTF-8") as refused:
            read_latents(path, 2)
        assert "run_vectorfind" not in str(refused.value)


def test_a_row_without_its_file_is_refused(tmp_path, tiny_profile):
    with pytest.raises(PipelineError, match="--row 3 is of a file of latents: give that by --z"):
        apply_direction(ApplyOptions(profile=str(tiny_profile), run=str(tmp_path), eyes=1, row=3))
    with pytest.raises(PipelineError, match="--seed 12 beside --z: give one of the two"):
        apply_direction(ApplyOptions(profile=str(tiny_profile), run=str(tmp_path), eyes=1, seed=12, z="z.csv"))


def test_any_face_of_any_run_can_be_named_by_its_seed(monkeypatch):
    from pipeline.command import MOST_SEED
    from vectorfind.setting import SEED_SPAN

    last, seen = MOST_SEED * SEED_SPAN + TEST_STOP, []
    assert np.array([last], np.int64)[0] == last
    monkeypatch.setattr(sys, "argv", ["apply_direction", "--seed", str(last)])
    main(ApplyOptions, lambda options: seen.append(options.seed))
    assert seen == [last]
