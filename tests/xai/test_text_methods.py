"""Explainers of words, and of words with patches, against captum, enumeration and loops."""

from __future__ import annotations

from itertools import permutations, product

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerIntegratedGradients
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.xai.coalitions import ids_without
from clip_xai.xai.methods.interactions import Fixlip, drawn
from clip_xai.xai.methods.text_games import TokenKernelShap, TokenOcclusion
from clip_xai.xai.methods.text_methods import (
    TokenAttentionGradient,
    TokenGradEclip,
    TokenIntegratedGradients,
)
from clip_xai.xai.players import grid_players
from clip_xai.xai.target import CaptionTarget, ContrastTarget, EmbeddingDimensionTarget, SimilarityTarget
from clip_xai.xai.words import words_of
from tests.xai.conftest import TEXTS, assert_close

TWO = ["a pink papule", "melanoma"]


@pytest.mark.parametrize("cls", [SimilarityTarget, ContrastTarget])
def test_integrated_gradients_of_words_match_captum_and_are_complete(
    backbone: OpenClipBackbone, pixels: Tensor, cls: type[SimilarityTarget]
) -> None:
    target = cls.from_texts(backbone, TWO)
    found = TokenIntegratedGradients(steps=8).explain(backbone, pixels, target)
    complete = TokenIntegratedGradients(steps=60).explain(backbone, pixels, target)
    read, fixed = backbone.encode_image(pixels), backbone.encode_text(TWO)
    for row, text in enumerate(TWO):
        ids = backbone.tokenize([text])
        words = words_of(text, backbone.token_spans(text))
        places = [1 + token for word in words for token in word.tokens]

        def score(ids: Tensor, row: int = row, image: int = 0) -> Tensor:
            moved = backbone.encode_tokens(ids)
            return torch.stack(
                [target.score_of(read[image : image + 1], torch.cat([fixed[:row], one[None], fixed[row + 1 :]]))[0, row]
                 for one in moved]
            )  # fmt: skip

        layer = LayerIntegratedGradients(score, backbone.model.token_embedding)
        whole = backbone.model.token_embedding(ids)
        base = whole.clone()
        base[:, places] = 0
        # Captum takes the baseline as ids: give the layer one whose embedding is 0.
        with torch.no_grad():
            used = backbone.tokenize(TWO)
            unused = int((~torch.isin(torch.arange(backbone.model.vocab_size), used)).nonzero()[0])
            backbone.model.token_embedding.weight[unused] = 0
        blank = ids.clone()
        blank[:, places] = unused
        by_token = layer.attribute(ids, blank, n_steps=8)[0].sum(-1)
        expected = torch.stack([by_token[[1 + token for token in word.tokens]].sum() for word in words])
        assert_close(found.values[0, row, : len(words)], expected.detach(), 5e-5)
        nothing = torch.stack([score(blank, image=image) for image in range(2)])[:, 0]
        gap = complete.values[:, row, : len(words)].sum(1) - (complete.scores[:, row] - nothing)
        assert gap.abs().max() < 1e-3 * (complete.scores[:, row] - nothing).abs().max()


def test_integrated_gradients_of_a_caption_are_complete(captioner: Captioner, pixels: Tensor) -> None:
    target = CaptionTarget.words(captioner, captioner.tokenizer.encode("a nevus"), whole=True)
    found = TokenIntegratedGradients(steps=60).explain(captioner.backbone, pixels, target)
    read = captioner.read(pixels)
    nothing = target.score_of(torch.zeros_like(captioner.prefix(read)), torch.zeros_like(target.embeddings(2)))
    # All but the last word's own embedding, which no score reads.
    assert_close(found.values.sum(-1), (found.scores - nothing).detach(), 2e-2)
    assert found.tokens is not None and found.tokens[0][:2] == ["image", "prompt"]


