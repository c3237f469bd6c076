"""Toy faces for the tests of the CNN stages: coloured squares whose four properties can be seen in a few pixels."""

import numpy as np
import pandas as pd

from pipeline.artefacts import save_arrays, save_image, write_json

SIDE = 32


def toy_faces(count, seed=0):
    """Pixels uint8 [N, 32, 32, 3] and a label table; each property is a clear mark inside its window, plus noise."""
    random = np.random.default_rng(seed)
    labels = pd.DataFrame({"img_no": np.arange(count)})
    for name, share in (("gender", 0.6), ("quality", 0.7), ("age", 0.35), ("glass", 0.35)):
        labels[name] = (random.random(count) < share).astype(int)
    pixels = random.normal(110, 12, (count, SIDE, SIDE, 3))
    pixels[:, 20:, :, 0] += 60 * labels["gender"].to_numpy()[:, None, None]
    pixels[:, :8, 8:24] += 60 * labels["quality"].to_numpy()[:, None, None, None]
    pixels[:, :16, :8, 2] += 60 * labels["age"].to_numpy()[:, None, None]
    pixels[:, 10:16, 8:24] -= 60 * labels["glass"].to_numpy()[:, None, None, None]
    return pixels.clip(0, 255).astype(np.uint8), labels


def write_world(folder, count=60, labelled=50, training="epochs = 2\nmax_retries = 0"):
    """A run folder with toy faces, a label table and a profile; returns (run folder, profile path, label path)."""
    pixels, labels = toy_faces(count)
    run = folder / "run"
    images = run / "stylegan" / "synthesize_results"
    for img_no, image in enumerate(pixels):
        save_image(images / f"{img_no:06d}.jpg", image)
    numbers = np.arange(count)
    save_arrays(run / "stylegan" / "latents.npz", img_no=numbers, seed=numbers, z=np.zeros((count, 4)))
    write_json(
        f"{images}.json", {"origin": {"generator": "a" * 64, "psi": 1.0, "seeds": f"0-{count - 1}"}, "output": {}}
    )
    table = folder / "labels.csv"
    labels.head(labelled).to_csv(table, index=False)
    write_json(f"{table}.json", {"origin": {"generator": "a" * 64, "psi": 1.0, "seeds": f"0-{labelled - 1}"}})
    profile = folder / "toy.toml"
    profile.write_text(f"""
resolution = {SIDE}
[weights]
labels = "{table.as_posix()}"
[cnn]
width = 0.125
head = 8
batch = 16
min_passed = 1
[cnn.cutoffs]
gender = 0.5
quality = 0.5
age = 0.5
glass = 0.5
[cnn.learning_rates]
gender = 3e-3
quality = 3e-3
age = 3e-3
glass = 3e-3
[cnn.training]
{training}
""")
    return run, profile, table
