"""Sensitivity-max against captum's, with the same noise."""

from __future__ import annotations

import torch
from captum.metrics import sensitivity_max as captum_sensitivity_max

from clip_xai.xai.examples import example
from clip_xai.xai.methods import GradEclip, IntegratedGradients, Rise, Saliency
from clip_xai.xai.stability import RADIUS, draws_at_random, reseeded, sensitivity_max


def test_the_largest_change_is_captums() -> None:
    backbone, pixels, target = example()
    found = sensitivity_max(Saliency(), backbone, pixels[:1], target, samples=4, seed=3)
    generator = torch.Generator().manual_seed(3)

    def perturb(inputs: torch.Tensor) -> torch.Tensor:
        return inputs + (2 * torch.rand(inputs.shape, generator=generator) - 1) * RADIUS

    def explain(inputs: torch.Tensor | tuple[torch.Tensor], score: int) -> tuple[torch.Tensor]:
        alone = inputs[0] if isinstance(inputs, tuple) else inputs  # captum gives either
        return (Saliency().explain(backbone, alone, target).values[:, score],)

    for score in range(2):
        generator.manual_seed(3)
        expected = captum_sensitivity_max(
            lambda inputs, score=score: explain(inputs, score), pixels[:1], perturb_func=perturb, n_perturb_samples=4,
            max_examples_per_batch=1,
        )  # fmt: skip
        assert torch.allclose(found[0, score], expected[0], rtol=1e-4)
    assert (found > 0).all()


def test_only_methods_with_a_seed_draw_anew() -> None:
    assert draws_at_random(Rise()) and reseeded(Rise(), 5) == Rise(seed=5)
    for method in (GradEclip(), IntegratedGradients()):
        assert not draws_at_random(method) and reseeded(method, 5) is method