@pytest.mark.parametrize("cls", [SimilarityTarget, ContrastTarget])
def test_occlusion_and_shapley_values_of_words_match_texts_written_without_them(
    backbone: OpenClipBackbone, pixels: Tensor, cls: type[SimilarityTarget]
) -> None:
    texts = ["pink papule here", "melanoma"]
    target = cls.from_texts(backbone, texts)
    read, fixed = backbone.encode_image(pixels), backbone.encode_text(texts)

    def value(kept: tuple[int, ...]) -> Tensor:
        # A word's tokens hold the space in front of it, so that what is left is the text as it would be written.
        words = ["pink", " papule", " here"]
        moved = backbone.encode_text(["".join(words[i] for i in kept)])
        return target.score_of(read, torch.cat([moved, fixed[1:]]))[:, 0]

    whole = value((0, 1, 2))
    left_out = torch.stack([whole - value(tuple(i for i in range(3) if i != word)) for word in range(3)], dim=1)
    shapley = torch.zeros(2, 3)
    for order in permutations(range(3)):
        for position, word in enumerate(order):
            before = order[:position]
            gain = value(tuple(sorted((*before, word)))) - value(tuple(sorted(before)))
            shapley[:, word] += gain.detach() / 6
    one = TokenOcclusion(chunk_size=2).explain(backbone, pixels, target)
    assert_close(one.values[:, 0], left_out.detach(), 3e-5)
    assert one.values[:, 1, 1:].isnan().all()
    many = TokenKernelShap(chunk_size=3).explain(backbone, pixels, target)
    assert_close(many.values[:, 0], shapley, 3e-5)
    assert_close(many.scores, target.score(read).detach())


def test_padding_stands_where_words_were(backbone: OpenClipBackbone) -> None:
    text = "pink papule"
    words = words_of(text, backbone.token_spans(text))
    whole = backbone.tokenize([text])[0]
    present = torch.tensor([[True, True], [False, True], [False, False]])
    padded = ids_without(backbone, text, words, present, "pad")
    deleted = ids_without(backbone, text, words, present, "delete")
    first = [1 + token for token in words[0].tokens]
    assert torch.equal(padded[0], whole) and torch.equal(deleted[0], whole)
    changed = (padded[1] != whole).nonzero().flatten().tolist()
    assert changed == first and (padded[1, first] == 0).all()
    assert torch.equal(deleted[1], backbone.tokenize([" papule"])[0])
    assert torch.equal(deleted[2], backbone.tokenize([""])[0])


def test_games_about_a_caption_match_loops(captioner: Captioner, pixels: Tensor) -> None:
    target = CaptionTarget.words(captioner, captioner.tokenizer.encode("a nevus"), whole=True)
    read = captioner.read(pixels)
    prefix, embeddings = captioner.prefix(read), target.embeddings(2)
    together = torch.cat([prefix, embeddings], dim=1)
    blank = captioner.language_model.transformer.wte.weight.mean(0)
    words = target.caption_words()
    columns = [range(3), range(3, prefix.shape[1])]
    columns += [[prefix.shape[1] + token for token in word.tokens] for word in words]

    def value(kept: tuple[int, ...]) -> Tensor:
        mixed = together.clone()
        for column, places in enumerate(columns):
            if column not in kept:
                mixed[:, list(places)] = blank
        return target.score_of(mixed[:, : prefix.shape[1]], mixed[:, prefix.shape[1] :]).detach()

    every = tuple(range(len(columns)))
    expected = torch.stack([value(every) - value(tuple(c for c in every if c != column)) for column in every], dim=2)
    found = TokenOcclusion(chunk_size=3).explain(captioner.backbone, pixels, target).values
    assert_close(found, expected, 3e-5)
    assert (found[:, 0, 3:] == 0).all()  # later words say nothing about the first
    games = {kept: value(kept) for size in product([0, 1], repeat=len(every))
             for kept in [tuple(c for c in every if size[c])]}  # fmt: skip
    shapley = torch.zeros_like(expected)
    orders = list(permutations(every))
    for order in orders:
        for position, column in enumerate(order):
            before = tuple(sorted(order[:position]))
            shapley[:, :, column] += (games[tuple(sorted((*before, column)))] - games[before]) / len(orders)
    assert_close(TokenKernelShap().explain(captioner.backbone, pixels, target).values, shapley, 3e-5)


def text_attention(backbone: OpenClipBackbone, text: str) -> tuple[Tensor, list[tuple[Tensor, ...]], int]:
    """The text tower eagerly, head by head; attention and contexts stay in the graph."""
    model = backbone.model
    ids = backbone.tokenize([text])
    last = int(ids[0].argmax())
    tokens = model.token_embedding(ids) + model.positional_embedding
    kept = []
    for block in model.transformer.resblocks:
        normed = block.ln_1(tokens)
        parts = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in parts)
        attention = (q @ k.transpose(-2, -1) / 8**0.5 + model.attn_mask).softmax(-1).requires_grad_()
        context = attention @ v
        kept.append((attention, context, q, k, v))
        tokens = tokens + block.attn.out_proj(context.transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.ln_2(tokens))
    return model.ln_final(tokens)[:, last] @ model.text_projection, kept, last


