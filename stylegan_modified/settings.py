"""The numbers of a fine-tuning, and how a profile gives them: [finetune] and sections below it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from pipeline.profile import Profile
from stylegan_modified.versions import VERSIONS


@dataclass(frozen=True)
class Rates:
    """What the trainer needs; rates are those of effective weights (spread 1), whatever the layer's multiplier."""

    mapping: float = 2e-4
    """Eight layers add up: at 1e-3 one step turns w by a tenth, and the discriminator never catches up."""
    synthesis: float = 1e-4
    discriminator: float = 2e-3
    r1_gamma: float = 1.0
    r1_every: int = 16
    average_images: float = 2000.0
    """Half life of the running average of the generator, in generated images."""
    warm_steps: int = 0
    """First steps that train D alone, all of its blocks: for a discriminator that has never seen these faces."""
    guidance: float = 0.0
    """Weight of the filter CNNs' pull toward the persona in the generator's loss; 0 leaves all to the discriminator."""
    margin: float = 1.0
    """Log-odds beyond which a filter CNN stops pulling: a face that passes is left as it is."""
    anchor: float = 0.0
    """Weight of the mean squared step of w from where the rung began, in units of w's variance: who one latent is."""
    obey: float = 0.0
    """Weight of the squared error between the label and what the property CNN reads, eyes, mouth and pose."""
    label: float = 2e-2
    """Rate of the label matrix, which is stored at its effective size."""
    momentum: float = 0.0
    """First beta of Adam for the generator: 0 against a discriminator, more where a fixed scorer leads."""
    encoder: float = 1e-4
    """Rate of the encoder of v3; a tenth of it in the published form."""
    reduced: bool = False
    """Convolutions in bfloat16."""


@dataclass(frozen=True)
class Finetuning:
    """What stage 5 needs besides the rates."""

    steps: int = 0
    """Steps of v9."""
    v1_steps: int = 0
    """Steps of v1 before it, when training starts from the base generator."""
    batch: int = 8
    """Faces of one update, over all processes."""
    accumulate: int = 1
    """Parts in which one process works on its share of a batch: less memory, and the same result where each part holds
    whole groups of D's minibatch deviation."""
    discriminator_up_to: int | None = None
    """Train the discriminator's blocks up to this resolution instead of those in the table of versions."""
    samples: int = 2000
    """Faces measured before and after; at least a batch."""
    cases: int = 10
    """Latents that are tried with every label of the published grids."""
    minutes: float = 0.0
    """What to expect on one core, for the user; 0 says nothing."""
    watched: int = 256
    """Faces measured by each monitor; at least a batch."""
    sample_batch: int = 8
    log_every: int = 10
    monitor_every: int = 50
    save_every: int = 50


# What a value of [finetune] may be, as arguments of `Profile.read`; all others may not be negative.
LIMITS: dict[str, dict[str, float]] = {
    **{name: {"low": 1} for name in ("batch", "accumulate", "cases", "sample_batch", "r1_every")},
    **{name: {"low": 1} for name in ("log_every", "monitor_every", "save_every")},
    **{name: {"low": 2} for name in ("samples", "watched")},  # one face has no spread
    "momentum": {"low": 0, "high": 0.999},
    "margin": {},
}


def finetune_settings(profile: Profile, train: bool) -> dict[str, Any]:
    """Settings of stage 5 by name; [finetune.train] or [finetune.demo] win over [finetune]."""
    return settings_of(profile, "finetune", "finetune.train" if train else "finetune.demo")


def settings_of(profile: Profile, *sections: str) -> dict[str, Any]:
    """Settings by name; later sections win. PipelineError for an unknown key or a wrong type."""
    kinds = {
        entry.name: int if "int" in str(entry.type) else float
        for part in (Finetuning, Rates)
        for entry in fields(part)
        if entry.name != "reduced"  # decided by the machine
    }
    result = {entry.name: entry.default for entry in fields(Finetuning)} | {"warm_steps": 0}
    parts = [name for name, value in profile.section("finetune").items() if isinstance(value, dict)]
    families = {name.split("_")[0] for name in VERSIONS}
    known = {"train", "demo", "climb", *families, *(f"{name}_published" for name in families)}
    profile.refuse_unknown("finetune", parts, known)
    for section in sections:
        given = [name for name, value in profile.section(section).items() if not isinstance(value, dict)]
        profile.refuse_unknown(section, given, set(kinds))
        for name in given:
            result[name] = profile.read(f"{section}.{name}", kinds[name], **LIMITS.get(name, {"low": 0}))
    for name in ("watched", "samples"):  # faces are compared in whole batches
        result[name] = max(result[name], result["batch"])
    if result["discriminator_up_to"] is None:
        del result["discriminator_up_to"]
    return result
