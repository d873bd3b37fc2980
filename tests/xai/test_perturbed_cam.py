from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam import AblationCAM as LibraryAblationCam
from pytorch_grad_cam import ScoreCAM as LibraryScoreCam
from pytorch_grad_cam.ablation_layer import AblationLayerVit
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.xai.explainer import explain_together
from clip_xai.xai.methods.ablation_cam import AblationCam
from clip_xai.xai.methods.perturbed_cam import AbsCamFinal, AbsCamInit, ScoreCam
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import CaptionTarget, SimilarityTarget, Target
from tests.xai.conftest import TEXTS, assert_close


class Scores(nn.Module):
    def __init__(self, backbone: OpenClipBackbone, target: Target) -> None:
        super().__init__()
        self.backbone, self.target = backbone, target

    def forward(self, pixels: Tensor) -> Tensor:
        return self.target.score(self.backbone.features(pixels).read(self.target.reads))


def as_image(tokens: Tensor) -> Tensor:
    return tokens[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("layer", [-1, 0])
def test_scorecam_matches_pytorch_grad_cam(
    backbone: OpenClipBackbone, pixels: Tensor, monkeypatch: pytest.MonkeyPatch, layer: int
) -> None:
    # The library enlarges masks with align_corners=True, and its maps with False; here both are False.
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size=size, mode="bilinear"))
    target = SimilarityTarget.from_texts(backbone, TEXTS, "logit")
    found = ScoreCam(layer=layer).explain(backbone, pixels, target).values
    module = backbone.visual.transformer.resblocks[layer].ln_1
    for text in range(3):
        targets = [ClassifierOutputTarget(text)] * 2
        with LibraryScoreCam(Scores(backbone, target), [module], as_image) as cam:
            cam(pixels.clone().requires_grad_(), targets)
            activations = np.asarray(cam.activations_and_grads.activations[0].detach())
            raw = cam.get_cam_image(pixels, module, targets, activations, None)
        assert_close(found[:, text], torch.from_numpy(raw).relu(), 1e-4)  # a softmax of logits magnifies rounding


@pytest.mark.parametrize("weighting", ["relu_delta", "linear", "softmax"])
def test_scorecam_weightings_match_the_loop(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, weighting: str
) -> None:
    found = ScoreCam(layer=1, weighting=weighting, fill=0.3).explain(backbone, pixels, similarity)
    kept: list[Tensor] = []
    handle = backbone.visual.transformer.resblocks[1].ln_1.register_forward_hook(lambda *call: kept.append(call[2]))
    backbone.encode_image(pixels)
    handle.remove()
    for image in range(2):
        nothing = similarity.score(backbone.encode_image(torch.full_like(pixels[:1], 0.3)))[0]
        weights, channels = [], as_image(kept[0])[image]
        for channel in channels:
            mask = F.interpolate(channel[None, None], size=24, mode="bilinear")[0, 0]
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            score = similarity.score(backbone.encode_image((pixels[image] * mask + 0.3 * (1 - mask))[None]))[0]
            weights.append(score - nothing)
        w = torch.stack(weights)
        if weighting == "softmax":
            w = (float(backbone.logit_scale) * w).softmax(0)
        w = w.relu() if weighting == "relu_delta" else w
        expected = sum(w[k][:, None, None] * channels[k] for k in range(32)).relu()
        assert_close(found.values[image], expected, 1e-4)


