"""Side effects: what else an edit changes, at equal achieved change, so that a timid method does not look gentle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from vectorfind.bench import Bench
from vectorfind.editor import Editor
from vectorfind.evaluate import DIGITS
from vectorfind.graders import FINDER, Grader
from vectorfind.groups import Grouping
from vectorfind.names import EDITED, PROPERTIES
from vectorfind.protocol import bootstrap, face_mean

# The head turns as a whole, so for pose only the frame around it counts as outside. Shares of the picture: top, bottom,
# left, right; eyes and mouth as the property CNN crops them, with a margin.
REGIONS = {
    "eyes": (0.34, 0.60, 0.20, 0.80),
    "mouth": (0.58, 0.86, 0.30, 0.70),
    "pose": (0.15, 0.95, 0.12, 0.88),
}
# What an edit of a property means, in the oracle's own words: not a side effect of it. Pose is the roll, as the score.
MEANT = {"eyes": ("eyes",), "mouth": ("mouth",), "pose": ("roll",)}
# What a face does, as against who it is: no part of the drift.
BEARING = ("eyes", "mouth", "yaw", "pitch", "roll")
ORACLE_ATTRIBUTES = ("yaw", "pitch", "roll", "gender", "age", "quality", "glasses")
EDIT_COLUMNS = ("seed", "group_name", "property", "asked", "achieved", "matched", "pixel", "drift")
MATCHED_WITHIN = 0.15
ROUNDS = 4
WAYS = ("up", "down")
# Edits below which the mean of one way says nothing.
FEWEST_EDITS = 20


class Judge:
    """Reads attributes and identity with the oracle, which took no part in finding directions or scoring.

    The oracle was trained on renders; the generator's training used its features, the labels of stage 2 its readings,
    so it is no stranger to the world, but no direction was fitted to it. Its features also carry the eyes, the mouth
    and the head's attitude: the part of a feature change that its own head reads as those is taken out first.
    """

    def __init__(self, oracle):
        from virtual_face.population import ATTRIBUTES

        self.oracle, self.attributes = oracle, list(ATTRIBUTES)
        rows = oracle.network.head.weight.detach().cpu()[[self.attributes.index(word) for word in BEARING]]
        basis, _ = torch.linalg.qr(rows.double().T)
        self.basis = basis.numpy()

    def read(self, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(attributes float64 [N, 7] of ORACLE_ATTRIBUTES, identity features [N, 256] free of what is meant)."""
        table, features = self.oracle.read(images)
        features = features.double().numpy()
        return table[list(ORACLE_ATTRIBUTES)].to_numpy(np.float64), features - features @ self.basis @ self.basis.T


@dataclass
class Effects:
    """What the matched edits of one method did.

    edits: a row per face, property and sign: asked, achieved (deviations of the finder), matched, pixel, drift.
    changes float64 [rows, C]: change of each of `columns` in its own deviations, rows as in `edits`.
    """

    edits: pd.DataFrame
    changes: np.ndarray
    columns: list[str] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """`matched_edits.csv`: edits and changes side by side."""
        return pd.concat([self.edits, pd.DataFrame(self.changes, self.edits.index, self.columns)], axis=1).round(DIGITS)

    @classmethod
    def of_table(cls, table: pd.DataFrame) -> Effects:
        """What a `matched_edits.csv` holds."""
        columns = list(table.columns[len(EDIT_COLUMNS) :])
        return cls(table[list(EDIT_COLUMNS)], table[columns].to_numpy(np.float64), columns)

    def rows(self, which: np.ndarray) -> Effects:
        """Those rows alone; which bool [rows]."""
        return Effects(self.edits[which].reset_index(drop=True), self.changes[which], self.columns)