@pytest.mark.parametrize("layers", [1, 8])
def test_gradeclip_of_words_matches_the_loop(backbone: OpenClipBackbone, pixels: Tensor, layers: int) -> None:
    backbone.requires_grad_(True)
    target = SimilarityTarget.from_texts(backbone, TEXTS)
    found = TokenGradEclip(layers=layers).explain(backbone, pixels, target)
    read = backbone.encode_image(pixels).detach()
    for row, text in enumerate(TEXTS):
        embedding, kept, last = text_attention(backbone, text)
        for image in range(2):
            score = target.score_of(read[image : image + 1], embedding)[0, 0]
            heat = torch.zeros(32)
            for _, context, q, k, v in kept[-layers:]:
                (gradient,) = torch.autograd.grad(score, context, retain_graph=True)
                for head in range(2):
                    similar = [
                        float(F.cosine_similarity(q[0, head, last], k[0, head, i], dim=0)) for i in range(last + 1)
                    ]
                    for i in range(last + 1):
                        loosened = (similar[i] - min(similar)) / (max(similar) - min(similar))
                        heat[i] += float(gradient[0, head, last] @ v[0, head, i]) * loosened
            words = words_of(text, backbone.token_spans(text))
            expected = torch.stack([heat.relu()[[1 + token for token in word.tokens]].sum() for word in words])
            gap = (found.values[image, row, : len(words)] - expected).abs().max()
            assert gap <= 3e-5 * heat.abs().max()  # a ReLU can leave nothing of a text of one word
    assert found.values.nan_to_num().max() > 0


