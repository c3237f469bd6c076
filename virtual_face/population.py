"""Who lives in the virtual world: standard-normal factors to correlated head parameters and true attributes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

FACTORS = (
    "gender",
    "age",
    "glasses",
    "quality",
    "eyes",
    "mouth",
    "yaw",
    "pitch",
    "roll",
    "hair_light",
    "hair_warm",
    "hair_length",
    "hair_curl",
    "hair_volume",
    "hair_part",
    "fringe",
    "bald",
    "skin",
    "undertone",
    "beard",
    "makeup",
    "smile",
    "brow_raise",
    "brow_thick",
    "iris",
    "gaze_x",
    "background_light",
    "background_spread",
    "background_hue",
    "background_tint",
    "background_angle",
    "key_azimuth",
    "key_elevation",
    "key_warm",
    "fill",
    "cloth_light",
    "cloth_hue",
    "face_width",
    "jaw",
    "chin",
    "eye_size",
    "eye_spacing",
    "eye_tilt",
    "nose_length",
    "nose_width",
    "lip_full",
    "mouth_width",
    "cheek",
)
INDEX = {name: i for i, name in enumerate(FACTORS)}
# Factors that change sign when the picture is mirrored left to right; all others stay.
ODD_FACTORS = ("yaw", "roll", "hair_part", "gaze_x", "background_angle", "key_azimuth")
IDENTITY = (
    "face_width",
    "jaw",
    "chin",
    "eye_size",
    "eye_spacing",
    "nose_length",
    "nose_width",
    "lip_full",
    "mouth_width",
)
ATTRIBUTES = (
    "gender",
    "quality",
    "age",
    "glasses",
    "eyes",
    "mouth",
    "yaw",
    "pitch",
    "roll",
    "hair_color",
    "hair_length",
    "hair_curl",
    "background_mean",
    "background_std",
) + tuple("shape_" + name for name in IDENTITY)


def factors_from_seeds(seeds: list[int]) -> Tensor:
    """Independent standard-normal factors, one row per seed: float32 [n, len(FACTORS)]."""
    rows = [np.random.default_rng([seed, 7]).standard_normal(len(FACTORS)) for seed in seeds]
    return torch.from_numpy(np.stack(rows).astype(np.float32))


def _soft(x: Tensor, centre: float, width: float) -> Tensor:
    return torch.sigmoid((x - centre) / width)


def head_parameters(factors: Tensor) -> dict[str, Tensor]:
    """Turns factors float32 [n, K] into named parameters float32 [n] of the head, correlated as in people.

    Age brings glasses, grey and thinner hair, narrower eyes; women have longer hair, make-up and softer jaws and no
    beard; a smile squints the eyes and shows teeth; a turned head tilts. Yes/no traits are soft: they fade in.
    """
    u = {name: factors[:, i].clamp(-3.2, 3.2) for name, i in INDEX.items()}
    p: dict[str, Tensor] = {}
    gender = _soft(u["gender"], -0.15, 0.28)  # 0 man .. 1 woman, few in between
    man = 1 - gender
    age = _soft(u["age"] + 0.12 * man, 0.75, 0.50)
    p["gender"], p["man"], p["age"] = gender, man, age
    p["glasses"] = _soft(0.88 * u["glasses"] + 0.75 * (age - 0.35), 0.85, 0.16)
    p["quality"] = 1 - _soft(u["quality"], 1.35, 0.16)
    p["smile"] = (0.50 + 0.36 * u["smile"] + 0.15 * (gender - 0.5)).clamp(-0.30, 1.3)
    mouth = 0.9 * u["mouth"] + 0.30 * u["smile"] + 0.15 * u["brow_raise"]
    p["mouth"] = torch.nn.functional.softplus((mouth - 0.10) * 2.2) / 2.2 * 0.115  # a third of the mouths are closed
    eyes = 0.95 * u["eyes"] - 0.28 * u["smile"] + 0.22 * u["brow_raise"] - 0.35 * (age - 0.35)
    p["eyes"] = 0.04 + 1.02 * _soft(eyes, -1.15, 0.62)
    p["yaw"] = (0.24 * u["yaw"] + 0.05 * u["roll"]).clamp(-0.62, 0.62)
    p["pitch"] = (0.10 * u["pitch"] - 0.02 * u["smile"]).clamp(-0.28, 0.28)
    p["roll"] = (0.085 * u["roll"] + 0.035 * u["yaw"]).clamp(-0.26, 0.26)
    grey = _soft(age + 0.10 * u["hair_light"], 0.72, 0.09)
    light = _soft(u["hair_light"] - 0.55 * u["skin"], 0.55, 0.62)
    p["grey"], p["hair_light"], p["hair_warm"] = grey, light, _soft(u["hair_warm"], 0.55, 0.5)
    p["hair_length"] = _soft(0.8 * u["hair_length"] + 2.6 * (gender - 0.5) - 0.25 * age, 0.1, 0.62)
    p["hair_curl"] = _soft(0.9 * u["hair_curl"] + 0.4 * u["skin"], 0.45, 0.38)
    p["hair_volume"] = 0.5 + 0.22 * u["hair_volume"] + 0.25 * p["hair_curl"]
    p["hair_part"] = torch.tanh(0.9 * u["hair_part"])
    p["fringe"] = _soft(u["fringe"] + 0.5 * (gender - 0.5), 0.55, 0.35)
    p["bald"] = _soft(0.75 * u["bald"] + 1.3 * (age - 0.4) - 2.2 * gender, 0.5, 0.25)
    p["skin"] = _soft(u["skin"], 0.35, 0.75)
    p["undertone"] = torch.tanh(0.7 * u["undertone"])
    p["beard"] = man * _soft(u["beard"] + 0.2 * age, 0.10, 0.32)
    p["makeup"] = gender * (0.18 + 0.82 * _soft(u["makeup"] + 0.3 * (1 - age), -0.15, 0.45))
    p["brow_raise"] = 0.45 * u["brow_raise"]
    p["brow_thick"] = 1.0 + 0.16 * u["brow_thick"] + 0.62 * (man - 0.5)
    p["iris"] = u["iris"] - 0.5 * u["skin"] + 0.2 * u["hair_light"]
    p["gaze_x"] = torch.tanh(0.35 * u["gaze_x"] - 0.30 * u["yaw"])
    p["background_light"] = _soft(u["background_light"], 0.0, 0.75)
    p["background_spread"] = _soft(u["background_spread"], 0.2, 0.6)
    p["background_hue"], p["background_tint"] = u["background_hue"], _soft(u["background_tint"], 0.2, 0.6)
    p["background_angle"] = torch.tanh(0.8 * u["background_angle"])
    p["key_azimuth"] = 0.75 * torch.tanh(0.75 * u["key_azimuth"])
    p["key_elevation"] = 0.55 + 0.16 * u["key_elevation"]
    p["key_warm"] = torch.tanh(0.6 * u["key_warm"])
    p["fill"] = 0.34 + 0.06 * u["fill"]
    p["cloth_light"], p["cloth_hue"] = _soft(u["cloth_light"], 0.1, 0.6), u["cloth_hue"]
    p["face_width"] = 1 + 0.035 * u["face_width"] + 0.02 * (man - 0.5)
    p["jaw"] = 0.10 * u["jaw"] + 0.80 * (man - 0.5)
    p["chin"] = 0.035 * u["chin"] + 0.06 * (man - 0.5)
    p["eye_size"] = 1.06 + 0.055 * u["eye_size"] + 0.13 * (gender - 0.5)
    p["eye_spacing"] = 1 + 0.04 * u["eye_spacing"]
    p["eye_tilt"] = 0.035 + 0.05 * u["eye_tilt"] + 0.05 * (gender - 0.5)
    p["nose_length"] = 0.97 + 0.06 * u["nose_length"] + 0.06 * (man - 0.5) + 0.05 * (age - 0.35)
    p["nose_width"] = 0.93 + 0.11 * u["nose_width"] + 0.30 * (man - 0.5) + 0.16 * (p["skin"] - 0.4)
    p["lip_full"] = 1.06 + 0.14 * u["lip_full"] + 0.32 * (gender - 0.5) + 0.25 * (p["skin"] - 0.4) - 0.25 * (age - 0.35)
    p["mouth_width"] = 1 + 0.06 * u["mouth_width"] + 0.07 * p["smile"] + 0.04 * (man - 0.5)
    p["cheek"] = 0.5 + 0.3 * u["cheek"] + 0.3 * p["smile"] - 0.3 * age
    return p


def true_attributes(p: dict[str, Tensor], background: Tensor, hair_albedo: Tensor) -> pd.DataFrame:
    """The table of true attributes, one row per face.

    background: float [n, 2], mean and spread of the background's brightness (0..255) in the upper half of the frame.
    hair_albedo: float [n], brightness of the hair's own colour, 0..1. Angles are in radians; `eyes`: about 1 is a
    wide eye; `mouth`: height of the opening in head units, of which the skull is about 1.5 wide.
    """
    columns = {
        "gender": p["gender"],
        "quality": p["quality"],
        "age": p["age"],
        "glasses": p["glasses"],
        "eyes": p["eyes"] * p["eye_size"],
        "mouth": p["mouth"],
        "yaw": p["yaw"],
        "pitch": p["pitch"],
        "roll": p["roll"],
        "hair_color": hair_albedo,
        "hair_length": p["hair_length"],
        "hair_curl": p["hair_curl"],
        "background_mean": background[:, 0],
        "background_std": background[:, 1],
    }
    for name in IDENTITY:
        columns["shape_" + name] = p[name]
    assert tuple(columns) == ATTRIBUTES
    return pd.DataFrame({name: value.double().cpu().numpy() for name, value in columns.items()})
