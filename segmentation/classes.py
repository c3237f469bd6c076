"""The eleven classes that every face parser of this project tells apart, and the colours they are drawn in."""

import numpy as np

SIZE = 224
"""Side in pixels of face crops and parsing maps."""

CLASSES = (
    "background",  # with neck, clothes and ears
    "skin",
    "left_brow",  # left and right are those of the picture
    "right_brow",
    "left_eye",
    "right_eye",
    "nose",
    "upper_lip",
    "inner_mouth",
    "lower_lip",
    "hair",
)
BACKGROUND, SKIN, LEFT_BROW, RIGHT_BROW, LEFT_EYE, RIGHT_EYE, NOSE, UPPER_LIP, INNER_MOUTH, LOWER_LIP, HAIR = range(11)

MIRRORED = (0, 1, 3, 2, 5, 4, 6, 7, 8, 9, 10)
"""The class that each class becomes when the picture is mirrored left to right."""

PALETTE = np.array(
    [
        (0, 0, 0),
        (0, 153, 255),
        (102, 255, 153),
        (0, 204, 153),
        (255, 255, 102),
        (255, 255, 204),
        (255, 153, 0),
        (255, 102, 255),
        (102, 0, 51),
        (255, 204, 255),
        (255, 0, 102),
    ],
    dtype=np.uint8,
)


def overlay(faces: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Blend pictures uint8 [..., H, W, 3] half and half with the palette colours of their maps uint8 [..., H, W]."""
    return ((faces.astype(np.uint16) + PALETTE[maps]) // 2).astype(np.uint8)
