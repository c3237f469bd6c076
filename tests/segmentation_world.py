"""A tiny world for stages 3 and 4: six rendered faces, one picture without a face, and a random ParseNet."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline.artefacts import read_arrays, save_image, save_weights

DATA = Path(__file__).resolve().parent / "data"
GREY = np.full((128, 128, 3), 90, np.uint8)


def rendered() -> tuple[np.ndarray, np.ndarray]:
    """Return six rendered faces uint8 [6, 128, 128, 3] and their true masks uint8 [6, 128, 128]."""
    arrays = read_arrays(DATA / "faces.npz", ("images", "masks"))
    return arrays["images"], arrays["masks"]


def score_cases() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the golden maps, their pictures and names."""
    cases = read_arrays(DATA / "score_cases.npz", ("parsing", "images", "names"))
    return cases["parsing"], cases["images"], [str(name) for name in cases["names"]]


def random_parsenet(path: Path, widths: tuple[int, ...] = (8, 8, 8)) -> Path:
    """Write the weight file of a small ParseNet with random weights that sees many classes."""
    save_weights(path, _random_state(widths), half=True)
    return path


@lru_cache
def _random_state(widths: tuple[int, ...]) -> dict:
    import torch

    from segmentation.parsenet import ParseNet
    from segmentation.parser import to_tensor

    torch.manual_seed(0)
    network = ParseNet(widths)
    # An untrained network prefers a few classes; with features and logits centred, all of them win somewhere.
    images = to_tensor(rendered()[0])
    with torch.no_grad():
        for _ in range(8):
            network(images)
        network.eval().head.bias -= network(images).mean(dim=(0, 2, 3)).repeat_interleave(4)
    return network.state_dict()


def filtered_run(run: Path, copies: int = 1) -> Path:
    """Write the filtered pictures of a run: the six faces (or copies of them), and one without a face in between."""
    folder = run / "stylegan" / "synthesize_results_filtered"
    for number in range(copies):
        for k, image in enumerate([*rendered()[0], GREY]):
            save_image(folder / f"{number * 100 + 3 * k + 1:06d}.jpg", image)
    return folder
