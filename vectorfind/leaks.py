"""What an edit drags along of head and person, and in how many ways that can be read."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vectorfind.effects import WAYS, Effects, leakage
from vectorfind.truth import true_attributes

NOTABLE = 0.1  # deviations per deviation from which on a table speaks of a leak
TRAITS = ("gender", "age", "quality", "glasses")


def scores_of(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a leakage table that are scores by some grader."""
    return table[table["column"].str.contains(" ")]


def person_of(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a leakage table that are what the oracle reads of head and person."""
    return table[~table["column"].str.contains(" ")]


def over_shared_edits(edits: dict[str, pd.DataFrame], names: tuple[str, str]) -> dict[str, pd.DataFrame]:
    """Leakage tables of two methods over the faces, properties and signs that both could bring to one deviation.

    edits: `matched_edits.csv` by method. A method that gives up on the hard faces looks gentle on the others. Empty
    where the two are one.
    """
    if len(set(names)) < 2:
        return {}
    keys = ["seed", "property", "asked"]
    first, other = (edits[name].loc[edits[name]["matched"], keys] for name in names)
    both = pd.MultiIndex.from_frame(first.merge(other, on=keys))
    found = {}
    for name in names:
        shared = pd.MultiIndex.from_frame(edits[name][keys]).isin(both)
        found[name] = leakage(Effects.of_table(edits[name]).rows(shared))
    return found


def person_units(stage, latent_map) -> pd.DataFrame:
    """Deviations of what the oracle reads, in its own units: a row per attribute.

    persona: among the test's unedited faces; all: among faces of the same seeds by the profile's base generator, people
    of every kind. follows: rank correlation, over the persona's faces, of the reading with the attribute that the
    factors behind w make, which latent_map reads (NaN where it is None). Empty in a world without an oracle.
    """
    import torch
    from scipy.stats import spearmanr

    from pipeline.command import resolve_device
    from pipeline.profile import Profile
    from stylegan.checkpoint import load_generator
    from stylegan.sampling import sample
    from vectorfind.effects import ORACLE_ATTRIBUTES
    from vectorfind.further import open_judge

    judge, bench, seeds = open_judge(stage), stage.bench, list(stage.plan.test_seeds)
    if judge is None:
        return pd.DataFrame()
    codes = bench.encode(bench.latents(seeds), "w")
    device = resolve_device(stage.options.device)
    everyone = load_generator(Profile.load(stage.options.profile).weight("generator"), device)
    faces = {
        "persona": (images for _, images in bench.draw(codes, "w")),
        "all": (images for _, _, images in sample(everyone, seeds, bench.batch, device)),
    }
    read = {name: np.concatenate([judge.read(i)[0] for i in some]) for name, some in faces.items()}
    units = pd.DataFrame({name: some.std(0, ddof=1) for name, some in read.items()}, index=list(ORACLE_ATTRIBUTES))
    if latent_map is None:
        return units.assign(follows=np.nan)
    true = true_attributes(latent_map, torch.from_numpy(codes))
    found = [spearmanr(read["persona"][:, k], true[name]).statistic for k, name in enumerate(units.index)]
    return units.assign(follows=found)


def in_units_of_all(table: pd.DataFrame, units: pd.DataFrame) -> pd.DataFrame:
    """A leakage table's `signed` in deviations of all faces instead of the persona's; units as of `person_units`."""
    return table.assign(signed=table["signed"] * table["column"].map(units["persona"] / units["all"]))


def in_deviations(table: pd.DataFrame, units: pd.DataFrame) -> pd.DataFrame:
    """A leakage table in the oracle's own units, in deviations of the persona."""
    if not len(table):
        return table
    numbers = ["signed", "low", "high", "size", *WAYS]
    return table.assign(**table[numbers].div(table["column"].map(units["persona"]), axis=0))


def beyond(table: pd.DataFrame, own_error: pd.DataFrame) -> pd.DataFrame:
    """A leakage table less what the oracle reads into renders of which nothing else has changed."""
    keys = ["property", "column"]
    own = own_error.set_index(keys)["signed"].reindex(pd.MultiIndex.from_frame(table[keys])).to_numpy()
    return table.assign(signed=table["signed"] - own)


def beside_renders(table: pd.DataFrame, own_error: pd.DataFrame) -> pd.DataFrame:
    """What the oracle reads into edits and into renders, with intervals, where either is NOTABLE."""
    both = person_of(table).merge(own_error, on=["property", "column"], suffixes=("", "_own"))
    notable = both[["signed", "signed_own"]].abs().max(axis=1) >= NOTABLE
    rows = []
    for row in both[notable & ~both["intended"]].itertuples():
        told = {"moved": row.property, "read": row.column}
        told |= {"edits": f"{row.signed:+.2f} ({row.low:+.2f} to {row.high:+.2f})"}
        told |= {"renders": f"{row.signed_own:+.2f} ({row.low_own:+.2f} to {row.high_own:+.2f})"}
        rows.append(told | {"beyond": f"{row.signed - row.signed_own:+.2f}"})
    return pd.DataFrame(rows, columns=["moved", "read", "edits", "renders", "beyond"])


def in_own_units(table: pd.DataFrame, units: pd.DataFrame) -> str:
    """The largest changes of the person in the oracle's own units: a deviation of what never varies is little."""
    person = person_of(table)
    person = person[~person["intended"] & person["column"].isin(TRAITS)]
    if not len(units) or not len(person):
        return ""
    told = []
    for column, part in person.groupby("column", sort=False):
        worst = part.loc[part["signed"].abs().idxmax()]
        own = worst["signed"] * units.loc[column, "persona"]
        told.append(f"{column} {own:+.3f} ({worst['signed']:+.2f} deviations)")
    return (
        "What the best method drags along of the person, per deviation, on the oracle's scales from 0 to 1: "
        + (
            ", ".join(told)
            + ". The faces of this generator hardly vary in these, so that their deviations are small; among "
            "all faces of the base generator the deviations are "
        )
        + ", ".join(
            f"{name} {units.loc[name, 'all']:.2f} (here {units.loc[name, 'persona']:.3f})"
            for name in units.index
            if name in set(person["column"])
        )
        + "."
        + _readable(units)
    )


def _readable(units: pd.DataFrame) -> str:
    """How far the oracle's readings among the persona's faces are readings of anything."""
    if units["follows"].isna().all():
        return ""
    told = ", ".join(f"{name} {r:+.2f}" for name, r in units["follows"].items())
    return (
        " Among the test's faces the oracle's readings follow what the factors behind the codes make with a rank "
        f"correlation of {told}. Where that is near 0 the oracle cannot tell one of these faces from another; a mean "
        "shift over all of them can still be real."
    )
