"""What a parsed face looks like besides its scores: colours of its parts, and where they lie in the head's own frame.

The scores say nothing of the iris or the brows, and CNNs that tell women from men hardly look at them: a loop that
holds no more than these turns brown eyes blue while it shuts them. No reading here depends much on the lids or on how
far the mouth is open; one that did would be held by moving something else instead.
"""

from __future__ import annotations

import numpy as np

from segmentation.classes import (
    HAIR,
    LEFT_BROW,
    LEFT_EYE,
    LOWER_LIP,
    NOSE,
    RIGHT_BROW,
    RIGHT_EYE,
    SKIN,
    UPPER_LIP,
)

# Fewer pixels tell no colour and no place.
FEWEST = 12
# How light the iris is cannot be told from how far the eye is open; how light the hair is, is a score.
COLOURS = {
    "skin": ((SKIN, NOSE), ("light", "warmth", "green")),
    "brows": ((LEFT_BROW, RIGHT_BROW), ("light", "warmth")),
    "lips": ((UPPER_LIP, LOWER_LIP), ("light", "warmth")),
    "hair": ((HAIR,), ("warmth", "green")),
    "iris": ((LEFT_EYE, RIGHT_EYE), ("warmth", "green")),
}
PLACES = ("brow height", "nose aside", "nose width", "nose length", "face width", "chin", "crown", "smile")
# How far to either side of the upper lip's middle the chin reaches, and the quantile of its pixels that is its end.
CHIN, END = 0.15, 0.97
CROWN = 0.02
# A mouth that opens bends the lower lip about three times as far as the upper one, and the other way.
LOWER_SHARE = 1 / 3
READINGS = (*(f"{part} {colour}" for part, (_, colours) in COLOURS.items() for colour in colours), *PLACES)


def appearance(maps: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Readings float32 [N, len(READINGS)] of maps uint8 [N, H, W] (class ids) and face crops uint8 [N, H, W, 3].

    Colours: light is the mean of the channels, warmth R - B, green G - (R + B) / 2, of 255. Places and widths
    (deviations of a part's pixels) are in distances between the eyes, along and across the line through them. NaN where
    a part has fewer than FEWEST pixels.
    """
    found = [np.concatenate([_colours(*pair), _places(pair[0])]) for pair in zip(maps, faces, strict=True)]
    return np.array(found, np.float32).reshape(len(maps), len(READINGS))


def _colours(classes: np.ndarray, face: np.ndarray) -> list[float]:
    found = []
    for parts, colours in COLOURS.values():
        pixels = face[np.isin(classes, parts)]
        red, green, blue = pixels.mean(0) if len(pixels) >= FEWEST else np.full(3, np.nan)
        known = {"light": (red + green + blue) / 3, "warmth": red - blue, "green": green - (red + blue) / 2}
        found += [known[colour] for colour in colours]
    return found


def _places(classes: np.ndarray) -> list[float]:
    """Values of PLACES; all or none, but for a chin or a crown that cannot be seen."""
    pixels = {}
    for part in (LEFT_EYE, RIGHT_EYE, LEFT_BROW, RIGHT_BROW, NOSE, SKIN, HAIR, UPPER_LIP, LOWER_LIP):
        y, x = np.nonzero(classes == part)
        if len(x) < FEWEST and part != HAIR:
            return [np.nan] * len(PLACES)
        pixels[part] = np.stack([x, y], 1).astype(np.float64)
    left, right = pixels[LEFT_EYE].mean(0), pixels[RIGHT_EYE].mean(0)
    distance = max(float(np.hypot(*(right - left))), 1.0)
    along = (right - left) / distance
    frame = np.stack([along, (-along[1], along[0])], 1) / distance
    placed = {part: (where - (left + right) / 2) @ frame for part, where in pixels.items()}
    nose, upper, lower, skin = (placed[part] for part in (NOSE, UPPER_LIP, LOWER_LIP, SKIN))
    # Heights are told from the nose, as the middle of an eye sinks while it shuts.
    height = nose[:, 1].mean()
    brows = (placed[LEFT_BROW][:, 1].mean() + placed[RIGHT_BROW][:, 1].mean()) / 2
    below = skin[(np.abs(skin[:, 0] - upper[:, 0].mean()) < CHIN) & (skin[:, 1] > lower[:, 1].mean())]
    chin = np.quantile(below[:, 1], END) if len(below) >= FEWEST else np.nan
    crown = np.quantile(placed[HAIR][:, 1], CROWN) if len(placed[HAIR]) >= FEWEST else np.nan
    return [
        height - brows,
        nose[:, 0].mean(),
        nose[:, 0].std(),
        nose[:, 1].std(),
        skin[:, 0].std(),
        # A mouth that opens takes the chin away from the nose, and the lower lip twice as far: the two cancel.
        chin - (height + np.quantile(lower[:, 1], END)) / 2,
        height - crown,
        -_bend(upper) - LOWER_SHARE * _bend(lower),
    ]


def _bend(points: np.ndarray) -> float:
    """Curvature of the parabola through points [n, 2]: positive where its ends lie lower than its middle."""
    return float(np.polyfit(points[:, 0] - points[:, 0].mean(), points[:, 1], 2)[0])
