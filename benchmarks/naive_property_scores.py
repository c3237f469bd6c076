"""The published score algorithms pixel by pixel, as their descriptions read: slow, plain, the oracle of the tests.

Each picture of a score is gone through once, as the published code does; nothing is done twice to look slow.
"""

import math

import numpy as np

SIZE = 224
Place = tuple[int, int]


def naive_v1(parsing: np.ndarray, image: np.ndarray) -> list[float]:
    """Score one map uint8 [224, 224] with its picture uint8 [224, 224, 3] by algorithm v1; NaN where that stops."""
    heights = []
    for eye, start, end in ((4, 0, 168), (5, 56, 224)):
        rows = [y for y, _ in _places(parsing, eye, (56, 140), (start, end))]
        heights.append(max(rows) - min(rows) if rows else 0)
    hair = _places(parsing, 10)
    color = float(np.median(_values(image, hair))) if hair else math.nan
    length = float(max(y for y, _ in hair)) if hair else math.nan
    if length == SIZE - 1:
        length += sum(_last_row(hair)) / 2
    mouth = 0.0
    for classes in ((7, 9), (8,)):
        rows = [y for number in classes for y, _ in _places(parsing, number)]
        mouth += max(rows) - min(rows) if rows else 0
    nose = _places(parsing, 6)
    ys, xs = np.array(nose, dtype=float).reshape(-1, 2).T
    defined = len(nose) > 1 and xs.std() > 0 and ys.std() > 0
    pose = -float(np.corrcoef(xs, ys)[0, 1]) if defined else math.nan
    return [sum(heights) / 2, color, length, mouth, pose, *_background(parsing, image)]


def naive_v2(parsing: np.ndarray, image: np.ndarray) -> list[float]:
    """Score one map uint8 [224, 224] with its face crop uint8 [224, 224, 3] by algorithm v2."""
    openings, centres = [], []
    for eye, start, end in ((4, 0, 168), (5, 56, 224)):
        points = sorted((x, y) for y, x in _places(parsing, eye, (56, 168), (start, end)))
        columns: dict[int, list[int]] = {}
        for x, y in points:
            columns.setdefault(x, []).append(y)
        height = max((max(rows) - min(rows) for rows in columns.values()), default=0)
        flat, farthest = 1.0, 0
        for later, (x, y) in enumerate(points):
            for other_x, other_y in points[:later]:
                squared = (x - other_x) ** 2 + (y - other_y) ** 2
                if squared > farthest:
                    farthest, flat = squared, abs(x - other_x) / math.sqrt(squared)
        openings.append(height * flat)
        centres.append(np.mean(points, axis=0) if points else None)
    pose = 0.0
    if centres[0] is not None and centres[1] is not None:
        (left_x, left_y), (right_x, right_y) = centres
        with np.errstate(divide="ignore", invalid="ignore"):
            pose = float((right_y - left_y) / (right_x - left_x))

    hair = _places(parsing, 10)
    values = sorted(_values(image, hair))
    values = values[int(0.1 * len(values)) : int(0.9 * len(values))]
    color = float(np.mean(values)) if values else 127.5
    counts = [0] * SIZE
    for y, _ in hair:
        counts[y] += 1
    length = float(sum(count >= 20 for count in counts[56:]))
    if counts[-1] >= 20:
        length += sum(max(half - 10, 0) / 2 for half in _last_row(hair))
    lips = np.bincount(parsing.ravel(), minlength=11)[7:10]
    mouth = float(lips[1] / lips.sum()) if lips.sum() else 0.0
    return [max(openings), color, length, mouth, pose, *_background(parsing, image)]


def naive_hairstyle(parsing: np.ndarray, image: np.ndarray) -> float:
    """Score the hairstyle of one map uint8 [224, 224] with its face crop uint8 [224, 224, 3]."""
    ratios = []
    for y in range(112, 213):
        for x in range(8, 213):
            tested = ((y, x), (y + 3, x + 3), (y + 8, x), (y + 11, x + 3))
            tested += ((y, x - 8), (y + 3, x - 11), (y, x + 8), (y + 3, x + 11))
            if all(parsing[place] == 10 for place in tested):
                corners = ((y, x), (y + 8, x), (y, x - 8), (y, x + 8))
                here, below, left, right = (float(image[v : v + 4, u : u + 4].mean()) for v, u in corners)
                ratios.append(abs(here - below) / (max(abs(here - left), abs(here - right)) + 5))
    return float(np.mean(ratios)) if ratios else 0.45


def _places(parsing: np.ndarray, number: int, rows: Place = (0, SIZE), columns: Place = (0, SIZE)) -> list[Place]:
    """Return (y, x) of the pixels of one class in a window, row by row."""
    return [(y, x) for y in range(*rows) for x in range(*columns) if parsing[y, x] == number]


def _values(image: np.ndarray, places: list[Place]) -> list[float]:
    """Return the brightness of some pixels."""
    values = []
    for place in places:
        red, green, blue = image[place].tolist()
        values.append((red + green + blue) / 3)
    return values


def _last_row(hair: list[Place]) -> Place:
    last = [x for y, x in hair if y == SIZE - 1]
    left = sum(x < SIZE // 2 for x in last)
    return left, len(last) - left


def _background(parsing: np.ndarray, image: np.ndarray) -> tuple[float, float]:
    values = sorted(_values(image, _places(parsing, 0, (0, SIZE // 2))))
    if not values:
        return 192.0, 0.0
    if len(values) > 1:
        values = values[int(0.05 * len(values)) : int(0.95 * len(values))]
    return float(np.mean(values)), float(np.std(values))
