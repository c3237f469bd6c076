"""Guidance by the filter CNNs: beside the discriminator, the stage 2 models pull generated faces toward the persona.

With a thousand faces and minutes on a CPU the discriminator alone moves the generator slowly. The filter CNNs already
know what was filtered for (fine-tune v3 used one of them the same way). The oracle, which measures the result, has no
part in it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from cnn.filter_cnn import FilterEnsemble, to_unit
from cnn.models import model_paths
from cnn.settings import FILTERS, FilterSettings
from pipeline.profile import Profile
from pipeline.run import Run


class FilterGuidance:
    """Loss of generated faces against the persona: woman, good quality, not old, no glasses."""

    def __init__(self, ensembles: dict[str, FilterEnsemble], margin: float = 1.0):
        self.ensembles, self.margin = ensembles, margin

    @classmethod
    def load(
        cls, profile: Profile, run: Run, margin: float = 1.0, device: torch.device | str = "cpu"
    ) -> FilterGuidance:
        """The models that stage 2 left in the run; PipelineError where one is missing or does not fit.

        A property whose cutoff keeps everybody is no part of the persona.
        """
        settings, paths = FilterSettings.of(profile), model_paths(run)
        names = [name for name in FILTERS if name not in settings.unfiltered]
        ensembles = {
            name: FilterEnsemble.load(name, paths[name], settings.architectures[name], device) for name in names
        }
        return cls(ensembles, margin)

    def __call__(self, images: torch.Tensor, step: int) -> torch.Tensor:
        """Mean hinge loss of images [N, 3, R, R] in [-1, 1]; the fold models take turns, so that none is fooled.

        Cross-entropy would go on pulling at faces that pass, and at everything that goes along with the traits.
        """
        loss = images.new_zeros(())
        for name, ensemble in self.ensembles.items():
            crops = to_unit(ensemble.window.crop(images.clamp(-1, 1)))
            logits = ensemble.models[step % len(ensemble.models)].crop_logits(crops)
            toward = logits if FILTERS[name].keep_high else -logits
            loss = loss + F.relu(self.margin - toward).mean()
        return loss / max(len(self.ensembles), 1)
