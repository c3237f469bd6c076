"""The published score algorithms pixel by pixel, as their descriptions read: slow, plain, the oracle of the tests."""

import math

import numpy as np

SIZE = 224


def naive_v1(parsing: np.ndarray, image: np.ndarray) -> list[float]:
    """Score one map uint8 [224, 224] with its picture uint8 [224, 224, 3] by algorithm v1; NaN where that stops."""
    heights = []
    for eye, start, end in ((4, 0, 168), (5, 56, 224)):
        rows = [y for y in range(56, 140) for x in range(start, end) if parsing[y, x] == eye]
        heights.append(max(rows) - min(rows) if rows else 0)
    hair = _values(parsing, image, 10, SIZE)
    color = float(np.median(hair)) if hair else math.nan
    hair_rows = [y for y in range(SIZE) for x in range(SIZE) if parsing[y, x] == 10]
    length = float(max(hair_rows)) if hair_rows else math.nan
    if length == SIZE - 1:
        length += sum(_last_row(parsing)) / 2
    mouth = 0.0
    for classes in ((7, 9), (8,)):
        rows = [y for y in range(SIZE) for x in range(SIZE) if parsing[y, x] in classes]
        mouth += max(rows) - min(rows) if rows else 0
    nose = [(x, y) for y in range(SIZE) for x in range(SIZE) if parsing[y, x] == 6]
    xs, ys = np.array(nose, dtype=float).reshape(-1, 2).T
    defined = len(nose) > 1 and xs.std() > 0 and ys.std() > 0
    pose = -float(np.corrcoef(xs, ys)[0, 1]) if defined else math.nan
    return [sum(heights) / 2, color, length, mouth, pose, *_background(parsing, image)]


def naive_v2(parsing: np.ndarray, image: np.ndarray) -> list[float]:
    """Score one map uint8 [224, 224] with its face crop uint8 [224, 224, 3] by algorithm v2."""
    openings, centres = [], []
    for eye, start, end in ((4, 0, 168), (5, 56, 224)):
        points = [(x, y) for x in range(start, end) for y in range(56, 168) if parsing[y, x] == eye]
        height = 0
        for column in range(start, end):
            rows = [y for x, y in points if x == column]
            height = max(height, max(rows) - min(rows) if rows else 0)
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

    hair = sorted(_values(parsing, image, 10, SIZE))
    hair = hair[int(0.1 * len(hair)) : int(0.9 * len(hair))]
    color = float(np.mean(hair)) if hair else 127.5
    counts = [sum(parsing[y, x] == 10 for x in range(SIZE)) for y in range(SIZE)]
    length = float(sum(count >= 20 for count in counts[56:]))
    if counts[-1] >= 20:
        length += sum(max(half - 10, 0) / 2 for half in _last_row(parsing))
    ids = [int(parsing[y, x]) for y in range(SIZE) for x in range(SIZE)]
    lips = ids.count(7) + ids.count(8) + ids.count(9)
    mouth = ids.count(8) / lips if lips else 0.0
    return [max(openings), color, length, mouth, pose, *_background(parsing, image)]


def naive_hairstyle(parsing: np.ndarray, image: np.ndarray) -> float:
    """Score the hairstyle of one map uint8 [224, 224] with its face crop uint8 [224, 224, 3]."""
    ratios = []
    for y in range(112, 213):
        for x in range(8, 213):
            tested = [(y, x), (y + 3, x + 3), (y + 8, x), (y + 11, x + 3)]
            tested += [(y, x - 8), (y + 3, x - 11), (y, x + 8), (y + 3, x + 11)]
            if all(parsing[place] == 10 for place in tested):
                corners = ((y, x), (y + 8, x), (y, x - 8), (y, x + 8))
                here, below, left, right = (float(image[v : v + 4, u : u + 4].mean()) for v, u in corners)
                ratios.append(abs(here - below) / (max(abs(here - left), abs(here - right)) + 5))
    return float(np.mean(ratios)) if ratios else 0.45


def _values(parsing: np.ndarray, image: np.ndarray, number: int, rows: int) -> list[float]:
    """Return the brightness of the pixels of one class in the first `rows` rows."""
    places = [(y, x) for y in range(rows) for x in range(SIZE) if parsing[y, x] == number]
    return [sum(int(channel) for channel in image[place]) / 3 for place in places]


def _last_row(parsing: np.ndarray) -> tuple[int, int]:
    hair = [int(parsing[SIZE - 1, x] == 10) for x in range(SIZE)]
    return sum(hair[: SIZE // 2]), sum(hair[SIZE // 2 :])


def _background(parsing: np.ndarray, image: np.ndarray) -> tuple[float, float]:
    values = sorted(_values(parsing, image, 0, SIZE // 2))
    if not values:
        return 192.0, 0.0
    if len(values) > 1:
        values = values[int(0.05 * len(values)) : int(0.95 * len(values))]
    return float(np.mean(values)), float(np.std(values))
