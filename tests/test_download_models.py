"""Published files are fetched, checked, recorded and put in place; what is missing or wrong is told with a way on."""

import hashlib
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import tyro
from author_files import FILES, LOOKS_LIKE
from weight_files import discriminator, facexformer_state, generator

import download_models
from cnn.models import bundled_path
from cnn.settings import FILTER_NAMES, FOLDS
from pipeline.artefacts import digest, read_json, stamp_path
from pipeline.errors import PipelineError
from pipeline.profile import ROOT, Profile
from pipeline.published import Offline, Unavailable, published_files, working_folder
from stylegan.checkpoint import load_generator

GENERATOR, DISCRIMINATOR = "StyleGAN generator, 16x16", "StyleGAN discriminator, 16x16"


@pytest.fixture
def world(tmp_path):
    """A hub of two small files in a folder, and the files that a profile wants from it and from elsewhere."""
    hub = tmp_path / "hub" / "someone" / "faces"
    (hub / "ckpts").mkdir(parents=True)
    torch.save(generator().state_dict(), hub / "ckpts" / "g.pth")
    torch.save(discriminator().state_dict(), hub / "d.pth")
    return World(tmp_path)


class World:
    def __init__(self, folder: Path):
        self.folder, self.asked = folder, []
        self.hub = folder / "hub"
        self.target = folder / "weights"

    def profile(self, **changes) -> Path:
        """Write the profile; changes: text to add to the entry of g, d or h."""
        files = {
            "g": f'name = "ckpts/g.pth", to = "{self.target}/g.pth", kind = "{GENERATOR}", use = "stage 1", mb = 1',
            "d": f'name = "d.pth", to = "{self.target}/d.pth", kind = "{DISCRIMINATOR}", use = "x", optional = true',
            "h": f'name = "h", to = "{self.target}/h.pth", kind = "{GENERATOR}", use = "x", without = "no stage 5"',
        }
        entries = {
            key: f"{{ {text}{', mb = 1' if 'mb' not in text else ''}{changes.get(key, '')} }}"
            for key, text in files.items()
        }
        lines = [
            "resolution = 16",
            *("[download.hub]", 'what = "faces"', 'repo = "someone/faces"', 'sure = "seen"', 'licence = "none"'),
            f"files = [{entries['g']}, {entries['d']}]",
            *("[download.page]", 'what = "others"', 'page = "a page"', 'sure = "heard"', 'licence = "MIT"'),
            f"files = [{entries['h']}]",
        ]
        path = self.folder / "world.toml"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    def fetch(self, repo: str, name: str, folder: Path) -> Path:
        self.asked.append(f"{repo}/{name}")
        source = self.hub / repo / name
        if not source.is_file():
            raise Unavailable("the repository holds no file of this name")
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(source, folder))

    def download(self, fetch=None, everything=False, **changes) -> bool:
        files = published_files(Profile.load(self.profile(**changes)))
        return download_models.download(files, everything, fetch or self.fetch)

    def by_hand(self, name: str, state: dict) -> Path:
        self.target.mkdir(exist_ok=True)
        torch.save(state, self.target / name)
        return self.target / name


def test_files_are_fetched_checked_recorded_and_not_fetched_again(world, capsys):
    world.by_hand("h.pth", generator().state_dict())
    assert world.download()
    assert world.asked == ["someone/faces/ckpts/g.pth"]
    assert load_generator(world.target / "g.pth").resolution == 16
    record = read_json(stamp_path(world.target / "g.pth"))
    assert record["sha256"] == digest(world.target / "g.pth")
    assert record["provenance"]["source"] == "Hugging Face, someone/faces"
    assert sorted(path.name for path in world.target.iterdir()) == ["g.pth", "g.pth.json", "h.pth", "h.pth.json"]
    assert "2 of 2 files are there and right" in capsys.readouterr().out
    assert world.download() and len(world.asked) == 1
    assert capsys.readouterr().out.count("  checked  ") == 2


def test_what_is_fetched_already_needs_no_room(world, monkeypatch):
    files = [file for file in published_files(Profile.load(world.profile())) if file.source.repo and not file.optional]
    half = working_folder(files[0]) / "ckpts" / "g.pth.incomplete"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"0" * int(files[0].mb * 0.9e6))
    for free, fits in ((0.2, True), (0.05, False)):
        room = SimpleNamespace(free=int(free * files[0].mb * 1e6))
        monkeypatch.setattr(download_models.shutil, "disk_usage", lambda _, room=room: room)
        with nullcontext() if fits else pytest.raises(PipelineError, match="free some space"):
            download_models._check_disk(files)


def test_optional_files_are_fetched_with_all_and_checked_where_they_are(world):
    world.by_hand("h.pth", generator().state_dict())
    assert world.download() and not (world.target / "d.pth").exists()
    assert world.download(everything=True) and (world.target / "d.pth").is_file()
    world.by_hand("d.pth", generator().state_dict())
    assert not world.download()


