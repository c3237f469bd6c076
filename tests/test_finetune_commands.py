"""Every version trains, is measured and reported by one command, and its faces can be drawn."""

import shutil
from pathlib import Path

import finetune_world as world
import numpy as np
import pytest
import torch

import run_fine_tuned_generator as drawing
import run_original_generator as sampling
import run_stylegan_finetune as stage
import stylegan_modified.climb
import stylegan_modified.cvae
from cnn.filter_cnn import build
from cnn.models import model_paths
from cnn.settings import FilterSettings
from pipeline.artefacts import read_arrays, read_image, read_json, read_weights, save_image, save_weights
from pipeline.command import Summary
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from pipeline.run import Run
from pipeline.seeds import latents_from_seeds
from property_score.property_cnn import MergedPropertyCNN
from stylegan.checkpoint import generator_hash, load_generator
from stylegan.sampling import images_of, to_uint8
from stylegan_modified.climb_report import TARGET
from stylegan_modified.plan import stage_2_results
from vectorfind.published import write_latents
from virtual_face.oracle import AttributeNet

SIDE = 32
TINY = {"batch": 4, "samples": 8, "watched": 8, "cases": 2, "log_every": 1, "monitor_every": 2, "save_every": 1,
        "sample_batch": 8, "guidance": 0.0}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Profile and run folder of a tiny world with random nets; twelve filtered faces, filter CNNs in the run."""
    folder = tmp_path_factory.mktemp("family")
    base, critic = world.base_generator(SIDE), world.base_discriminator(SIDE)
    save_weights(folder / "generator.pth", {"generator": base.state_dict(), "discriminator": critic.state_dict()})
    torch.manual_seed(3)
    save_weights(folder / "oracle.pth", AttributeNet().state_dict())
    save_weights(folder / "property.pth", MergedPropertyCNN(SIDE, 0.125).state_dict())
    lines = ['extends = "demo"', f"resolution = {SIDE}", "[weights]"]
    names = {"generator": "generator", "attribute_net": "oracle", "property_cnn": "property"}
    lines += [f"{key} = '{(folder / name).as_posix()}.pth'" for key, name in names.items()]
    lines += ["generator_v1 = 'none.pth'", "[finetune.climb]", *(f"{key} = {value}" for key, value in TINY.items())]
    for name in ("v1", "v8"):
        lines += [f"[finetune.{name}]", "warm_steps = 1" if name == "v1" else "guidance = 0.0"]
    path = folder / "tiny.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = folder / "run"
    faces = to_uint8(images_of(base, torch.randn(12, 16, generator=torch.Generator().manual_seed(7))))
    for k, face in enumerate(faces):
        save_image(run / "stylegan" / "synthesize_results_filtered" / f"{k * 3:06d}.jpg", face)
    architectures = FilterSettings.of(Profile.load(path)).architectures
    for name, paths in model_paths(Run(run)).items():
        for model in paths:
            save_weights(model, build(name, architectures[name]).state_dict())
    return path, run


def finetune(place, **options) -> Summary:
    stage.run(stage.Options(profile=str(place[0]), run=str(place[1]), device="cpu", **options))
    return Summary.printed[-1]


@pytest.fixture(scope="module")
def trained(place):
    """The run after v1, mended and published: the others start from there."""
    for published in (False, True):
        finetune(place, version="v1", steps=2, published=published)
    return place


CALLS = [(version, published) for version in ("v1", "v2", "v3", "v4", "v5", "v8") for published in (False, True)]


@pytest.mark.parametrize(("version", "published"), [*CALLS, ("v9", True)])  # v9 as mended is stage 5
def test_each_version_trains_from_its_command(trained, version, published, monkeypatch):
    # The real encoder wants pictures of 64 px.
    monkeypatch.setattr(stylegan_modified.cvae, "CVAEEncoder", lambda side, labels, dim: world.TinyEncoder(labels))
    number = 3 if version == "v5" else None
    options = {"version": version, "published": published, "steps": 2, "experiment": number}
    measured, honest = [], stylegan_modified.climb.measure
    recorded = lambda net, *a, **more: measured.append(net) or honest(net, *a, **more)  # noqa: E731
    monkeypatch.setattr(stylegan_modified.climb, "measure", recorded)
    finetune(trained, **options)
    tag = (f"v5_{number}" if number else version) + ("_published" if published else "")
    folder = trained[1] / "stylegan_modified"
    net = load_generator(folder / f"stylegan_gen_fine_tuned_{tag}.pth")
    sizes = {"v4": (3, 16), "v5": (3, 3), "v3": (7, 24)}
    assert (net.label_size, net.mapping.label_dim) == sizes.get(version, (7, 16)) and net.split == (version == "v9")
    # What is left and measured is the running average, which as published is the net itself.
    state, own = read_weights(folder / f"state_{tag}.pth"), net.state_dict()
    assert all(torch.equal(own[key], value) for key, value in state["generator_smooth"].items())
    assert all(torch.equal(own[key], value) for key, value in state["generator"].items()) == published
    assert version == "v1" or generator_hash(measured[-1]) == generator_hash(net)  # v1 was trained before
    result = read_json(folder / f"finetune_{tag}.json")
    assert result["steps"] == 2 and -1 <= result["labels_50"]["mouth_corr"] <= 1
    report = (trained[1] / "reports" / f"finetune_{tag}.md").read_text(encoding="utf-8")
    assert f"network_{tag}.png" in report and "Do faces obey labels" in report
    if published and version in ("v1", "v4", "v5"):
        failed = min(result["labels_50"][f"{name}_corr"] for name in ("eyes", "mouth", "pose")) < TARGET
        assert ("That is the published failure" if failed else "The published failure does not show") in report
    table = (trained[1] / "reports" / "finetune.md").read_text(encoding="utf-8")
    assert f"| [{tag.replace('_published', ', published')}](finetune_{tag}.md) |" in table
    assert finetune(trained, **options).written == []


def test_v1_starts_the_data_set_of_the_later_versions(trained, tmp_path):
    profile, run = trained
    options = sampling.Options(profile=str(profile), run=str(run), device="cpu", n=5, generator="v1")
    sampling.run(options)
    latents = read_arrays(run / "stylegan" / "latents.npz", ("z", "label"))
    assert latents["label"].shape == (5, 7) and np.abs(latents["label"][:, [0, 3, 4]]).min() > 0
    assert not latents["label"][:, [1, 2, 5, 6]].any()
    net = load_generator(run / "stylegan_modified" / "stylegan_gen_fine_tuned_v1.pth")
    with torch.no_grad():
        expected = net(*(torch.from_numpy(latents[name][3:4]) for name in ("z", "label")))["image"]
    face = read_image(run / "stylegan" / "synthesize_results" / "000003.jpg")
    assert np.abs(face.astype(int) - to_uint8(expected)[0]).mean() < 12  # JPEG
    with pytest.raises(PipelineError, match="--version v1"):
        sampling.run(sampling.Options(profile=str(profile), run=str(tmp_path), device="cpu", generator="v1"))


def test_faces_of_a_rung_are_drawn_by_label_and_seed(trained):
    profile, run = trained
    folder = run / "final_inference_test_v1"

    def faces(**options):
        drawing.run(drawing.Options(profile=str(profile), run=str(run), device="cpu", **options))
        return [read_image(path) for path in sorted(folder.glob("0*.jpg"))]

    plain = faces(seeds="3,5")
    assert len(plain) == 2 and Summary.printed[-1].written
    faces(seeds="3,5")
    assert not Summary.printed[-1].written
    assert not np.array_equal(faces(seeds="3,5", mouth=2.0)[0], plain[0])
    near = faces(seeds="3", around=0.3, count=4)
    assert len(near) == 4 and np.array_equal(near[0], plain[0]) and not np.array_equal(near[1], plain[0])
    assert all(np.array_equal(a, b) for a, b in zip(near, faces(seeds="5,3", around=0.3, count=4)[4:], strict=True))
    with pytest.raises(PipelineError, match="without --around"):
        faces(seeds="3", count=4)
    with pytest.raises(PipelineError, match="--experiment 2 belongs to v5"):
        faces(experiment=2)
    with pytest.raises(PipelineError, match="takes no labels"):
        faces(version=str(trained[0].parent / "generator.pth"), eyes=1.0)


def test_the_face_of_a_row_of_latents_is_drawn_with_its_label_or_the_wished_one(trained, tmp_path):
    profile, run = trained
    shutil.copy(run / "stylegan_modified" / "stylegan_gen_fine_tuned_v1.pth", tmp_path / "v1.pth")
    z, told = latents_from_seeds([3, 5], 16), np.float32([[0, 0, 0, 0, 0, 0, 0], [2, 0, 0, -1, 2, 0, 0]])
    write_latents(tmp_path / "z.csv", z)
    write_latents(tmp_path / "told.csv", np.concatenate([z, told], 1))

    def faces(**options):
        options = {"version": str(tmp_path / "v1.pth"), "out": str(tmp_path / "out"), **options}
        drawing.run(drawing.Options(profile=str(profile), run=str(run), device="cpu", **options))
        return [read_image(path) for path in sorted((tmp_path / "out").glob("0*.jpg"))]

    by_seed = faces(seeds="5")
    assert np.array_equal(faces(z=str(tmp_path / "z.csv"), row=1), by_seed)
    with_label = faces(z=str(tmp_path / "told.csv"), row=1)
    assert len(with_label) == 1 and not np.array_equal(with_label, by_seed)
    assert np.array_equal(faces(z=str(tmp_path / "z.csv"), row=1, eyes=2.0, mouth=-1.0, pose=2.0), with_label)
    near = faces(z=str(tmp_path / "told.csv"), row=1, around=0.3, count=3)
    assert len(near) == 3 and np.array_equal(near[:1], with_label) and not np.array_equal(near[1], near[0])
    for row in (2, -1):
        with pytest.raises(PipelineError, match=rf"--row {row}: .*z\.csv has rows 0 to 1"):
            faces(z=str(tmp_path / "z.csv"), row=row)
    with pytest.raises(PipelineError, match="draws pixels that are no numbers; ask for less"):
        faces(eyes=1e39)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eyes": float("nan")}, "--eyes nan: give a number"),
        ({"pose": float("-inf")}, "--pose -inf: give a number"),
        ({"around": float("inf")}, "--around inf: give a number"),
        ({"psi": float("nan")}, "--psi nan: give 0"),
        ({"version": "w/v9.pt"}, r"--version w/v9\.pt: there is no such file"),
        ({"version": "v7"}, "there is no version v7; known: v1"),
        ({"row": 1}, "--row 1 counts the faces of --z: give that too"),
        ({"z": "none.csv", "seeds": "0-3"}, "--seeds 0-3 beside --z: give one of the two"),
        ({"z": "none.csv"}, r"--z none\.csv: there is no such file"),
    ],
)
def test_bad_wishes_are_refused_before_the_generator_is_loaded(place, tmp_path, options, message):
    with pytest.raises(PipelineError, match=message):
        drawing.plan(drawing.Options(profile=str(place[0]), run=str(tmp_path), device="cpu", **options))


def test_a_published_file_of_a_version_fed_zeros_is_known_by_its_name(trained, tmp_path, capsys):
    profile, run = trained
    path = tmp_path / "stylegan_gen_fine_tuned_v9.pth"
    shutil.copy(run / "stylegan_modified" / "stylegan_gen_fine_tuned_v1.pth", path)
    options = {"profile": str(profile), "run": str(tmp_path), "device": "cpu", "seeds": "1", "eyes": 1.0}
    drawing.run(drawing.Options(**options, version=str(path)))
    assert "was fed zero labels" in capsys.readouterr().out
    path.rename(other := tmp_path / "another.pth")
    drawing.run(drawing.Options(**options, version=str(other)))
    assert "was fed zero labels" not in capsys.readouterr().out


def test_pictures_of_somebody_else_are_never_deleted(trained, tmp_path):
    profile, run = trained
    options = {"profile": str(profile), "run": str(run), "device": "cpu", "out": str(tmp_path)}
    (tmp_path / "20240101_120000.jpg").write_bytes(b"a photograph")
    with pytest.raises(PipelineError, match="1 pictures that this command did not write, the first is 2024"):
        drawing.run(drawing.Options(**options, seeds="1"))
    (tmp_path / "20240101_120000.jpg").rename(tmp_path / "contact_sheet.png")
    with pytest.raises(PipelineError, match=r"the first is contact_sheet\.png"):
        drawing.run(drawing.Options(**options, seeds="1"))
    (tmp_path / "contact_sheet.png").rename(tmp_path / "mine.png")
    drawing.run(drawing.Options(**options, seeds="1-3"))
    drawing.run(drawing.Options(**options, seeds="1"))
    assert {path.name for path in tmp_path.iterdir()} == {"mine.png", "000000.jpg", "contact_sheet.png"}


def test_the_table_of_all_versions_comes_with_v9_too(trained, monkeypatch):
    profile, run = trained
    (run / "reports" / "finetune.md").unlink(missing_ok=True)
    monkeypatch.setattr("run_stylegan_finetune_v9.run", lambda options: None)
    stage.run(stage.Options(profile=str(profile), run=str(run), device="cpu", version="v9"))
    assert (run / "reports" / "finetune.md").is_file()
    with pytest.raises(PipelineError, match="v9 ships by"):
        stage.run(stage.Options(profile=str(profile), run=str(run), device="cpu", version="v9", export="x.pth"))
    base = Path(Profile.load(profile).weight("generator"))
    for export, message in {
        "elsewhere/x.pth": "must lie beside it",
        str(base): "give a name of its own that ends in .pth",
        str(base.with_name("x")): "give a name of its own that ends in .pth",
    }.items():
        with pytest.raises(PipelineError, match=message):
            stage.plan(stage.Options(profile=str(profile), run=str(run), device="cpu", version="v1", export=export))


def test_problems_are_named_before_training(place, tmp_path):
    empty = (place[0], tmp_path)
    with pytest.raises(PipelineError, match=r"no generator of version v1 .*--version v1"):
        finetune(empty, version="v4")
    with pytest.raises(PipelineError, match="holds 0 faces"):
        finetune(empty, version="v1")
    with pytest.raises(PipelineError, match=r"no generator of version v1 in .*: name its file as generator_v1"):
        drawing.run(drawing.Options(profile="celeba256", run=str(tmp_path), device="cpu", version="v1"))
    with pytest.raises(PipelineError, match=r"celeba256 has no oracle .*--profile demo.*run_stylegan_finetune_v9\.py"):
        finetune(("celeba256", tmp_path), version="v1")
    with pytest.raises(PipelineError, match="belongs to v5"):
        finetune(empty, version="v4", experiment=1)
    with pytest.raises(PipelineError, match="at least 1"):
        finetune(place, version="v1", steps=0)


def test_faces_and_filter_cnns_of_stage_2_are_found_or_named(place, tmp_path):
    folder, faces, models = stage_2_results(Run(place[1]), batch=12, filters=True)
    assert len(faces) == 12 and faces[0] == folder / "000000.jpg" and len(models) == 20
    assert all(path.is_file() for path in models.values())
    assert stage_2_results(Run(place[1]), batch=12, filters=False)[2] == {}
    with pytest.raises(PipelineError, match="holds 12 faces, one batch needs 13"):
        stage_2_results(Run(place[1]), batch=13, filters=False)
    shutil.copytree(folder, tmp_path / "stylegan" / folder.name)
    with pytest.raises(PipelineError, match=r"_0\.pt, which guides or judges faces, is missing"):
        stage_2_results(Run(tmp_path), batch=12, filters=True)
