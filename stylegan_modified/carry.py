"""Carrying weights from one rung to the next: base -> conditional (v1 to v5, v8) -> split mapping (v9), key by key.

The conditional net of a base starts out equal to it for zero labels, without any correction of weights. The embedding
of a zero label is zero, so the pixel norm over z and embedding yields sqrt((Z + d) / Z) times the norm over z alone;
the run-time weight of dense0 divides by sqrt(Z + d) instead of sqrt(Z). Both factors cancel, so dense0 keeps its
stored columns.
"""

from __future__ import annotations

import math

import torch

from pipeline.errors import PipelineError
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan.layers import SLOPE
from stylegan.mapping import LR_MUL
from stylegan_modified.versions import DENSE0, LABEL_DIM, LABEL_MATRIX, LABELS, Version

LABEL_STD = 0.1  # of the fresh label matrix: a unit label then moves w by a few per cent
BRANCH_SHARE = 0.02  # share of the energy of w that the new branch of v9 starts with
BRANCH_ALIVE = 0.01
PROBES = 1024


def conditional_generator(
    base: Generator, label_size: int = LABELS, label_dim: int = LABEL_DIM, seed: int = 0
) -> Generator:
    """The Oh-LoRA conditional net with the weights of an unconditional one; equal to it for zero labels.

    New are `mapping.label_weight` (small) and the label columns of dense0 (spread like its other columns).
    """
    if base.label_size or base.split:
        raise PipelineError("a conditional generator starts from an unconditional one without a split mapping")
    random = torch.Generator().manual_seed(seed)
    result = _empty_like(base, Generator, label_size=label_size, label_dim=label_dim)
    state = base.state_dict()
    old = state["mapping.dense0.weight"]
    columns = torch.randn(old.shape[0], label_dim, generator=random).to(old.device) * old.float().std()
    matrix = torch.randn(label_size, label_dim, generator=random) * LABEL_STD
    new = {"mapping.dense0.weight": torch.cat([old, columns], dim=1), "mapping.label_weight": matrix}
    _load(result, state, new, added={"mapping.label_weight"}, resized={"mapping.dense0.weight"})
    return result


def relabelled_generator(source: Generator, version: Version, seed: int = 0) -> Generator:
    """The conditional net of a version with the weights of the previous rung; equal to it for zero labels.

    Columns of dense0 are carried over one by one, label rows by property (eyes, mouth and pose of seven); what is new
    starts small. Rows of labels that the rung does not obey are zero, so that they change nothing. With label_dim 0 the
    label itself is appended (v5): its columns of dense0 are those of the embedding times the old label matrix.
    Published (`dropped`): dense0, and of all rungs but v2 the label matrix, are thrown away and start at random.
    """
    if source.split:
        raise PipelineError(f"{version.name} starts from a generator without a split mapping")
    random = torch.Generator().manual_seed(seed)
    size, width = version.label_size, version.label_dim or version.label_size
    result = _empty_like(source, Generator, label_size=size, label_dim=width)
    state = source.state_dict()
    old, known = state["mapping.dense0.weight"], source.mapping.label_dim
    device = old.device
    if DENSE0 in version.dropped:
        weight = torch.randn(old.shape[0], source.z_dim + width, generator=random).to(device) / LR_MUL
        matrix = torch.randn(size, width, generator=random).to(device)
        if known and LABEL_MATRIX not in version.dropped:
            matrix = state["mapping.label_weight"]
    else:
        rows = {(7, 3): [0, 3, 4]}.get((source.label_size, size), list(range(source.label_size)))
        carried = state["mapping.label_weight"][rows] if known else old.new_zeros(size, 0)
        columns = old[:, source.z_dim :]
        if not version.label_dim and known:
            columns, carried = columns @ carried.T, old.new_zeros(size, width)
        if columns.shape[1] > width or len(carried) != size:
            raise PipelineError(f"{version.name} cannot take over {source.label_size} labels of {known} numbers")
        fresh = width - columns.shape[1]
        spread = torch.randn(old.shape[0], fresh, generator=random).to(device) * old[:, : source.z_dim].std()
        weight = torch.cat([old[:, : source.z_dim], columns, spread], dim=1)
        small = torch.randn(size, width - carried.shape[1], generator=random).to(device) * LABEL_STD
        matrix = torch.cat([carried, small], dim=1)
        if not version.published:
            matrix[[k for k in range(size) if k not in version.obeyed]] = 0.0
    if not version.label_dim:
        matrix = torch.eye(size, device=device)
    new = {"mapping.dense0.weight": weight, "mapping.label_weight": matrix}
    added = set() if known else {"mapping.label_weight"}
    _load(result, state, new, added=added, resized=set(new) - added)
    return result