def test_a_file_put_in_place_by_hand_is_accepted_when_it_is_the_right_one(world, capsys):
    path = world.by_hand("h.pth", {"generator": generator().state_dict()})
    assert not world.download()
    told = capsys.readouterr().err
    assert f"{path} is not the file that belongs here ({GENERATOR})" in told
    assert f"looks like: StyleGAN checkpoint with generator ({GENERATOR})" in told
    assert path.is_file() and not stamp_path(path).exists(), "somebody's file is never deleted"
    world.by_hand("h.pth", generator().state_dict())
    assert world.download()
    assert read_json(stamp_path(path))["sha256"] == digest(path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda state: {**state, "extra": torch.zeros(1)}, "unexpected: extra"),
        (lambda state: {key: value for key, value in state.items() if "layer3.weight" not in key}, "missing: synth"),
        (lambda state: {**state, "synthesis.lod": torch.tensor(float("nan"))}, "not finite: synthesis.lod"),
    ],
)
def test_a_file_of_the_right_kind_that_no_stage_could_load_is_refused(world, capsys, spoil, words):
    world.by_hand("h.pth", spoil(generator().state_dict()))
    assert not world.download()
    assert words in capsys.readouterr().err


def test_known_size_and_sha256_are_compared_and_a_wrong_fetch_is_not_put_in_place(world, capsys):
    world.by_hand("h.pth", generator().state_dict())
    size = (world.hub / "someone/faces/ckpts/g.pth").stat().st_size
    for change, words in (
        (f", bytes = {size + 1}", f"has {size:,} bytes, expected {size + 1:,}"),
        (f', sha256 = "{"0" * 64}"', f"expected {'0' * 64}: another version"),
    ):
        assert not world.download(g=change)
        assert words in capsys.readouterr().err and not (world.target / "g.pth").exists()
    right = digest(world.hub / "someone/faces/ckpts/g.pth")
    assert world.download(g=f', sha256 = "{right}", bytes = {size}')
    (world.target / "g.pth").write_bytes(b"spoiled")
    assert not world.download(g=f', sha256 = "{right}"')


def test_an_interrupted_fetch_leaves_its_part_for_the_next_call(world):
    world.by_hand("h.pth", generator().state_dict())
    source = world.hub / "someone/faces/ckpts/g.pth"

    def fetch_in_two_calls(repo, name, folder):
        part = folder / "g.incomplete"
        if not part.exists():
            folder.mkdir(parents=True)
            part.write_bytes(source.read_bytes()[:1000])
            raise Unavailable("the transfer failed")
        with part.open("ab") as stream:
            stream.write(source.read_bytes()[1000:])
        return part.rename(folder / "g.pth")

    assert not world.download(fetch_in_two_calls)
    assert not (world.target / "g.pth").exists()
    assert world.download(fetch_in_two_calls)
    assert digest(world.target / "g.pth") == digest(source)
    assert not list(world.target.glob(".part-*"))


def test_what_is_missing_is_told_with_reason_source_and_what_works_without(world, capsys):
    shutil.rmtree(world.hub)
    assert not world.download(everything=True)
    told = capsys.readouterr().err
    for words in (
        "3 files are missing",
        "no file of this name",
        "cannot be fetched by this command",
        "without: no st",
        f"ckpts/g.pth -> {world.target}/g.pth",
        "Hugging Face, someone/faces",
        "a page",
        "profile demo",
    ):
        assert words in told
    asked = []

    def offline(repo, name, folder):
        asked.append(name)
        raise Offline("the hub cannot be reached (offline?)")

    assert not world.download(offline, everything=True)
    assert len(asked) == 1, "one try tells that there is no network"


def command(*arguments, **environment):
    call = [sys.executable, str(ROOT / "download_models.py"), *map(str, arguments)]
    return subprocess.run(
        call, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT, env={**os.environ, **environment}
    )


def test_without_a_network_the_command_ends_with_the_list_and_exit_code_1(world):
    done = command("--profile", world.profile(), HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "2 files are missing or wrong" in done.stderr and "the hub cannot be reached" in done.stderr


def test_the_examples_of_the_help_are_ones_that_the_command_takes():
    told = command("--help").stdout
    examples = re.findall(r"^\s*python download_models\.py[ \t]*(.*)$", told, flags=re.MULTILINE)
    assert len(examples) == 3
    taken = [
        tyro.cli(download_models.Options, args=line.split(), config=(tyro.conf.FlagCreatePairsOff,))
        for line in examples
    ]
    assert [(options.list, options.all) for options in taken] == [(True, False), (False, False), (False, True)]


def test_the_list_asks_nobody_and_the_demo_has_nothing_to_fetch(world):
    code = "import sys, download_models as d; d.run(d.Options('celeba256', list=True)); "
    code += "d.run(d.Options('demo')); sys.exit('huggingface_hub' in sys.modules or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    for words in (
        "Hugging Face, kartiknarayan/facexformer",
        "licence  not stated",
        "sha256 327a755849ba64d3",
        "ckpts/model.pt -> weights/celeba256/facexformer.pt",
        "come with the project",
    ):
        assert words in done.stdout