def match(
    bench: Bench, editor: Editor, codes: np.ndarray, base: np.ndarray, groups, name: str, wanted: float
) -> tuple[np.ndarray, np.ndarray]:
    """Edits of one property alone whose achieved change is `wanted` deviations: (codes [N, D], achieved [N]).

    base float32 [N, 8]: the finder's scores of `codes`. The amount is corrected by what it achieved, a few rounds of
    the secant rule; the best round counts.
    """
    row, column = EDITED.index(name), PROPERTIES.index(name)
    base = base[:, column]
    amounts = np.full(len(codes), wanted, np.float64)
    best, achieved = codes.copy(), np.zeros(len(codes))
    low, low_change = np.zeros(len(codes)), np.zeros(len(codes))
    todo = np.arange(len(codes))
    for _ in range(ROUNDS):
        wish = np.zeros((len(todo), len(EDITED)), np.float32)
        wish[:, row] = amounts[todo]
        edited = editor.edit(codes[todo], [groups[k] for k in todo], wish)
        change = (bench.measure(edited, editor.position)[:, column] - base[todo]) / editor.score_sds[row]
        better = np.abs(change - wanted) < np.abs(achieved[todo] - wanted)
        best[todo[better]], achieved[todo[better]] = edited[better], change[better]
        slope = (change - low_change[todo]) / np.where(amounts[todo] == low[todo], 1, amounts[todo] - low[todo])
        following = amounts[todo] + (wanted - change) / np.where(slope > 0.1, slope, 0.1)
        low[todo], low_change[todo] = amounts[todo], change
        # Beyond four times the wish a direction has failed, not been matched.
        amounts[todo] = np.clip(following * np.sign(wanted), 0.05, 4 * abs(wanted)) * np.sign(wanted)
        todo = todo[np.abs(achieved[todo] - wanted) > MATCHED_WITHIN / 3]
        if not len(todo):
            break
    return best, achieved


def measure_effects(
    bench: Bench,
    editor: Editor,
    grouping: Grouping,
    seeds,
    graders: list[Grader],
    judge: Judge | None = None,
    progress=None,
) -> Effects:
    """Each property of each face alone, up and down by one achieved deviation: what else changed.

    Columns: the eight scores by every grader ("finder hair_color"), then the oracle's attributes ("yaw", …), each in
    its own deviation over the unedited faces (scores: over the pool). progress: called with the faces done.
    """
    seeds = list(seeds)
    codes = bench.encode(bench.latents(seeds), editor.position)
    base, about, who, pictures = _observe(bench, codes, editor.position, graders, judge)
    groups = grouping.assign(base[FINDER])
    columns = [f"{grader.name} {name}" for grader in graders for name in PROPERTIES]
    columns += [] if judge is None else list(ORACLE_ATTRIBUTES)
    spread = None if judge is None else np.maximum(about.std(0, ddof=1) if len(about) > 1 else 1.0, 1e-6)
    unit = 1.0 if judge is None else _between(who)
    rows, changes = [], []
    for name in EDITED:
        for sign in (1.0, -1.0):
            edited, achieved = match(bench, editor, codes, base[FINDER], groups, name, sign)
            scores, read, features, images = _observe(bench, edited, editor.position, graders, judge)
            parts = [(scores[grader.name] - base[grader.name]) / grader.sds for grader in graders]
            drift = np.full(len(seeds), np.nan)
            if judge is not None:
                parts.append((read - about) / spread)
                drift = np.linalg.norm(features - who, axis=1) / unit
            changes.append(np.concatenate(parts, 1))
            rows.append(
                pd.DataFrame(
                    {
                        "seed": seeds,
                        "group_name": groups,
                        "property": name,
                        "asked": sign,
                        "achieved": achieved,
                        "matched": np.abs(achieved - sign) <= MATCHED_WITHIN,
                        "pixel": outside_change(pictures, images, name),
                        "drift": drift,
                    }
                )
            )
            if progress is not None:
                progress(len(seeds))
    return Effects(pd.concat(rows, ignore_index=True), np.concatenate(changes), columns)