def split_generator(
    source: Generator,
    split_width: int = 2048,
    share: float = BRANCH_SHARE,
    seed: int = 0,
    stored: float | None = None,
) -> Generator:
    """The v9 net: all weights of `source`, and a second mapping branch that carries `share` of the energy of w.

    The published initial values N(0, 0.15) are 0.15 % of the effective scale, and that branch never came to life. Here
    both layers start at their full scale, the pre-activations of the second are centred, and it is scaled to the share.
    w_avg moves by the mean that the branch adds, so that truncation keeps its centre. stored: start at the published
    spread of stored values instead.
    """
    if source.split:
        raise PipelineError("this generator has a split mapping already")
    random = torch.Generator().manual_seed(seed)
    result = _empty_like(source, Generator, split=True, split_width=split_width)
    hidden, w_dim = source.settings["mapping_width"], source.w_dim
    new = {
        "mapping.dense_new0.weight": torch.randn(split_width, hidden, generator=random) / LR_MUL,
        "mapping.dense_new0.bias": torch.zeros(split_width),
        "mapping.dense_new1.weight": torch.randn(w_dim, split_width, generator=random) / LR_MUL,
        "mapping.dense_new1.bias": torch.zeros(w_dim),
    }
    if stored is not None:
        new = {name: torch.randn(value.shape, generator=random) * stored for name, value in new.items()}
    _load(result, source.state_dict(), new, added=set(new), resized=set())
    if stored is None:
        _scale_branch(result, share)
    return result


def labelled_discriminator(
    base: Discriminator, label_size: int = LABELS, minibatch_std_group: int = 16
) -> Discriminator:
    """The discriminator with the label appended to its last features; it starts out equal to `base` for every label.

    The last layer's stored weights grow by sqrt((C + L) / C), because its fan-in does; label columns start at zero. The
    group of the minibatch deviation is that of the published conditional nets, which changes scores of larger batches.
    """
    if base.label_size:
        raise PipelineError("a labelled discriminator starts from one without labels")
    result = _empty_like(
        base, Discriminator, label_size=label_size, label_concat=True, minibatch_std_group=minibatch_std_group
    )
    state, last = base.state_dict(), f"{base.last}.weight"
    features = state[last].shape[1]
    grown = state[last] * math.sqrt((features + label_size) / features)
    new = {last: torch.cat([grown, grown.new_zeros(1, label_size)], dim=1)}
    _load(result, state, new, added=set(), resized={last})
    return result


def fresh_discriminator(generator: Generator, seed: int = 0) -> Discriminator:
    """An untrained discriminator of a generator's size and widths."""
    names = ("resolution", "channel_base", "channel_max")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Discriminator(**{name: generator.settings[name] for name in names})


@torch.no_grad()
def branch_share(generator: Generator, count: int = PROBES) -> float:
    """Share of the new branch in the energy of w: |w2'|^2 / (|w1'|^2 + |w2'|^2) over fixed latents, zero labels."""
    first, second = _branches(generator, count)
    energy = second.square().sum()
    return float(energy / (first.square().sum() + energy))


@torch.no_grad()
def _branches(generator: Generator, count: int = PROBES) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(20250607))
    mid = generator.encode(z.to(next(generator.parameters()).device), position="mapping_split2")
    return mid[:, : generator.w_dim], mid[:, generator.w_dim :]


@torch.no_grad()
def _scale_branch(generator: Generator, share: float) -> None:
    layer = generator.mapping.dense_new1
    first, second = _branches(generator)
    before = torch.where(second > 0, second, second / SLOPE)  # leaky ReLU undone
    layer.bias -= before.mean(0) / LR_MUL
    energy = _branches(generator)[1].square().sum()
    # Leaky ReLU is linear in a common factor, so one scaling meets the share exactly.
    factor = math.sqrt(share / (1.0 - share) * float(first.square().sum() / energy))
    layer.weight *= factor
    layer.bias *= factor
    generator.truncation.w_avg += _branches(generator)[1].mean(0)


def _empty_like(source, kind: type, **changes):
    """A fresh net with another's settings, on its device.

    Its random start does not matter and leaves torch's generator alone.
    """
    with torch.random.fork_rng(devices=[]):
        return kind(**{**source.settings, **changes}).train(source.training).to(next(source.parameters()).device)


def _load(target, old: dict, new: dict, added: set[str], resized: set[str]) -> None:
    """Load old and new weights; PipelineError unless exactly the named keys are added and resized."""
    own = target.state_dict()
    problems = {
        "missing in the source": set(own) - set(old) - added,
        "unexpected in the source": set(old) - set(own),
        "already in the source": added & set(old),
        "of another shape": {k for k in own if k in old and own[k].shape != old[k].shape} - resized,
        "wrongly made": {k for k in new if new[k].shape != own[k].shape},
    }
    lines = [f"{name}: {', '.join(sorted(keys))}" for name, keys in problems.items() if keys]
    if lines:
        raise PipelineError(f"weights cannot be carried over; keys {'; '.join(lines)}")
    target.load_state_dict({**old, **new}, strict=True)
