"""From a pool to a calibrated set of directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import torch

from pipeline.errors import PipelineError
from pipeline.progress import progress as progress_bar
from vectorfind.bench import Bench, evenly_spaced
from vectorfind.calibration import calibrate
from vectorfind.directions import DirectionSet
from vectorfind.grid import ends_of
from vectorfind.groups import UNGROUPED, Grouping
from vectorfind.mended import fit_svm_mended
from vectorfind.methods import METHODS, Fits, MethodOptions, along_codes, fit_ridge, project_off
from vectorfind.names import EDITED, PROPERTIES
from vectorfind.pool import Pool
from vectorfind.score_model import ScoreModel
from vectorfind.setting import Setting

# So many faces of the pool are parsed.
PERSON_ROWS = 10_000
# Over so many faces of the pool the gradients of the closed loop are averaged.
SLOPE_FACES = 256
# What conditional directions leave alone besides the other edited properties.
KEPT = tuple(name for name in PROPERTIES if name not in EDITED)
CALIBRATION = (
    "probe: faces of the group from the pool, decoded at plus and minus one step; central difference of the score"
)


def find_directions(
    bench: Bench,
    pool: Pool,
    grouping: Grouping,
    setting: Setting,
    options: MethodOptions,
    progress: Callable[[int], None] | None = None,
    as_normals: bool = False,
    looks=None,
) -> tuple[DirectionSet, pd.DataFrame]:
    """Fit one direction per edited property and group, then measure its sign and step.

    Mended directions are moves along which codes vary; with as_normals they stay normal to the levels of the score, for
    who frees them of others later. progress: called with the number of directions fitted, then of faces probed. looks:
    reads how faces look (`vectorfind.models.Looks`), for a setting that leaves that alone. Returns the set and a table
    with a row per direction: faces of the group, source, samples, accuracy, convergence, what the calibration found.
    """
    sds = edited_deviations(pool)
    codes, scores = pool.codes(setting.position), pool.scores
    groups, names = grouping.assign(scores), grouping.names
    held = look_fits(bench, codes, setting.position, looks, options) if setting.looks else {}
    fits = find_fits(codes, scores, groups, names, setting, options, progress, held)
    if setting.mended and not setting.conditional and not as_normals:
        fits = along_codes(fits, _covariance(codes, setting.position))
    units = np.stack([np.stack([fits[name, group].normal for group in names]) for name in EDITED])
    found = calibrate(bench, codes, groups, names, units, EDITED, setting.position, sds, progress)
    directions = DirectionSet(
        properties=EDITED,
        groups=tuple(names),
        position=setting.position,
        units=found.units,
        steps=found.steps,
        score_sds=sds.astype(np.float32),
        grouping=grouping.kind,
        cuts=grouping.cuts,
        provenance=provenance_of(bench, pool, setting, asdict(options)) | {"calibration": CALIBRATION},
    )
    rows = []
    for i, name in enumerate(EDITED):
        for j, group in enumerate(names):
            fit = fits[name, group]
            rows.append(
                {
                    "property": name,
                    "group_name": group,
                    "faces": int((groups == group).sum()),
                    "source": fit.source,
                    "samples": fit.samples,
                    "accuracy": fit.accuracy,
                    "held_out": fit.held_out,
                    "converged": fit.converged,
                    "iterations": fit.iterations,
                    "shrinkage": fit.shrinkage,
                    "step": float(found.steps[i, j]),
                    "flipped": bool(found.flipped[i, j]),
                    "capped": bool(found.capped[i, j]),
                }
            )
    return directions, pd.DataFrame(rows).round(6)


def edited_deviations(pool: Pool) -> np.ndarray:
    """Deviations float64 [3] of the edited scores over the pool; PipelineError where one does not vary."""
    columns = [pool.score(name) for name in EDITED]
    sds = np.array([np.nanstd(one, ddof=1) if np.isfinite(one).sum() > 1 else 0.0 for one in columns])
    for name, sd in zip(EDITED, sds, strict=True):
        if not sd > 0:
            raise PipelineError(
                f"{pool.folder}: the {name} score is the same for all of its {len(pool)} samples, or was not measured: "
                "use a scorer that tells faces apart (--scorer), or more samples (-n)"
            )
    return sds


def find_editor(bench: Bench, pool: Pool, grouping: Grouping, setting: Setting, options: MethodOptions, identity):
    """The editor of any method, and its table of fits (None for the closed loop).

    identity: called for what the setting's edits hold a person by.
    """
    if setting.is_loop:
        return make_loop(bench, pool, grouping, setting, identity(), options.seed), None
    find = find_directions if setting.is_vector else find_networks
    return find(bench, pool, grouping, setting, options, looks=identity() if setting.looks else None)


def provenance_of(bench: Bench, pool: Pool, setting: Setting, options: dict) -> dict:
    """What an editor remembers of where it comes from."""
    return {
        "generator_hash": bench.generator_hash,
        "scorer_hash": bench.scorer_hash,
        "method": setting.method,
        "conditional": setting.conditional,
        "mended": setting.mended,
        "looks": setting.looks,
        "options": options,
        "pool_rows": len(pool),
        "pool_seed_start": pool.plan.seed_start,
    }


def find_fits(
    codes,
    scores: np.ndarray,
    groups: np.ndarray,
    names,
    setting: Setting,
    options: MethodOptions,
    progress: Callable[[int], None] | None = None,
    held: Fits | None = None,
) -> Fits:
    """Fits of the edited properties in every group by the setting's method.

    A conditional setting leaves the other two properties, hair and background alone (all linear, as the pool says). A
    mended one does so by moves along which codes vary (`project_off` with their covariance), not by orthogonal ones.
    Other fits are normals to the levels of their score, mended or not. held: fits over all faces of what is left alone
    besides (`look_fits`).
    """
    fit = fit_svm_mended if setting.mended and setting.method == "svm" else METHODS[setting.method]
    if not setting.conditional:
        return fit(codes, scores, groups, names, EDITED, options, progress)
    if setting.method == "ridge":
        # One pass over the pool serves what is edited and what is kept.
        every = fit_ridge(codes, scores, groups, names, PROPERTIES, options)
        if progress is not None:
            progress(len(EDITED) * len(names))
    else:
        every = fit(codes, scores, groups, names, EDITED, options, progress)
        every |= fit_ridge(codes, scores, groups, names, KEPT, options)
    fits, kept = ({key: found for key, found in every.items() if key[0] in some} for some in (EDITED, KEPT))
    kept |= {(name, group): found for (name, _), found in (held or {}).items() for group in names}
    return project_off(fits, kept, _covariance(codes, setting.position) if setting.mended else None)


def _covariance(codes: np.ndarray, position: str) -> np.ndarray:
    """Covariance float64 [D, D] of codes, shrunk."""
    from vectorfind.closed_loop import code_factor

    factor = code_factor(codes, position)
    return (factor @ factor.T).astype(np.float64)


def look_fits(bench: Bench, codes: np.ndarray, position: str, looks, options: MethodOptions) -> Fits:
    """Fits over all faces of how they look: which way each reading of looks changes."""
    read = read_person(bench, codes, position, looks)
    readings = tuple(f"look {k}" for k in range(read.shape[1]))
    everyone = np.full(len(codes), UNGROUPED)
    return fit_ridge(codes, read, everyone, [UNGROUPED], readings, options, known=readings)


def _kept_normals(codes: np.ndarray, scores: np.ndarray, options: MethodOptions) -> np.ndarray:
    """Normals [K, D] of hair, background and hairstyle over all faces."""
    everyone = np.full(len(codes), UNGROUPED)
    fits = fit_ridge(codes, scores, everyone, [UNGROUPED], KEPT, options)
    return np.stack([fits[name, UNGROUPED].normal for name in KEPT])


def find_networks(
    bench: Bench,
    pool: Pool,
    grouping: Grouping,
    setting: Setting,
    options: MethodOptions,
    progress: Callable[[int], None] | None = None,
    looks=None,
):
    """`gradient`: a network per property; `mixed`: one for the eyes, the SVM for mouth and pose (VectorFind v9).

    looks: see `find_directions`. Returns (NetworkEditor, table of fits; `accuracy` is the correlation on the held-out
    tenth, `iterations` epochs).
    """
    from vectorfind.closed_loop import code_factor
    from vectorfind.network_editor import PROBED_FACES, NetworkEditor
    from vectorfind.network_training import MENDED, PUBLISHED, train_net

    training = replace(MENDED if setting.mended else PUBLISHED, seed=options.seed)
    sds = edited_deviations(pool).astype(np.float32)
    rows = np.flatnonzero(np.isfinite(pool.scores).all(axis=1))
    codes = pool.codes(setting.position)
    inputs = codes[rows]
    mean, spread = np.zeros(inputs.shape[1], np.float32), np.ones(inputs.shape[1], np.float32)
    if training.standardised:
        mean, spread = _standardise(inputs)
    nets, table = {}, []
    for name in EDITED if setting.method == "gradient" else EDITED[:1]:
        trained = train_net(inputs, pool.score(name)[rows], training, progress)
        nets[name] = trained.net
        row = {"property": name, "group_name": UNGROUPED, "faces": len(rows), "source": "network"}
        row |= {"samples": len(rows), "accuracy": trained.corr, "held_out": trained.held_out}
        row |= {"converged": trained.converged, "iterations": trained.epochs, "shrinkage": np.nan}
        table.append(row)
    del inputs  # of a large pool gigabytes, which the SVMs need
    vectors, more = None, None
    if setting.method == "mixed":
        plain = replace(setting, method="svm", conditional=False, looks=False)
        vectors, more = find_directions(bench, pool, grouping, plain, options, progress, setting.conditional)
        more = more[more["property"] != EDITED[0]].copy()
    kept = _kept_normals(codes, pool.scores, options) if setting.conditional else None
    if setting.looks:
        held = look_fits(bench, codes, setting.position, looks, options)
        kept = np.concatenate([kept, [fit.normal for fit in held.values()]])
    about = provenance_of(bench, pool, setting, {**asdict(options), "training": asdict(training)})
    editor = NetworkEditor(
        position=setting.position,
        nets=nets,
        mean=mean,
        spread=spread,
        score_sds=sds,
        steps={},
        substeps=training.substeps,
        factor=code_factor(codes, setting.position) if setting.mended else None,
        kept=kept,
        vectors=vectors,
        grouping=grouping.kind,
        cuts=grouping.cuts,
        provenance=about,
    )
    probed = np.linspace(0, len(rows) - 1, min(PROBED_FACES, len(rows))).astype(int)
    capped, flipped = editor.calibrate(bench, codes[rows[probed]], grouping.assign(pool.scores[rows[probed]]))
    fits = pd.DataFrame(table)
    fits = fits if more is None else pd.concat([fits, more], ignore_index=True)
    for name in editor.calibrated:
        told = {"step": editor.steps[name], "flipped": bool(flipped[name]), "capped": bool(capped[name])}
        fits.loc[fits["property"] == name, list(told)] = list(told.values())
    return editor, fits.astype({"flipped": bool, "capped": bool}).round(6)


def _standardise(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardise codes float32 [n, D] in place, as a copy of a large pool is gigabytes; (mean [D], spread [D]).

    Dimensions that hardly vary become 0 and have spread 0: they would keep arbitrary weights, and a gradient would
    spend its length on them.
    """
    codes -= (mean := codes.mean(0))
    squares = sum((part.astype(np.float64) ** 2).sum(0) for part in np.array_split(codes, -(-len(codes) // 4096)))
    spread = np.sqrt(squares / len(codes))
    spread = np.where(spread > 1e-3 * spread.max(), spread, 0.0).astype(np.float32)
    codes *= np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 0).astype(np.float32)
    return mean, spread


def make_loop(bench: Bench, pool: Pool, grouping: Grouping, setting: Setting, identity=None, seed: int = 0):
    """The closed loop at a position, or the one that a model leads: what the pool tells about codes and scores.

    identity: reads what should stay of a person (`vectorfind.models.open_identity`), or None. seed: of the model's
    training. The minutes that faces and training take are shown.
    """
    from vectorfind.closed_loop import ClosedLoop, LoopOptions, code_factor, identity_scale
    from vectorfind.model_loop import ModelLoop, ModelLoopOptions

    codes = pool.codes(setting.position)
    edited_deviations(pool)  # a score that never varies cannot be edited
    sds = np.nanstd(pool.scores, axis=0, ddof=1).astype(np.float32)
    sds[sds == 0] = 1  # nor held, and need not be
    factor = code_factor(codes, setting.position)
    known = (bench, setting.position, factor, sds, grouping.kind, grouping.cuts)
    if setting.method == "model_loop":
        options = ModelLoopOptions()
        readings, spreads = pool.scores, sds
        if identity is not None:
            more = read_person(bench, codes, setting.position, identity)
            readings = np.concatenate([readings, more], 1)
            spread = np.nanstd(more, axis=0, ddof=1)
            spreads = np.concatenate([sds, np.where(spread > 1e-6, spread, 1)])
        with progress_bar(0, "fitting a model of the scores (epochs)") as bar:
            model = ScoreModel.fit(codes, readings, spreads, seed, bar.update)
        held = {"model_r": dict(zip(PROPERTIES, model.held_r.round(4).tolist(), strict=False))}
        held["person_r"] = model.held_r[len(PROPERTIES) :].round(4).tolist()
        about = provenance_of(bench, pool, setting, asdict(options)) | held
        ends = ends_of(pool.scores) / sds[:, None]
        return ModelLoop(*known, options, provenance=about, model=model, ends=ends)
    options = LoopOptions()
    scale = 1.0 if identity is None else identity_scale(bench, codes[: min(64, len(codes))], setting.position, identity)
    about = provenance_of(bench, pool, setting, asdict(options)) | {"identity": identity is not None}
    slopes = _mean_slopes(bench, codes, setting.position, factor, sds)
    return ClosedLoop(*known, options, identity, scale, about, slopes)


def _mean_slopes(bench: Bench, codes, position: str, factor: np.ndarray, sds: np.ndarray) -> np.ndarray:
    """Slopes float32 [8, D] in the mean over evenly spaced faces of the pool; see `slopes_at`."""
    from vectorfind.closed_loop import slopes_at

    rows = evenly_spaced(len(codes), SLOPE_FACES)
    found = np.zeros((len(PROPERTIES), codes.shape[1]))
    with progress_bar(len(rows), "gradients through generator and scorer (faces)") as bar:
        for start in range(0, len(rows), bench.batch):
            part = rows[start : start + bench.batch]
            found += slopes_at(bench, codes[part], position, factor, sds).sum(0)
            bar.update(len(part))
    return (found / len(rows)).astype(np.float32)


def read_person(bench: Bench, codes, position: str, looks) -> np.ndarray:
    """What should stay of a person: readings [n, R] by looks (`vectorfind.models.Looks`).

    Nothing of the filter CNNs: their hidden features see the eyes open, and a loop that holds them lifts the brows and
    changes the iris until they no longer do; so, less so, does what they say of gender and glasses. Read from at most
    PERSON_ROWS codes, evenly spaced; NaN in the other rows, and where a face could not be measured.
    """
    rows = evenly_spaced(len(codes), PERSON_ROWS)
    parts = []
    with torch.no_grad(), progress_bar(len(rows), "reading how faces look") as bar:
        for _, images in bench.draw(codes[rows], position):
            parts.append(looks(images))
            bar.update(len(parts[-1]))
    read = np.concatenate(parts)
    found = np.full((len(codes), read.shape[1]), np.nan, np.float32)
    found[rows] = read
    return found


def accuracy_table(fits: pd.DataFrame) -> pd.DataFrame:
    """One row per property: accuracy over the groups' hold-outs (as published), and counts of doubtful fits.

    NaN where nothing was held out. The fit to the whole pool that serves groups with too few faces counts once.
    """
    rows = []
    for name, part in fits.groupby("property", sort=False):
        pooled = part["source"] == "pooled"
        told = pd.concat([part[~pooled], part[pooled].head(1)])
        told = told[told["accuracy"].notna()]
        weights = told["held_out"].where(told["held_out"] > 0, told["samples"])
        rows.append(
            {
                "property": name,
                "accuracy": float((told["accuracy"] * weights).sum() / weights.sum()) if len(told) else float("nan"),
                "held_out": int(told["held_out"].sum()),
                "unconverged": int((~part["converged"]).sum()),
                "flipped": int(part["flipped"].sum()),
                "capped": int(part["capped"].sum()),
                "pooled_groups": int(pooled.sum()),
            }
        )
    return pd.DataFrame(rows)


def finite_scores(pool: Pool) -> tuple[np.ndarray, pd.DataFrame]:
    """(rows whose eight scores are all measured, those scores as a table)."""
    rows = np.flatnonzero(np.isfinite(pool.scores).all(axis=1))
    return rows, pd.DataFrame(pool.scores[rows], columns=list(PROPERTIES))
