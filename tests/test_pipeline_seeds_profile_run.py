"""Seeds, profiles and run folders."""

import re

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.profile import Profile
from pipeline.run import Run
from pipeline.seeds import format_seeds, latent_from_seed, latents_from_seeds, parse_seeds


def test_the_seed_grammar_reads_numbers_and_ranges_in_order():
    assert parse_seeds("0,1,4-6") == [0, 1, 4, 5, 6]
    assert parse_seeds(" 7 , 2 - 3") == [7, 2, 3]


def test_seeds_are_written_in_the_grammar_that_is_read():
    for seeds in ([0], [0, 1, 2], [5, 6, 2, 9], list(range(3000))):
        assert parse_seeds(format_seeds(seeds)) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-3", "5-2", "1,,2", "1.5", "0-99999999999", "²"])
def test_bad_seeds_are_refused_with_the_grammar(text):
    with pytest.raises(PipelineError, match="seeds"):
        parse_seeds(text)


def test_a_repeated_seed_is_named():
    with pytest.raises(PipelineError, match=r"\[3\] occur more than once"):
        parse_seeds("1,3,2-4")


def test_a_latent_depends_on_its_seed_alone():
    many = latents_from_seeds([9, 4, 7], dim=16)
    assert many.dtype == np.float32 and many.shape == (3, 16)
    assert np.array_equal(many[1], latent_from_seed(4, dim=16))
    assert latents_from_seeds([], dim=16).shape == (0, 16)


def test_latents_are_standard_normal():
    many = latents_from_seeds(range(200))
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02


def test_the_demo_profile_has_its_resolution_and_sections():
    profile = Profile.load("demo")
    assert (profile.name, profile.resolution) == ("demo", 128)
    assert profile.section("stylegan")["seeds"] == "0-2999"
    assert profile.get("stylegan.nothing", 5) == 5 and profile.section("nothing") == {}


def test_a_profile_may_extend_another_key_by_key(write_profile):
    profile = Profile.load(write_profile(stylegan={"psi": 0.5}))
    assert profile.resolution == 32
    assert profile.section("stylegan") == {"seeds": "0-19", "batch": 8, "psi": 0.5}
    assert profile.get("weights.parsenet") == Profile.load("demo").get("weights.parsenet")


def test_an_unknown_profile_lists_the_known_ones():
    with pytest.raises(PipelineError, match="known profiles: .*demo"):
        Profile.load("nowhere")


def test_a_malformed_profile_and_one_that_extends_itself_are_refused(tmp_path):
    path = tmp_path / "loop.toml"
    path.write_text('extends = "loop.toml"\nresolution = 8\n')
    with pytest.raises(PipelineError, match="leads back to itself"):
        Profile.load(path)
    path.write_text(f'extends = "../{tmp_path.name}/loop.toml"\nresolution = 8\n')
    with pytest.raises(PipelineError, match="leads back to itself"):
        Profile.load(path)
    path.write_text("resolution 8\n")
    with pytest.raises(PipelineError, match="not valid TOML"):
        Profile.load(path)


def test_a_missing_key_or_weight_file_is_named_with_its_cure(write_profile, tmp_path):
    profile = Profile.load(write_profile(weights={"parsenet": tmp_path / "absent.pth"}))
    with pytest.raises(PipelineError, match=r"(?s)'parsenet'.*absent\.pth.*cure"):
        profile.weight("parsenet")
    (tmp_path / "own.pth").write_bytes(b"net")
    beside = Profile.load(write_profile(weights={"generator": "own.pth", "parsenet": "weights/demo/gone.pth"}))
    with pytest.raises(PipelineError, match=rf"root; write {tmp_path}/own\.pth"):
        beside.weight("generator")
    with pytest.raises(PipelineError, match="git checkout brings"):
        beside.weight("parsenet")
    with pytest.raises(PipelineError, match="'cnn.nothing' is missing"):
        profile.get("cnn.nothing")


