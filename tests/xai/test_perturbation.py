from __future__ import annotations

import weakref

import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion
from torch import Tensor, nn

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.xai.explainer import explain_together
from clip_xai.xai.masks import CellMasks
from clip_xai.xai.methods import Occlusion
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import CaptionTarget, SimilarityTarget
from tests.xai.conftest import CAPTION, TEXTS, assert_close


@pytest.mark.parametrize("reads", ["pooled", "patches", "tokens"])
@pytest.mark.parametrize("own", [False, True])
def test_reads_under_masks_match_a_loop(backbone: OpenClipBackbone, pixels: Tensor, reads: str, own: bool) -> None:
    fill = torch.randn_like(pixels)
    masks = (torch.rand(2, 5, 4, 4) > 0.5).float()
    masks = masks if own else masks[0]
    found = torch.cat(
        [read for _, read in PerturbationBank(backbone, pixels).stream(masks, reads=reads, fill=fill, chunk_size=3)]
    )
    row = 0
    for image in range(2):
        for mask in masks[image] if own else masks:
            whole = mask.repeat_interleave(6, 0).repeat_interleave(6, 1)
            mixed = pixels[image] * whole + fill[image] * (1 - whole)
            assert_close(found[row], backbone.features(mixed[None]).read(reads)[0])
            row += 1
    assert row == len(found)


