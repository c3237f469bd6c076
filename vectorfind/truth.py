"""What an edit truly moved: the factors of the virtual world behind a code, read off the latent map, not off a picture.

The base generator learnt to draw the factors that its latent map reads from w (`virtual_face.latent_map`), and
fine-tune v9 changes which w come up, hardly how they are drawn. So in this world an edited code itself tells what it
stands for, without the error of any network that looks at pictures.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from pipeline.artefacts import code_version, is_fresh, write_stamp
from pipeline.progress import progress
from vectorfind import effects
from vectorfind.bench import Bench
from vectorfind.editor import Editor
from vectorfind.effects import MATCHED_WITHIN, ORACLE_ATTRIBUTES, match
from vectorfind.evaluate import DIGITS
from vectorfind.groups import Grouping
from vectorfind.names import EDITED
from vectorfind.pool import pool_digest
from vectorfind.protocol import bootstrap

# The factor that is meant by an edit of each property.
MEANT = {"eyes": "eyes", "mouth": "mouth", "pose": "roll"}
FACES = 100
# Of the world's people, to tell what a deviation of an attribute is.
PEOPLE = 4000
# Share of its length by which a weight may have changed; the bundled v9 has changed none by more than .002.
ALIKE = 0.05


def w_of(generator, codes: torch.Tensor, position: str) -> torch.Tensor:
    """w [N, w_dim] of codes [N, D] at any position, as `Generator.decode` goes on from them."""
    with torch.inference_mode():
        if position == "z":
            label = codes[:, generator.z_dim :] if generator.label_size else None
            return generator.encode(codes[:, : generator.z_dim], label, "w")
        if position == "mapping_split1":
            codes = generator.mapping.split1_to_split2(codes)
        return generator.mapping.split2_to_w(codes) if position.startswith("mapping_split") else codes


def true_attributes(latent_map, w: torch.Tensor) -> pd.DataFrame:
    """What the factors behind w [N, w_dim] make of head and person: a column for each of ORACLE_ATTRIBUTES."""
    return _attributes(latent_map.factors(latent_map.p(w.cpu())))


def _attributes(factors: torch.Tensor) -> pd.DataFrame:
    from virtual_face.population import head_parameters

    parameters = head_parameters(factors)
    return pd.DataFrame({name: parameters[name].numpy() for name in ORACLE_ATTRIBUTES})


def draws_alike(generator, base) -> bool:
    """Whether the synthesis network is still the base's, within ALIKE of each of its weights' length."""
    mine, known = generator.synthesis.state_dict(), base.synthesis.state_dict()
    if {name: value.shape for name, value in mine.items()} != {name: value.shape for name, value in known.items()}:
        return False
    weights = [name for name, value in known.items() if value.is_floating_point() and "noise" not in name]
    return all((mine[name].cpu() - known[name]).norm() <= ALIKE * known[name].norm() for name in weights)


def factor_moves(bench: Bench, editor: Editor, grouping: Grouping, latent_map, seeds, advance=None) -> pd.DataFrame:
    """A row per face, property and sign: seed, property, achieved (deviations), matched, the move of every factor.

    Each property is moved alone by one achieved deviation of the finder, as for the side effects; moves are per
    achieved deviation, in deviations of the factors among all people. Columns `true …`: the same of ORACLE_ATTRIBUTES,
    which the factors make together (a head that tilts turns a little). advance: called with the faces done.
    """
    from virtual_face.population import FACTORS, factors_from_seeds

    spread = _attributes(factors_from_seeds(list(range(PEOPLE)))).std()

    codes = bench.encode(bench.latents(seeds), editor.position)
    base = bench.measure(codes, editor.position)
    groups = grouping.assign(base)

    def behind(some: np.ndarray) -> pd.DataFrame:
        w = w_of(bench.generator, torch.from_numpy(some).to(bench.device), editor.position)
        factors = latent_map.factors(latent_map.p(w.cpu()))
        true = (_attributes(factors) / spread).add_prefix("true ")
        return pd.concat([pd.DataFrame(factors.numpy(), columns=list(FACTORS)), true], axis=1)

    start, tables = behind(codes), []
    for name in EDITED:
        for sign in (1.0, -1.0):
            edited, achieved = match(bench, editor, codes, base, groups, name, sign)
            matched = np.abs(achieved - sign) <= MATCHED_WITHIN
            moves = (behind(edited) - start).div(np.where(matched, achieved, 1), axis=0)
            about = pd.DataFrame({"seed": list(seeds), "property": name, "achieved": achieved, "matched": matched})
            tables.append(pd.concat([about, moves], axis=1))
            if advance is not None:
                advance(len(codes))
    return pd.concat(tables, ignore_index=True)


def summary(moves: pd.DataFrame) -> pd.DataFrame:
    """A row per property: mean move of the factor that is meant, what moves beside it, the three that move most.

    `beside`: length of a face's move along all other factors together, median over the matched edits.
    """
    from virtual_face.population import FACTORS

    rows = []
    for name in EDITED:
        part = moves[(moves["property"] == name) & moves["matched"]]
        others = [factor for factor in FACTORS if factor != MEANT[name]]
        mean, low, high = bootstrap(part[MEANT[name]].to_numpy(), part["seed"].to_numpy())
        lengths = np.sqrt((part[others] ** 2).sum(axis=1))
        means = part[others].mean()
        most = means.loc[means.abs().sort_values(ascending=False).index[:3]]
        row = {"property": name, "factor": MEANT[name], "moves": mean, "low": low, "high": high}
        row |= {"beside": float(lengths.median()), "edits": len(part)}
        rows.append(row | {"most": ", ".join(f"{factor} {move:+.2f}" for factor, move in most.items())})
    return pd.DataFrame(rows).round(DIGITS)


def person_moves(moves: pd.DataFrame) -> pd.DataFrame:
    """Mean moves over faces of what the factors make of head and person: some columns of `effects.leakage`."""
    rows = []
    for name in EDITED:
        part = moves[(moves["property"] == name) & moves["matched"]]
        for word in ORACLE_ATTRIBUTES:
            mean, low, high = bootstrap(part[f"true {word}"].to_numpy(), part["seed"].to_numpy())
            row = {"property": name, "column": word, "signed": mean, "low": low, "high": high}
            rows.append({**row, "intended": word in effects.MEANT[name]})
    return pd.DataFrame(rows)


def latent_map_behind(stage):
    """The LatentMap by which the stage's generator draws.

    None in a world without one, and for a generator that no longer draws as the profile's base does.
    """
    from pipeline.profile import Profile
    from stylegan.checkpoint import load_generator
    from vectorfind.further import oracle_file
    from virtual_face.latent_map import latent_map_of

    if not oracle_file(stage):
        return None
    base = load_generator(Profile.load(stage.options.profile).weight("generator"), "cpu")
    return latent_map_of(base) if draws_alike(stage.bench.generator, base) else None


def moves_of(stage, latent_map) -> pd.DataFrame:
    """`factor_moves.csv` of a setting, measured where it is missing or stale; empty without a latent map."""
    from pipeline.profile import Profile
    from vectorfind.further import write_csv
    from vectorfind.grounds import CODE

    if latent_map is None:
        return pd.DataFrame()
    path, seeds = stage.files.judged("factor_moves.csv"), stage.plan.test_seeds[:FACES]
    base = Profile.load(stage.options.profile).weight("generator")
    about = {
        "options": {"pool": pool_digest(stage.files.pool), "faces": len(seeds)},
        "seed": seeds[0],
        "inputs": {**stage.inputs(directions=stage.files.directions), "base": base},
        "code": code_version(
            "vectorfind.truth", "virtual_face.latent_map", "virtual_face.population", *CODE["effects"]
        ),
    }
    if stage.options.force or not is_fresh(path, **about)[0]:
        editor, grouping = stage.open_directions()
        with progress(2 * len(EDITED) * len(seeds), "factors behind edits") as bar:
            write_csv(path, factor_moves(stage.bench, editor, grouping, latent_map, seeds, bar.update))
        write_stamp(path, command="run_vectorfind.py compare", rows=2 * len(EDITED) * len(seeds), **about)
    return pd.read_csv(path)
