"""Steps of stage 6 in one run folder of the linear world."""

from vectorfind_world import make_bench

import run_vectorfind
import vectorfind.further
import vectorfind.stage


def runner_in(folder, profile, monkeypatch):
    """Returns a function that runs steps in one run folder: 200 samples, 3 faces, no groups, only the finder judges."""
    for name in ("generator", "scorer"):
        (folder / f"{name}.pth").write_bytes(name.encode())
    monkeypatch.setattr(vectorfind.stage, "open_bench", lambda *_: make_bench(batch=50))
    monkeypatch.setattr(vectorfind.stage, "open_identity", lambda *_: None)
    monkeypatch.setattr(vectorfind.further, "open_judge", lambda _: None)
    monkeypatch.setattr(vectorfind.further, "oracle_file", lambda _: {})

    def go(*steps, **options):
        paths = {name: str(folder / f"{name}.pth") for name in ("generator", "scorer")}
        small = {"samples": 200, "faces": 3, "groups": "none", "graders": ("finder",), "groupings": ("none",)}
        if "sweep" in steps:
            del small["groups"]  # it takes --groupings
        wish = {**small, "profile": str(profile), "run": str(folder / "run"), "device": "cpu", **paths, **options}
        run_vectorfind.run(run_vectorfind.VectorFindOptions(steps=steps, **wish))
        return folder / "run"

    return go