@pytest.mark.parametrize(
    ("value", "kind", "limits", "expected"),
    [
        ("'big'", int, {}, "'big'; write a whole number"),
        ("true", int, {}, "True; write a whole number"),
        ("1.5", int, {}, "1.5; write a whole number"),
        ("0", int, {"low": 1}, "0; write a whole number of at least 1"),
        ("0", float, {"above": 0, "high": 1}, "0; write a number of more than 0 and at most 1"),
        ("nan", float, {}, "nan; write a number"),
        ("'false'", bool, {}, "'false'; write true or false"),
        ("3", str, {}, "3; write a text"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_file_key_and_what_is_expected(tmp_path, value, kind, limits, expected):
    (tmp_path / "odd.toml").write_text(f"resolution = 8\n[vectorfind]\nkey = {value}\n")
    with pytest.raises(PipelineError, match=rf"odd\.toml: \[vectorfind\] key = {re.escape(expected)}$"):
        Profile.load(tmp_path / "odd.toml").read("vectorfind.key", kind, **limits)


@pytest.mark.parametrize("value", ["'big'", "0", "true", "12.5"])
def test_a_resolution_that_cannot_be_is_refused(tmp_path, value):
    (tmp_path / "odd.toml").write_text(f"resolution = {value}\n")
    with pytest.raises(PipelineError, match=r"odd\.toml: resolution = .*; write a whole number of at least 1"):
        Profile.load(tmp_path / "odd.toml")


def test_a_value_is_read_as_its_kind_and_an_absent_one_is_the_default(tmp_path):
    (tmp_path / "own.toml").write_text("resolution = 8\n[vectorfind]\nwhole = 2\n")
    profile = Profile.load(tmp_path / "own.toml")
    width = profile.read("vectorfind.whole", float, 1.0, low=2, high=2)
    assert isinstance(width, float) and width == 2 and profile.read("vectorfind.none", int, None) is None


def test_a_run_creates_nothing_by_being_asked(tmp_path):
    run = Run(tmp_path / "run")
    path = run.path("cnn", "models", "a.pth")
    assert run.relative(path) == "cnn/models/a.pth"
    assert not run.root.exists()


def test_a_folder_of_a_run_may_be_a_link_to_another_disk(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stylegan").symlink_to(tmp_path / "disk")
    run = Run(tmp_path / "run")
    assert run.relative(run.path("stylegan", "a.jpg")) == "stylegan/a.jpg"
    there = Run(tmp_path / "run" / ".." / "run")
    assert there.relative(there.path("stylegan", "a.jpg")) == "stylegan/a.jpg"
    with pytest.raises(PipelineError, match="outside the run folder"):
        run.relative(run.path("..", "a.jpg"))


def test_keys_that_nobody_reads_are_refused(write_profile, tmp_path):
    (tmp_path / "own.toml").write_text("resolution = 8\n[stylegn]\npsi = 1.0\n")
    with pytest.raises(PipelineError, match=r"own\.toml: unknown key stylegn; known are"):
        Profile.load(tmp_path / "own.toml")
    (tmp_path / "own.toml").write_text("resolution = 8\n[stylegan]\npsy = 1.0\n")
    profile = Profile.load(tmp_path / "own.toml")
    with pytest.raises(PipelineError, match=r"section \[stylegan\]: unknown key psy; known are psi, seeds"):
        profile.refuse_unknown("stylegan", profile.section("stylegan"), ("seeds", "psi"))
    (tmp_path / "own.toml").write_text('resolution = 8\n[weights]\nproprety_cnn = "a.pth"\ngenerator_v5_2 = "b.pth"\n')
    with pytest.raises(PipelineError, match=r"section \[weights\]: unknown key proprety_cnn; known are attribute_net"):
        Profile.load(tmp_path / "own.toml")


def test_seeds_beyond_64_bits_are_refused():
    assert parse_seeds(str(2**63 - 1)) == [2**63 - 1]
    with pytest.raises(PipelineError, match="too large"):
        parse_seeds(str(2**63))


def test_a_path_outside_the_run_or_a_run_that_is_a_file_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="outside the run folder"):
        Run(tmp_path / "run").relative(tmp_path / "other" / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(PipelineError, match="is a file"):
        Run(tmp_path / "file")