@pytest.mark.parametrize("start", [0, -1])
def test_attention_gradient_of_words_matches_explicit_matrices(
    backbone: OpenClipBackbone, pixels: Tensor, start: int
) -> None:
    backbone.requires_grad_(True)
    target = SimilarityTarget.from_texts(backbone, TEXTS, "logit")
    found = TokenAttentionGradient(start_layer=start).explain(backbone, pixels, target)
    read = backbone.encode_image(pixels).detach()
    for row, text in enumerate(TEXTS):
        embedding, kept, last = text_attention(backbone, text)
        for image in range(2):
            score = target.score_of(read[image : image + 1], embedding)[0, 0]
            relevance = torch.eye(32)
            for attention, *_ in kept[start:]:
                (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
                relevance = relevance + (gradient * attention).relu().mean(1)[0].detach() @ relevance
            words = words_of(text, backbone.token_spans(text))
            expected = torch.stack([relevance[last, [1 + token for token in word.tokens]].sum() for word in words])
            assert_close(found.values[image, row, : len(words)], expected, 3e-5)


def test_what_passes_no_text_tower_is_refused(captioner: Captioner, pixels: Tensor) -> None:
    caption = CaptionTarget.words(captioner, captioner.tokenizer.encode("a nevus"))
    for explainer in (TokenGradEclip(), TokenAttentionGradient(), Fixlip(cells=2)):
        with pytest.raises(UserError, match=r"choose one of .*occlusion"):
            explainer.explain(captioner.backbone, pixels, caption)
    with pytest.raises(UserError, match="give the target its texts"):
        TokenKernelShap().explain(captioner.backbone, pixels, EmbeddingDimensionTarget([0]))
    with pytest.raises(UserError, match="choose one of delete, pad"):
        TokenOcclusion(absent="mask")


@pytest.mark.parametrize("kind", ["cosine", "dot", "logit"])
@pytest.mark.parametrize(("index", "presence"), [("banzhaf", 0.5), ("banzhaf", 0.7), ("shapley", 0.5)])
def test_interactions_match_all_joint_coalitions(
    backbone: OpenClipBackbone, pixels: Tensor, index: str, presence: float, kind: str
) -> None:
    """Four squares and two words, each of 64 coalitions scored as a pair, gains weighted as the indices define."""
    text = "pink papule"
    target = SimilarityTarget.from_texts(backbone, [text], kind)
    found = Fixlip(index=index, presence=presence, cells=2, fill=0.2).explain(backbone, pixels, target)
    owners = grid_players(24, 2, 2)
    written = {(0, 0): "", (1, 0): "pink", (0, 1): " papule", (1, 1): text}
    value = {}
    for squares in product([0, 1], repeat=4):
        mask = torch.tensor(squares, dtype=torch.float32)[owners]
        read = backbone.encode_image(pixels * mask + 0.2 * (1 - mask))
        for words in written:
            value[squares + words] = target.score_of(read, backbone.encode_text([written[words]]))[:, 0].detach()
    expected = torch.zeros(2, 2, 4)
    for i, j in product(range(4), (4, 5)):
        others = [player for player in range(6) if player not in (i, j)]
        for present in product([0, 1], repeat=4):
            size = sum(present)
            if index == "banzhaf":
                weight = presence**size * (1 - presence) ** (4 - size)
            else:  # the integral of p^s (1-p)^(4-s) 6 p (1-p) over p, by a fine sum
                p = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
                weight = float((6 * p ** (size + 1) * (1 - p) ** (5 - size)).mean())

            def at(with_i: int, with_j: int, i: int = i, j: int = j, others=others, present=present) -> Tensor:
                players = {**dict(zip(others, present, strict=True)), i: with_i, j: with_j}
                return value[tuple(players[player] for player in range(6))]

            expected[:, j - 4, i] += weight * (at(1, 1) - at(1, 0) - at(0, 1) + at(0, 0))
    squares = expected.unflatten(2, (2, 2)).repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
    assert_close(found.values[:, 0], squares, 2e-4)  # second differences of nearly equal scores
    assert found.kind == "pair" and found.tokens == [["pink", "papule"]]


def test_sampled_interactions_are_the_regression_over_all_pairs(
    backbone: OpenClipBackbone, pixels: Tensor, similarity: SimilarityTarget
) -> None:
    """The published estimator: one least squares over m_I m_T pairs, with first-order and cross terms."""
    target = SimilarityTarget.from_texts(backbone, TEXTS[:1])
    found = Fixlip(cells=2, images=12, texts=20, seed=3).explain(backbone, pixels[:1], target)
    words = words_of(TEXTS[0], backbone.token_spans(TEXTS[0]))
    images, _ = drawn(4, 12, 0.5, 3)
    texts, _ = drawn(len(words), 20, 0.5, 3)
    assert len(images) == 12 and len(texts) == 20
    masks = images.float()[:, grid_players(24, 2, 2)]
    read = backbone.encode_image(pixels[:1] * masks[:, None])
    embedded = backbone.encode_tokens(ids_without(backbone, TEXTS[0], words, texts, "delete"))
    values = target.score_of(read, embedded).detach().double()
    rows = [
        torch.cat([torch.ones(1), a, b, torch.outer(a, b).flatten()]).double()
        for a in images.float() for b in texts.float()
    ]  # fmt: skip
    solved = torch.linalg.lstsq(torch.stack(rows), values.flatten()[:, None]).solution[:, 0]
    cross = solved[1 + 4 + len(words) :].unflatten(0, (4, len(words))).T.float()
    expected = cross.unflatten(1, (2, 2)).repeat_interleave(2, 1).repeat_interleave(2, 2) / 4
    assert_close(found.values[0, 0], expected, 1e-3)


def test_interactions_encode_images_and_texts_once(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    target = SimilarityTarget.from_texts(backbone, TWO)
    images: list[int] = []
    texts: list[int] = []
    first = backbone.visual.conv1.register_forward_hook(lambda *call: images.append(len(call[2])))
    second = backbone.model.token_embedding.register_forward_hook(lambda *call: texts.append(len(call[2])))
    Fixlip(cells=2).explain(backbone, pixels, target)
    first.remove()
    second.remove()
    assert sum(images) == 2 * (2**4 + 1) and sum(texts) == 2**3 + 2


def test_more_blocks_than_the_text_tower_has_are_refused(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    target = SimilarityTarget.from_texts(backbone, TWO)
    with pytest.raises(UserError, match="asks for 9 blocks of a tower of 2"):
        TokenGradEclip(layers=9).explain(backbone, pixels, target)
    with pytest.raises(UserError, match="asks for block -3 of a tower of 2"):
        TokenAttentionGradient(start_layer=-3).explain(backbone, pixels, target)