def test_a_chunk_that_does_not_fit_is_halved(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    masks = torch.rand(7, 4, 4).round()
    whole = torch.cat([read for _, read in PerturbationBank(backbone, pixels).stream(masks)])
    sizes: list[int] = []

    def limit(module: nn.Module, arguments: tuple[Tensor]) -> None:
        sizes.append(len(arguments[0]))
        if sizes[-1] > 4:
            raise torch.OutOfMemoryError("more than four")

    handle = backbone.visual.conv1.register_forward_pre_hook(limit)
    found = list(PerturbationBank(backbone, pixels).stream(masks, chunk_size=10))
    handle.remove()
    assert sizes == [10, 5, 3, 3, 3, 3, 2]
    assert [rows.start for rows, _ in found] == [0, 3, 6, 9, 12]
    assert_close(torch.cat([read for _, read in found]), whole)


def test_a_target_that_does_not_fit_behind_the_tower_is_halved(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    sizes: list[int] = []

    class Large(SimilarityTarget):
        def score(self, read: Tensor) -> Tensor:
            sizes.append(len(read))
            if len(read) > 2:
                raise torch.OutOfMemoryError("more than two")
            return super().score(read)

    masks, bank = torch.rand(5, 4, 4).round(), PerturbationBank(backbone, pixels)
    found = bank.scores(masks, Large(similarity.text_embeddings, similarity.labels), chunk_size=10)
    assert sizes == [10, 5, 3, 2, 2, 2, 2, 2] and bank.forwards == 10
    assert_close(found, bank.scores(masks, similarity))


def test_memory_that_ends_at_one_image_is_an_error(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    def refuse(module: nn.Module, arguments: tuple[Tensor]) -> None:
        raise torch.OutOfMemoryError("none left")

    handle = backbone.visual.conv1.register_forward_pre_hook(refuse)
    with pytest.raises(torch.OutOfMemoryError):
        list(PerturbationBank(backbone, pixels).stream(torch.ones(3, 4, 4)))
    handle.remove()


def test_masks_finer_than_the_image_are_refused(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    with pytest.raises(ValueError, match="finer than an image"):
        list(PerturbationBank(backbone, pixels).stream(torch.ones(1, 5, pixels.shape[-1] + 1)))


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 1), (2, 2), (3, 2), (4, 1)])
def test_occlusion_matches_captum(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget, window: int, stride: int
) -> None:
    found = Occlusion(window=window, stride=stride).explain(backbone, pixels, similarity)
    captum = CaptumOcclusion(lambda images: similarity.score(backbone.encode_image(images)))
    for target in range(len(similarity.labels)):
        expected = captum.attribute(
            pixels, (3, 6 * window, 6 * window), strides=(3, 6 * stride, 6 * stride), baselines=0, target=target
        )
        # Differences of scores some hundred times as large, in single precision.
        assert_close(found.values[:, target], expected[:, 0, ::6, ::6], 2e-4)
    assert_close(found.scores, similarity.score(backbone.encode_image(pixels)))


@pytest.mark.parametrize("chunk_size", [1, 3, 1000])
def test_occlusion_does_not_depend_on_the_chunk(captioner: Captioner, pixels: Tensor, chunk_size: int) -> None:
    target = CaptionTarget.words(captioner, captioner.tokenizer.encode(CAPTION), whole=True)
    one = Occlusion(chunk_size=7).explain(captioner.backbone, pixels, target)
    other = Occlusion(chunk_size=chunk_size).explain(captioner.backbone, pixels, target)
    assert_close(other.values, one.values, 5e-5)  # differences of sums of log-probabilities of about -50
    # Linear in the target: the whole caption is the sum of its words.
    assert_close(one.values[:, :-1].sum(1), one.values[:, -1], 5e-5)


def test_all_texts_share_the_forward_passes(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    target = SimilarityTarget(torch.randn(16, 16), [str(index) for index in range(16)])
    images: list[int] = []
    handle = backbone.visual.conv1.register_forward_hook(lambda module, inputs, output: images.append(len(output)))
    Occlusion(window=2, stride=2).explain(backbone, pixels, target)
    handle.remove()
    assert sum(images) == 2 * (4 + 1)


def test_windows_that_do_not_fit_are_refused(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    target = SimilarityTarget(torch.randn(1, 16), ["a"])
    with pytest.raises(UserError, match="uncovered"):
        Occlusion(window=1, stride=2)
    with pytest.raises(UserError, match="does not fit"):
        Occlusion(window=5).explain(backbone, pixels, target)


def test_a_bank_shapes_its_scores_by_image_mask_and_target(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    masks = torch.rand(5, 4, 4).round()
    scores = PerturbationBank(backbone, pixels).scores(masks, similarity, chunk_size=4)
    assert scores.shape == (2, 5, 3)
    alone = PerturbationBank(backbone, pixels[1:]).scores(masks[2:3], similarity)
    assert_close(scores[1:, 2:3], alone)


def test_a_bank_runs_the_tower_once_for_all_targets_and_methods(captioner: Captioner, pixels: Tensor) -> None:
    backbone = captioner.backbone
    targets = [
        CaptionTarget.words(captioner, captioner.tokenizer.encode(CAPTION)),
        SimilarityTarget.from_texts(backbone, TEXTS),
        SimilarityTarget.from_texts(backbone, TEXTS[:1], "dot"),
    ]
    bank = PerturbationBank(backbone, pixels)
    methods = [Occlusion(), Occlusion(chunk_size=5)]
    together = [explain_together(methods, backbone, pixels, target, bank) for target in targets]
    windows = 9 * 2
    # The first two read the windows anew if their target reads patch tokens, which are never kept.
    assert bank.forwards == 2 + windows * (2 if targets[0].reads != "pooled" else 1)
    for target, found in zip(targets, together, strict=True):
        for one in found:
            assert_close(one.values, Occlusion().explain(backbone, pixels, target).values, 5e-5)


def test_what_is_not_to_be_kept_is_read_again(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    masks = CellMasks(torch.rand(5, 4, 4).round(), key="five")
    bank = PerturbationBank(backbone, pixels, keep_bytes=2 * 5 * 16 * 4 - 1)
    first, second = bank.scores(masks, similarity), bank.scores(masks, similarity)
    assert bank.forwards == 20 and torch.equal(first, second)
    bank = PerturbationBank(backbone, pixels, keep_bytes=2 * 5 * 16 * 4)
    first, second = bank.scores(masks, similarity), bank.scores(masks, similarity)
    assert bank.forwards == 10 and torch.equal(first, second)
    # Another fill is another question.
    assert not torch.equal(bank.scores(masks, similarity, fill=1.0), first) and bank.forwards == 20
    # So are masks that are not named, and a stream that was left in the middle keeps nothing.
    bank.scores(masks.cells[0], similarity)
    assert bank.forwards == 30
    bank = PerturbationBank(backbone, pixels)
    next(bank.stream(masks, chunk_size=2))
    assert torch.equal(bank.scores(masks, similarity), first) and bank.forwards == 12


def test_memory_stays_flat(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    stream = PerturbationBank(backbone, pixels, keep_bytes=0).stream(torch.rand(200, 4, 4), chunk_size=5)
    living: list[weakref.ref[Tensor]] = []
    for _, read in stream:
        assert sum(one() is not None for one in living) <= 1
        living.append(weakref.ref(read))
    assert len(living) == 80