def leakage(effects: Effects) -> pd.DataFrame:
    """`leakage.csv`: a row per edited property and column, per achieved deviation, over the matched edits.

    signed: mean change over faces with its interval (what the direction drags along). up, down: the same of the edits
    that raise the property alone, and of those that lower it: what moves one way whichever way the property goes is
    seen in these only. size: mean of the absolute changes. edits, edits_up, edits_down: how many could be measured, at
    most one of a face and direction. intended: whether the column is what is meant.
    """
    rows = []
    for name in EDITED:
        mine = ((effects.edits["property"] == name) & effects.edits["matched"]).to_numpy()
        achieved, faces = (effects.edits.loc[mine, what].to_numpy() for what in ("achieved", "seed"))
        for k, column in enumerate(effects.columns):
            per_deviation = effects.changes[mine, k] / achieved
            mean, low, high = bootstrap(per_deviation, faces)
            size = face_mean(np.abs(per_deviation), faces)
            ways = {"up": achieved > 0, "down": achieved < 0}
            word = column.split(" ")[-1]
            intended = word in MEANT[name] if " " not in column else word == name
            row = {"property": name, "column": column, "signed": mean, "low": low, "high": high, "size": size}
            row |= {way: face_mean(per_deviation[which]) for way, which in ways.items()}
            counts = {f"_{way}": which for way, which in ways.items()} | {"": np.ones(len(faces), bool)}
            row |= {f"edits{way}": int(np.isfinite(per_deviation[which]).sum()) for way, which in counts.items()}
            rows.append({**row, "intended": intended})
    return pd.DataFrame(rows).round(DIGITS)


def cost(effects: Effects) -> pd.DataFrame:
    """`side_effects.csv`: per edited property: matched share, identity drift and pixel change of the matched edits."""
    rows = []
    for name in EDITED:
        part = effects.edits[effects.edits["property"] == name]
        matched = part[part["matched"]]
        row = {"property": name, "edits": len(part), "matched": float(part["matched"].mean())}
        for what in ("drift", "pixel"):
            row[what], row[f"{what}_low"], row[f"{what}_high"] = bootstrap(
                matched[what].to_numpy(), matched["seed"].to_numpy()
            )
        rows.append(row)
    return pd.DataFrame(rows).round(DIGITS)


def largest_leak(table: pd.DataFrame, ways: Sequence[str] = ("signed",)) -> tuple[str, float]:
    """What is dragged along most, and its mean signed change per deviation: ("eyes > second hairstyle", .12).

    ways: columns of `leakage` to look through; of "up" and "down" the name tells which: "eyes up > second hairstyle".
    A mean of one way of fewer than FEWEST_EDITS edits is passed over.
    """
    found = []
    for way in ways:
        enough = table[f"edits_{way}"] >= FEWEST_EDITS if way in WAYS else True
        others = table[~table["intended"] & table[way].notna() & enough]
        if len(others):
            worst = others.loc[others[way].abs().idxmax()]
            told = f"{worst['property']}{f' {way}' if way in WAYS else ''} > {worst['column']}"
            found.append((told, float(worst[way])))
    return max(found, key=lambda one: abs(one[1]), default=("-", float("nan")))


def outside_change(before: np.ndarray, after: np.ndarray, name: str) -> np.ndarray:
    """Mean absolute pixel change [N] (of 255) outside the property's region; pictures uint8 [N, H, W, 3]."""
    height, width = before.shape[1:3]
    top, bottom, left, right = REGIONS[name]
    outside = np.ones((height, width), bool)
    outside[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = False
    gap = np.abs(before[:, outside].astype(np.int16) - after[:, outside].astype(np.int16))
    return gap.mean((1, 2))


def _observe(bench: Bench, codes: np.ndarray, position: str, graders: list[Grader], judge: Judge | None):
    """(scores [N, 8] by grader, attributes [N, 7], features [N, F], pictures uint8 [N, H, W, 3]) of codes [N, D].

    Attributes and features as a Judge reads them, None without one.
    """
    from stylegan.sampling import to_uint8

    scores = {grader.name: [] for grader in graders}
    attributes, features, pictures = [], [], []
    for _, images in bench.draw(codes, position):
        pictures.append(to_uint8(images))
        for grader in graders:
            scores[grader.name].append(grader.scores(images))
        if judge is not None:
            read, who = judge.read(images)
            attributes.append(read)
            features.append(who)
    together = {name: np.concatenate(parts) for name, parts in scores.items()}
    if judge is None:
        return together, None, None, np.concatenate(pictures)
    return together, np.concatenate(attributes), np.concatenate(features), np.concatenate(pictures)


def _between(features: np.ndarray) -> float:
    """Mean distance between neighbouring rows, different people: the unit of drift."""
    return float(np.linalg.norm(np.diff(features, axis=0), axis=1).mean()) if len(features) > 1 else 1.0
