"""What faces are pulled by beside the discriminator: the gender CNN, the encoder's latents, and standardised labels."""

from __future__ import annotations

from types import SimpleNamespace

import finetune_world as world
import pytest
import torch

from cnn.filter_cnn import FilterCNN, to_unit
from stylegan_modified.labels import label_faces
from stylegan_modified.latents import Encoded
from stylegan_modified.terms import GenderTerm
from stylegan_modified.versions import PUBLISHED, VERSIONS


@pytest.fixture(scope="module")
def models() -> list[FilterCNN]:
    torch.manual_seed(0)
    return [FilterCNN("gender", 32, 0.25, 16).eval() for _ in range(2)]


@pytest.mark.parametrize("published", [False, True])
def test_following_the_gender_term_makes_faces_women(models, published):
    images = (torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) - 0.5).requires_grad_(True)
    term = GenderTerm(models, 2.0, published)

    def probability(images):
        """Of all folds, as they were trained; as published, of one that is fed [-1, 1]."""
        seen = images if published else to_unit(images)
        return torch.stack([model(seen) for model in (models[:1] if published else models)]).mean(0)

    loss = term(images, None)
    assert loss.item() == pytest.approx(2.0 * (1 - probability(images)).square().mean().item(), rel=1e-5)
    loss.backward()
    with torch.no_grad():
        stepped = images - 0.5 * images.grad / images.grad.norm()
        assert (probability(stepped) > probability(images)).all()
        assert term(stepped, None) < loss


@pytest.mark.parametrize(("published", "loss"), [(False, 0.2 * 0.5 * (4 + 9 - 1 - 2.1972)),
                                                 (True, 0.2 * 4 + 0.05 * 2.1972**2)])  # fmt: skip
def test_the_encoder_says_the_variance_of_a_latent_by_its_logarithm(published, loss):
    def encoder(real, label):
        return torch.full((len(real), 16), 2.0), torch.full((len(real), 16), 9.0).log()

    z = torch.randn(6, 16)
    latent, pull = Encoded(encoder, published).part(SimpleNamespace(z=z, encoded=None), torch.zeros(6, 3, 16, 16))
    assert torch.allclose(latent, 2.0 + 3.0 * z, atol=1e-5)
    assert float(pull) == pytest.approx(loss, rel=1e-4)


def test_labels_of_mended_versions_are_standardised_and_those_of_published_ones_are_not():
    faces, network = world.bright_faces().images, world.scorer()
    pictures = torch.from_numpy(faces).permute(0, 3, 1, 2) / 127.5 - 1
    numbers = list(range(len(faces)))
    mended = label_faces(faces, network, VERSIONS["v1"], None, numbers, "cpu")
    assert mended.values.mean(0) == pytest.approx([0.0] * 7, abs=1e-5)
    assert mended.values.std(0, ddof=1) == pytest.approx([1.0] * 7, rel=1e-4)
    assert mended.scorer.score(pictures)[:, :7].numpy() == pytest.approx(mended.values, abs=1e-4)  # the same units
    published = label_faces(faces, network, PUBLISHED["v1"], None, numbers, "cpu")
    for read in (published.values, published.scorer.score(pictures)[:, :7].numpy()):
        assert read == pytest.approx(network(pictures)[:, :7].numpy(), abs=1e-5)