def test_the_temperature_is_tau_for_cosines_alone(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    tau = float(backbone.logit_scale)
    cosine, logit = (SimilarityTarget.from_texts(backbone, TEXTS, kind) for kind in ("cosine", "logit"))
    found = ScoreCam().explain(backbone, pixels, cosine).values
    assert_close(found, ScoreCam(temperature=tau).explain(backbone, pixels, cosine).values)
    assert_close(found, ScoreCam().explain(backbone, pixels, logit).values, 1e-4)
    assert not torch.allclose(found, ScoreCam(temperature=1.0).explain(backbone, pixels, cosine).values)


class ZeroAblation(AblationLayerVit):
    """The library's layer, with 0 where it writes the smallest value minus 1e7."""

    def __call__(self, x: Tensor) -> Tensor:
        output = self.activations.clone()
        for row, channel in enumerate(self.indices[: len(output)]):
            output[row, :, channel] = 0
        return output


@pytest.mark.parametrize("layer", [-1, 0])
def test_ablationcam_matches_pytorch_grad_cam(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, layer: int
) -> None:
    found = AblationCam(layer=layer).explain(backbone, pixels, similarity).values
    module = backbone.visual.transformer.resblocks[layer].ln_1
    for image in range(2):
        for text in range(3):
            targets = [ClassifierOutputTarget(text)]
            one = pixels[image : image + 1]
            with LibraryAblationCam(
                Scores(backbone, similarity), [module], as_image, ablation_layer=ZeroAblation()
            ) as cam:
                cam.forward(one.clone().requires_grad_(), targets)
                activations = np.asarray(cam.activations_and_grads.activations[0].detach())
                raw = torch.from_numpy(cam.get_cam_image(one, module, targets, activations, None))
            score = similarity.score(backbone.encode_image(one))[0, text]
            expected = (raw * score.sign()).relu().detach()
            # Weights are differences of nearly equal scores.
            assert (found[image : image + 1, text] - expected).abs().max() <= 2e-4 * raw.abs().max()


@pytest.mark.parametrize("layer", [-1, 1])
@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_ablations_match_a_hook_that_replaces_one_channel(
    captioner: Captioner, pixels: Tensor, layer: int, ablation: str
) -> None:
    backbone = captioner.backbone
    for target in (
        SimilarityTarget.from_texts(backbone, TEXTS),
        CaptionTarget.words(captioner, captioner.tokenizer.encode("a nevus")),
    ):
        found = AblationCam(layer=layer, ablation=ablation, chunk_size=5).explain(backbone, pixels, target)
        module = backbone.visual.transformer.resblocks[layer].ln_1
        kept: list[Tensor] = []
        whole = target.score(captioner.backbone.features(pixels).read(target.reads))
        scores = []
        for channel in range(32):

            def replace(
                module: nn.Module, inputs: object, output: Tensor, channel: int = channel, kept: list[Tensor] = kept
            ) -> Tensor:
                kept.append(output)
                changed = output.clone()
                mean = output[..., channel].mean(1, keepdim=True)
                changed[..., channel] = mean if ablation == "mean" else 0
                return changed

            handle = module.register_forward_hook(replace)
            scores.append(target.score(backbone.features(pixels).read(target.reads)))
            handle.remove()
        weights = (whole - torch.stack(scores)) / whole.abs()
        raw = torch.einsum("cbt,bchw->bthw", weights, as_image(kept[0])).detach()
        assert (found.values - raw.relu()).abs().max() <= 2e-4 * raw.abs().max()


def test_ablating_the_last_block_costs_one_pass(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    rows: list[int] = []
    block = backbone.visual.transformer.resblocks
    handles = [part.mlp.register_forward_hook(lambda *call: rows.append(call[2].numel() // 32)) for part in block]
    AblationCam().explain(backbone, pixels, similarity)
    for handle in handles:
        handle.remove()
    # The images for their score, the two blocks below, and 32 rows an image of the last feed-forward part.
    assert rows == [2 * 17] * 3 + [2 * 17] * 2 + [32] * 2


def test_abscam_matches_the_loop(backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget) -> None:
    first = AbsCamInit(layer=1).explain(backbone, pixels, similarity).values
    final = AbsCamFinal(layer=1).explain(backbone, pixels, similarity).values
    for image in range(2):
        for text in range(3):
            kept: list[Tensor] = []
            module = backbone.visual.transformer.resblocks[1].ln_1
            handle = module.register_forward_hook(
                lambda *call, kept=kept: kept.append(call[2].requires_grad_()) or kept[0]
            )
            score = similarity.score(backbone.encode_image(pixels[image : image + 1]))[0, text]
            handle.remove()
            (gradient,) = torch.autograd.grad(score, kept[0])
            weights = as_image(gradient)[0].abs().mean((1, 2))
            channels = as_image(kept[0])[0].detach()
            assert_close(first[image, text], sum(w * a for w, a in zip(weights, channels, strict=True)))
            heat = torch.zeros(24, 24)
            for weight, channel in zip(weights, channels, strict=True):
                mask = F.interpolate((weight * channel)[None, None], size=24, mode="bilinear")[0, 0]
                mask = (mask - mask.min()) / (mask.max() - mask.min())
                masked = backbone.encode_image((pixels[image] * mask)[None])
                heat += similarity.score(masked)[0, text].abs() * mask
            expected = heat.relu().unflatten(0, (4, 6)).unflatten(2, (4, 6)).mean(dim=(1, 3))
            assert_close(final[image, text], expected, 3e-5)


def test_the_masked_images_of_two_cams_are_those_of_one_target_more(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    counts = []
    for texts in (1, 16):
        target = SimilarityTarget(torch.randn(texts, 16), [str(text) for text in range(texts)])
        bank = PerturbationBank(backbone, pixels)
        explain_together([ScoreCam(), AbsCamFinal(), AblationCam()], backbone, pixels, target, bank)
        counts.append(bank.forwards)
    assert counts == [2 * (32 + 1)] * 2  # the images, and one stream of masks for both CAMs


def test_sizes_of_log_probabilities_are_no_weights(captioner: Captioner, pixels: Tensor) -> None:
    caption = CaptionTarget.words(captioner, captioner.tokenizer.encode("a nevus"))
    with pytest.raises(UserError, match="largest for the worst: choose one of gradcam"):
        AbsCamFinal().explain(captioner.backbone, pixels, caption)


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(UserError, match="softmax, relu_delta, linear"):
        ScoreCam(weighting="cubic")
    with pytest.raises(UserError, match="zero, mean"):
        AblationCam(ablation="noise")


def test_a_share_of_nothing_is_refused(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    target = SimilarityTarget(torch.zeros(1, 16), ["nothing"], "dot")
    with pytest.raises(UserError, match="exactly 0"):
        AblationCam().explain(backbone, pixels, target)
    with pytest.raises(UserError, match="3 blocks"):
        AblationCam(layer=3).explain(backbone, pixels, SimilarityTarget.from_texts(backbone, TEXTS))
