"""Random parameters: all of them, from the input up, on a copy; the caller's model stays as it was to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy, spearmanr
from torch import nn

from clip_xai.data.preprocess import Preprocess
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.xai.map_likeness import (
    entropy_rise,
    histogram_entropy,
    normalised,
    rank_correlation,
    structural_similarity,
)
from clip_xai.xai.methods import AttentionRollout, GradEclip, Saliency
from clip_xai.xai.randomisation import bottom_up, copied, draw_anew, modules_of, randomised, stages
from clip_xai.xai.sanity import heat_maps, randomisation, text_likeness
from clip_xai.xai.target import CaptionTarget, ClassifierTarget, EmbeddingDimensionTarget, SimilarityTarget
from tests.support.networks import NETWORKS
from tests.support.towers import pixels_for
from tests.xai.conftest import CAPTION, TEXTS


def bits(*modules: nn.Module) -> list[bytes]:
    return [
        value.detach().numpy().tobytes() for module in modules for value in module.state_dict().values()
    ]  # fmt: skip


def changed(before: nn.Module, after: nn.Module) -> dict[str, bool]:
    later = dict(after.named_parameters())
    return {name: not torch.equal(value, later[name]) for name, value in before.named_parameters()}


def test_every_parameter_is_another_one_and_the_original_is_untouched(captioner, pixels) -> None:
    backbone = captioner.backbone
    target = CaptionTarget.whole(captioner, captioner.tokenizer.encode(CAPTION))
    before, fingerprint = bits(captioner), backbone.fingerprint
    other, asked = randomised(backbone, target, seed=1)
    assert asked.captioner.backbone is other and asked.captioner is not captioner
    assert all(changed(captioner, asked.captioner).values())
    assert bits(captioner) == before and backbone.fingerprint == fingerprint != other.fingerprint
    again, _ = randomised(backbone, target, seed=1)
    assert bits(again) == bits(other) != bits(randomised(backbone, target, seed=2)[0])
    assert torch.isfinite(asked.score(other.features(pixels).read(asked.reads))).all()
    for name, value in backbone.named_parameters():
        if value.numel() > 500:  # drawn with the tensor's own mean and spread
            drawn = dict(other.named_parameters())[name]
            assert abs(float(drawn.mean() - value.mean())) < 0.2 * float(value.std()), name
            assert float(drawn.std()) == pytest.approx(float(value.std()), rel=0.15), name


def test_a_similarity_is_asked_with_the_random_towers_own_texts(backbone, pixels) -> None:
    target = SimilarityTarget.from_texts(backbone, TEXTS)
    own = target.text_embeddings.clone()
    other, asked = randomised(backbone, target)
    assert torch.equal(target.text_embeddings, own)
    with torch.no_grad():
        assert torch.allclose(asked.text_embeddings, other.encode_text(TEXTS), atol=1e-6)
    unknown = SimilarityTarget(own, ["a", "b", "c"])
    assert not torch.equal(randomised(backbone, unknown)[1].text_embeddings, own)


def test_stages_go_from_the_input_up_and_leave_nothing_out(backbone) -> None:
    found = stages(backbone)
    assert [name for name, _ in found] == ["before the blocks", "block 0", "block 1", "block 2", "the rest"]
    names = [name for _, names in found for name in names]
    assert sorted(names) == sorted(name for name, _ in backbone.named_parameters()) and len(set(names)) == len(names)
    first, last = set(found[0][1]), set(found[-1][1])
    visual = "model.visual."
    assert first == {f"{visual}{name}" for name in (
        "class_embedding", "positional_embedding", "conv1.weight", "ln_pre.weight", "ln_pre.bias",
    )}  # fmt: skip
    assert {f"{visual}proj", "model.logit_scale", "model.text_projection"} <= last
    assert all(not value.requires_grad for value in backbone.parameters())


def test_one_more_stage_is_random_at_each_step(backbone) -> None:
    target = SimilarityTarget.from_texts(backbone, TEXTS)
    before, every = bits(backbone), stages(backbone)
    for step, (name, other, _) in enumerate(bottom_up(backbone, target, seed=3)):
        assert name == every[step][0]
        moved = changed(backbone, other)
        for number, (_, names) in enumerate(every):
            assert all(moved[one] == (number <= step) for one in names)
    assert step == len(every) - 1 and bits(backbone) == before


@pytest.mark.parametrize("library", ["torchvision_resnet", "timm_resnet"])
def test_a_classifier_loses_its_head_with_the_last_stage(library: str) -> None:
    kind, network, tower = NETWORKS[library]()
    backbone = VisionClassifier(network, tower, Preprocess(image_size=tower.image_size), "a", kind)
    target = ClassifierTarget.of(backbone, [1])
    before, pixels = bits(backbone), pixels_for(tower)[:1]
    steps = list(bottom_up(backbone, target))
    assert len(steps) > 3 and all(changed(backbone, steps[-1][1]).values()) and bits(backbone) == before
    with torch.no_grad():
        assert not torch.allclose(steps[-1][2].score(steps[-1][1].encode_image(pixels)),
                                  target.score(backbone.encode_image(pixels)))  # fmt: skip
    assert modules_of(backbone, target) == [backbone]


def test_a_head_of_its_own_is_drawn_anew_too(backbone) -> None:
    head = nn.Linear(16, 3)
    target = ClassifierTarget(head, ["a", "b", "c"])
    before = bits(head)
    *_, (_, _, asked) = bottom_up(backbone, target)
    assert all(changed(head, asked.head).values()) and bits(head) == before
    assert all(changed(head, randomised(backbone, target)[1].head).values())


def test_what_has_no_spread_is_drawn_all_the_same() -> None:
    ones, number = torch.ones(50), torch.tensor(2.0)
    draw_anew([ones, number], 0)
    assert float(ones.std()) > 0.5 and float(number) != 2.0


def test_maps_with_and_without_knowledge(backbone, pixels) -> None:
    target = SimilarityTarget.from_texts(backbone, TEXTS)
    found = randomisation(Saliency(), backbone, pixels[:1], target, seed=5)
    own = Saliency().explain(backbone, pixels[:1], target).values[0]
    for (name, other, asked), said, correlation, alike in zip(
        bottom_up(backbone, target, 5), found.stages, found.correlations, found.similarities, strict=True
    ):
        last = Saliency().explain(other, pixels[:1], asked).values[0]
        assert name == said
        for row in range(3):
            expected = spearmanr(own[row].flatten(), last[row].flatten()).statistic
            assert float(correlation[row]) == pytest.approx(expected, abs=1e-6)
        assert torch.allclose(alike, structural_similarity(own, last))
    assert torch.allclose(found.entropy_rise, entropy_rise(own, last))
    at_once = randomisation(Saliency(), backbone, pixels[:1], target, steps=False, seed=5)
    assert at_once.stages == ("all parameters",) and at_once.correlations.shape == (1, 3)


def test_smoothed_maps_are_means_over_noisy_copies(backbone, pixels) -> None:
    target = SimilarityTarget.from_texts(backbone, TEXTS)
    found = heat_maps(GradEclip(), backbone, pixels[:1], target, noisy=3, seed=2)
    generator = torch.Generator().manual_seed(2)
    spread = 0.1 * float(pixels[0].max() - pixels[0].min())
    copies = [pixels[:1] + spread * torch.randn(pixels[:1].shape, generator=generator) for _ in range(3)]
    each = torch.stack([GradEclip().explain(backbone, one, target).values[0] for one in copies])
    assert torch.allclose(found.float(), each.mean(dim=0), atol=1e-5)


def test_a_map_that_does_not_hear_the_text_is_the_same_for_every_other(backbone, pixels) -> None:
    target = SimilarityTarget.from_texts(backbone, TEXTS)
    blind = AttentionRollout().explain(backbone, pixels[:1], target).values[0]
    assert float(text_likeness(blind[0], blind[1:])) == pytest.approx(1)
    heard = GradEclip().explain(backbone, pixels[:1], target).values[0]
    expected = np.mean([spearmanr(heard[0].flatten(), other.flatten()).statistic for other in heard[1:]])
    assert float(text_likeness(heard[0], heard[1:])) == pytest.approx(float(expected), abs=1e-6)


def test_likeness_by_hand() -> None:
    maps = torch.randn(3, 7, 7, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(normalised(maps).square().mean(dim=(1, 2)), torch.ones(3).double())
    assert torch.equal(normalised(torch.zeros(1, 2, 2)), torch.zeros(1, 2, 2).double())
    assert torch.allclose(structural_similarity(maps, 5 * maps), torch.ones(3).double())
    assert (structural_similarity(maps, -maps) < 0.1).all()
    counts = np.histogram(maps[0].numpy(), bins=100)[0]
    assert float(histogram_entropy(maps)[0]) == pytest.approx(float(entropy(counts)))
    flat = torch.zeros(1, 7, 7)
    assert float(histogram_entropy(flat)) == 0 and torch.isnan(entropy_rise(flat, maps[:1])).all()
    assert rank_correlation(flat, maps[:1]).item() == 0 and rank_correlation(flat, flat).item() == 1
    peak = flat.clone()
    peak[0, 3, 3] = 1
    assert float(entropy_rise(peak, maps[:1])) > 10  # from nearly nothing to nearly one place a bin


def test_a_copy_shares_no_tensor(backbone) -> None:
    target = EmbeddingDimensionTarget([0])
    other, asked = copied(backbone, target)
    places = {value.data_ptr() for value in backbone.state_dict().values()}
    assert not places & {value.data_ptr() for value in other.state_dict().values()} and asked is not target
