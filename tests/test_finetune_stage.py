"""Stage 5 as a command: it goes on from the bundle or climbs from the base, survives a kill, and does nothing twice."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import finetune_world as world
import pytest
import torch

import run_stylegan_finetune_v9 as stage
import stylegan_modified.ladder
from pipeline.artefacts import read_json, read_weights, save_image, save_weights, stamp_path
from pipeline.command import Summary
from pipeline.errors import PipelineError
from stylegan.checkpoint import generator_hash, load_discriminator, load_generator
from stylegan.sampling import images_of, to_uint8
from stylegan_modified.carry import labelled_discriminator
from stylegan_modified.rung import LOG
from virtual_face.oracle import AttributeNet

SMALL = {"guidance": 0.0, "batch": 4, "samples": 16, "watched": 8, "log_every": 2, "monitor_every": 4, "save_every": 2}
TABLES = ("train_log_v9.csv", "train_log_whole.csv", "concept_before_v9.csv", "concept_after_v9.csv")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    """Random nets: base generator with discriminator, and an oracle."""
    folder = tmp_path_factory.mktemp("weights")
    nets = {"generator": world.base_generator(), "discriminator": world.base_discriminator()}
    save_weights(folder / "generator.pth", {name: net.state_dict() for name, net in nets.items()})
    torch.manual_seed(3)
    save_weights(folder / "oracle.pth", AttributeNet().state_dict())
    return {"generator": folder / "generator.pth", "attribute_net": folder / "oracle.pth"}


@pytest.fixture
def profile(write_profile, weights, tmp_path):
    """Return a function that writes the profile; bundle: whether it names a v9 net, be it there or not."""

    def write(bundle: bool = False, **more) -> Path:
        files = {**weights, "generator_v9": tmp_path / "bundle" / "generator_v9.pth" if bundle else ""}
        demo = {"steps": 2, "v1_steps": 0, "warm_steps": 0, "guidance": 0.0}
        sections = {"finetune": {**SMALL, **more}, "finetune.demo": demo,
                    "finetune.train": {"steps": 4, "v1_steps": 2, "warm_steps": 2}}  # fmt: skip
        return write_profile(resolution=16, weights=files, **sections)

    return write


def new_run(path: Path) -> Path:
    """A run folder in which stage 2 kept 24 faces."""
    faces = to_uint8(images_of(world.base_generator(), torch.randn(24, 16, generator=torch.Generator().manual_seed(7))))
    for k, face in enumerate(faces):
        save_image(path / "stylegan" / "synthesize_results_filtered" / f"{k * 3:06d}.jpg", face)
    return path


def finetune(run: Path, profile: Path, **options) -> Summary:
    """Run the stage in this process; return its summary."""
    stage.run(stage.Options(profile=str(profile), run=str(run), device="cpu", **options))
    return Summary.printed[-1]


def tables(run: Path) -> dict[str, bytes]:
    return {name: (run / "stylegan_modified" / name).read_bytes() for name in TABLES}


def test_from_the_base_over_v1_to_the_file_that_ships_and_on_from_there(tmp_path, profile, monkeypatch):
    run, path = new_run(tmp_path / "run"), profile(bundle=True)
    bundle = tmp_path / "bundle" / "generator_v9.pth"
    summary = finetune(run, path, train=True, export=str(bundle))
    assert {file.name for file, _ in summary.written} >= {"stylegan_gen_fine_tuned_v9.pth", "finetune_v9.md", *TABLES}
    whole = stylegan_modified.ladder.read_table(run / "stylegan_modified" / "train_log_whole.csv", LOG)
    assert whole["step"].tolist() == [0, 2, 4, 4, 6, 8] and whole["version"].tolist() == ["v1"] * 3 + ["v9"] * 3
    assert whole["g_train_count"].iloc[1] == 0  # the warm-up trains D alone
    report = (run / "reports" / "finetune_v9.md").read_text(encoding="utf-8")
    assert "2 of D alone and 2 of v1 and 4 of v9" in report and "](../stylegan_modified/" in report

    # The shipped file holds the same nets, in half the space.
    shipped, own = load_generator(bundle), load_generator(run / "stylegan_modified/stylegan_gen_fine_tuned_v9.pth")
    z = torch.randn(4, 16)
    assert shipped.split and torch.allclose(images_of(shipped, z), images_of(own, z), atol=0.02)
    assert load_discriminator(bundle).label_concat
    assert read_json(stamp_path(bundle))["provenance"]["steps"] == 4

    # A net trained here stays, and is not touched again.
    monkeypatch.setattr(stylegan_modified.ladder, "Ladder", lambda *_, **__: pytest.fail("nets were loaded"))
    for train in (True, False):
        assert finetune(run, path, train=train).written == []
    monkeypatch.undo()

    # Another run goes on from the shipped file; before and after are measured on the same latents.
    other = new_run(tmp_path / "other")
    finetune(other, path)
    rows = stylegan_modified.ladder.read_table(other / "stylegan_modified" / "train_log_whole.csv", LOG)
    assert rows["step"].tolist() == [0, 2, 4, 4, 6, 8, 8, 10]
    assert read_json(stamp_path(other / "stylegan_modified/stylegan_gen_fine_tuned_v9.pth"))["provenance"]["steps"] == 6
    assert tables(other)["concept_before_v9.csv"] == tables(run)["concept_before_v9.csv"]
    said = finetune(other, path, steps=4).notes
    assert stylegan_modified.ladder.read_table(other / "stylegan_modified/train_log_v9.csv", LOG)["step"].max() == 4
    assert any("concept share" in line for line in said)


def test_what_ships_what_is_measured_and_what_v9_begins_with_is_the_running_average(
    tmp_path, profile, weights, monkeypatch
):
    run, split, began = new_run(tmp_path / "run"), stylegan_modified.ladder.split_generator, []
    recorded = lambda net, **more: began.append(net) or split(net, **more)  # noqa: E731
    monkeypatch.setattr(stylegan_modified.ladder, "split_generator", recorded)
    finetune(run, profile(mapping=1e-2, synthesis=1e-2), train=True)
    folder = run / "stylegan_modified"
    shipped = load_generator(folder / "stylegan_gen_fine_tuned_v9.pth")
    for net, rung in ((began[0], "v9_begin"), (shipped, "v9")):
        state, own = read_weights(folder / f"state_{rung}_from_base.pth"), net.state_dict()
        assert all(torch.equal(own[key], value) for key, value in state["generator_smooth"].items()), rung
        assert not torch.equal(own["mapping.dense3.weight"], state["generator"]["mapping.dense3.weight"]), rung
    for name, net in {"before": load_generator(weights["generator"]), "after": shipped}.items():
        assert read_json(folder / f"concept_{name}_v9.measured.json")["generator"] == generator_hash(net), name


def test_without_a_bundled_net_it_starts_from_the_base_and_says_so(tmp_path, profile):
    run, path = new_run(tmp_path / "run"), profile()
    summary = finetune(run, path)
    assert any("no bundled v9 net" in line for line in summary.notes)
    assert "no bundled v9 net" in (run / "reports" / "finetune_v9.md").read_text(encoding="utf-8")
    assert finetune(run, path).written == []
    again = new_run(tmp_path / "again")
    finetune(again, path)
    assert tables(again) == tables(run)


def test_it_goes_on_from_the_published_nets_which_are_two_files(tmp_path, write_profile, weights):
    files = {name: tmp_path / f"{name}.pth" for name in ("generator_v9", "discriminator_v9")}
    steps = {"finetune": SMALL, "finetune.demo": {"steps": 1, "v1_steps": 0, "warm_steps": 0, "guidance": 0.0}}
    path = write_profile(resolution=16, weights={**weights, **files}, **steps)
    run, critic = new_run(tmp_path / "run"), labelled_discriminator(world.base_discriminator())
    torch.save(world.v9_generator().state_dict(), files["generator_v9"])
    with pytest.raises(PipelineError, match="'discriminator_v9' .* is missing"):
        finetune(run, path)
    torch.save(critic.state_dict(), files["discriminator_v9"])
    summary = finetune(run, path)
    assert not any("no bundled v9 net" in line for line in summary.notes)
    trained = load_discriminator(run / "stylegan_modified" / "stylegan_dis_fine_tuned_v9.pth").state_dict()
    moved = [float((trained[key] - value).abs().max()) for key, value in critic.state_dict().items()]
    assert 0 < max(moved) < 0.01, "one step away from the published discriminator"

    # The published base may be unobtainable: then the published v9 net is `before`, and this is said.
    lost, other = {**weights, **files, "generator": tmp_path / "lost.pth"}, new_run(tmp_path / "other")
    without = write_profile("without", resolution=16, weights=lost, **steps)
    assert any("lost.pth is missing, so `before` is" in line for line in finetune(other, without).notes)
    assert "lost.pth is missing" in (other / "reports" / "finetune_v9.md").read_text(encoding="utf-8")
    alone = [load_generator(folder / "stylegan_modified" / "stylegan_gen_fine_tuned_v9.pth") for folder in (run, other)]
    assert all(torch.equal(a, b) for a, b in zip(*(net.state_dict().values() for net in alone), strict=True))
    with pytest.raises(PipelineError, match="'generator' .* is missing(?s:.*)goes on from a v9 net"):
        finetune(other, without, train=True)


def test_a_killed_stage_ends_with_the_same_tables(tmp_path, profile):
    path = profile()
    finetune(new_run(tmp_path / "whole"), path, steps=6)
    run = new_run(tmp_path / "killed")
    call = [sys.executable, stage.__file__, "--profile", str(path), "--run", str(run), "--device", "cpu", "--steps"]
    process = subprocess.Popen([*call, "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = run / "stylegan_modified" / "state_v9_from_base.pth"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists() and not (run / "reports").exists()
    step = read_weights(state)["counters"]["step"]
    finetune(run, path, steps=max(6, step))
    if step <= 6:
        assert tables(run) == tables(tmp_path / "whole")


def test_of_two_processes_one_measures_and_writes(tmp_path, profile):
    run, path = new_run(tmp_path / "run"), profile()
    script = Path(stage.__file__)
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["--train", "--profile", str(path), "--run", str(run), "--device", "cpu"]
    done = subprocess.run(
        [*call, "--", str(script), *options],
        capture_output=True, text=True, timeout=500, check=False, cwd=script.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("stylegan_gen_fine_tuned_v9.pth") == 1
    log = stylegan_modified.ladder.read_table(run / "stylegan_modified/train_log_v9.csv", LOG)
    assert log["step"].tolist() == [0, 2, 4] and log["concept_share"].notna().iloc[[0, -1]].all()


def test_problems_are_named_before_any_net_is_loaded(tmp_path, profile, weights):
    run, path = new_run(tmp_path / "run"), profile()
    with pytest.raises(PipelineError, match="holds 0 faces.*run stages 1 and 2"):
        finetune(tmp_path / "empty", path)
    with pytest.raises(PipelineError, match="at least 1"):
        finetune(run, path, steps=0)
    with pytest.raises(PipelineError, match="ends in .pth"):
        finetune(run, path, export="weights")
    with pytest.raises(PipelineError, match=r"section \[finetune\]: unknown key maping"):
        finetune(run, profile(maping=1e-3))
    with pytest.raises(PipelineError, match=r"batch = 4.5; write a whole number of at least 1"):
        finetune(run, profile(batch=4.5))


def test_files_that_would_be_written_over_are_named_before_any_work(tmp_path, profile, weights):
    run, path = new_run(tmp_path / "run"), profile()
    before = weights["generator"].read_bytes()
    with pytest.raises(PipelineError, match="generator.pth is a file that this call reads; give another name"):
        finetune(run, path, export=str(weights["generator"]))
    assert weights["generator"].read_bytes() == before
    own = run / "stylegan_modified" / "stylegan_gen_fine_tuned_v9.pth"
    own.parent.mkdir()
    own.write_bytes(b"published, put here by hand")
    with pytest.raises(PipelineError, match=r"by hand.*move it away and name it as generator_v9 under \[weights\]"):
        finetune(run, path)
    assert own.read_bytes() == b"published, put here by hand"
    finetune(run, path, force=True)
    finetune(run, path, steps=3)  # its own file


def test_nets_that_do_not_belong_together_are_named(tmp_path, profile, weights, write_profile):
    run, path = new_run(tmp_path / "run"), profile(bundle=True)
    bundle, critic = tmp_path / "bundle" / "generator_v9.pth", tmp_path / "critic.pth"
    with pytest.raises(PipelineError, match=r"(?s)'generator_v9' .* is missing.*--train.*generator_v9 = \"\" under"):
        finetune(run, path)
    bundle.parent.mkdir()
    shutil.copy(weights["generator"], bundle)
    with pytest.raises(PipelineError, match="is no v9 generator of 16 px and 16 numbers z.*generator_v9 under"):
        finetune(run, path)
    nets = {"generator": world.v9_generator(), "discriminator": labelled_discriminator(world.base_discriminator())}
    states = {name: net.state_dict() for name, net in nets.items()}
    save_weights(bundle, states, base="of another generator")
    with pytest.raises(PipelineError, match="was fine-tuned from another generator than .*--train"):
        finetune(run, path)
    save_weights(bundle, states)
    torch.save(world.base_discriminator(32).state_dict(), critic)
    steps = {"finetune": SMALL, "finetune.demo": {"steps": 1, "v1_steps": 0, "warm_steps": 0, "guidance": 0.0}}
    other = write_profile(
        resolution=16, weights={**weights, "generator_v9": bundle, "discriminator_v9": critic}, **steps
    )
    with pytest.raises(PipelineError, match=r"critic\.pth is no discriminator of 16 px with 7 labels appended"):
        finetune(run, other)
    assert not (run / "stylegan_modified" / "stylegan_gen_fine_tuned_v9.pth").exists()


def test_broken_faces_are_named(tmp_path, profile, weights):
    run, path = new_run(tmp_path / "run"), profile()
    broken = next((run / "stylegan" / "synthesize_results_filtered").glob("*.jpg"))
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(PipelineError, match=broken.name):
        finetune(run, path)