def test_a_malformed_entry_is_named(world):
    path = world.profile(g=', colour = "red"')
    with pytest.raises(PipelineError, match=r"world\.toml, \[download\.hub\]:.*colour"):
        published_files(Profile.load(path))


class Hub(http.server.BaseHTTPRequestHandler):
    """A local hub of one file that writes down which ranges it is asked for."""

    protocol_version = "HTTP/1.1"
    content, ranges, settings = b"", [], {}

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        if "/someone/faces/resolve/" not in self.path or not self.path.endswith("/ckpts/g.pth"):
            code = "EntryNotFound" if "/someone/faces/" in self.path else "RepoNotFound"
            return self.reply(404, b"", {"X-Error-Code": code})
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if body:
            self.ranges.append(start)
        size, left = len(self.content), self.content[start:]
        headers = {"ETag": f'"{hashlib.sha256(self.content).hexdigest()}"', "X-Repo-Commit": "a" * 40}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        return self.reply(206 if asked else 200, left, headers, body)

    def reply(self, status: int, content: bytes, headers: dict, body: bool = True):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(world):
    """The local hub, with the generator of the world to fetch; .settings lead the command to it."""
    Hub.content, Hub.ranges = (world.hub / "someone/faces/ckpts/g.pth").read_bytes(), []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    Hub.settings = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
    yield Hub
    server.shutdown()
    server.server_close()


def test_the_command_goes_on_with_what_an_earlier_call_fetched(world, hub):
    world.by_hand("h.pth", generator().state_dict())
    folder = world.target / ".part-download"
    folder.mkdir()
    (folder / f"{hashlib.sha256(hub.content).hexdigest()}.incomplete").write_bytes(hub.content[:1000])
    done = command("--profile", world.profile(), **hub.settings)
    assert done.returncode == 0, done.stderr
    assert hub.ranges == [1000]
    assert digest(world.target / "g.pth") == hashlib.sha256(hub.content).hexdigest()
    assert not folder.exists()


def test_a_file_that_was_fetched_and_not_yet_checked_is_not_fetched_again(world, hub):
    world.by_hand("h.pth", generator().state_dict())
    folder = world.target / ".part-download"
    folder.mkdir()
    (folder / "g.pth").write_bytes(hub.content)
    done = command("--profile", world.profile(), **hub.settings)
    assert done.returncode == 0, done.stderr
    assert hub.ranges == [] and (world.target / "g.pth").read_bytes() == hub.content


def test_the_hub_s_refusals_are_told_in_plain_words(world, hub):
    profile = world.profile()
    text = profile.read_text().replace('name = "d.pth"', 'name = "other.pth"')
    profile.write_text(
        f"{text}\n"
        + text[text.index("[download.hub]") : text.index("[download.page]")]
        .replace("download.hub", "download.gone")
        .replace("someone", "nobody")
        .replace("weights", "w")
    )
    (folder := world.target / ".part-download").mkdir(parents=True)
    part = folder / f"{hashlib.sha256(hub.content).hexdigest()}.incomplete"
    part.write_bytes(b"?" * len(hub.content))
    done = command("--profile", profile, "--all", **hub.settings)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for words in (
        "the repository is gone, renamed or not public",
        "the repository holds no file of this name",
        "what came is damaged; run this command again",
        "cannot be fetched by this command",
    ):
        assert words in done.stderr
    assert not part.exists() and not (world.target / "g.pth").exists()


def test_the_table_of_celeba256_names_all_that_its_stages_read_and_all_that_was_published():
    profile = Profile.load("celeba256")
    files = published_files(profile)
    needed = {file.path for file in files if not file.optional}
    folder = ROOT / profile.get("cnn.bundled")
    wanted = {ROOT / path for path in profile.section("weights").values()}
    wanted |= {bundled_path(folder, name, fold) for name in FILTER_NAMES for fold in range(FOLDS)}
    assert needed == wanted and len({file.path for file in files}) == len(files)
    kinds = {file.name: file.kind for file in files}
    for name, layouts in FILES.items():
        for fold in range(FOLDS):
            kind = kinds[name.replace("{0..4}", str(fold))]
            assert all(LOOKS_LIKE[layout].startswith(kind) for layout in layouts), name
    assert all(file.source.licence and file.source.place and file.source.sure and file.mb for file in files)
    assert all(file.without for file in files if not file.optional)


def test_every_kind_of_the_table_has_a_loader(tmp_path):
    torch.save({"state_dict_backbone": facexformer_state()}, tmp_path / "foreign.pth")
    kinds = {file.kind for file in published_files(Profile.load("celeba256"))} - {"FaceXFormer checkpoint"}
    for kind in kinds:
        with pytest.raises(PipelineError, match=r"looks like: FaceXFormer"):
            download_models.load_strictly(tmp_path / "foreign.pth", kind)
    with pytest.raises(PipelineError, match="no loader for a file of kind 'a kettle'"):
        download_models.load_strictly(tmp_path / "foreign.pth", "a kettle")
