"""Word methods and FIxLIP on every family of text towers, by texts written without words and the library's own pass."""

from __future__ import annotations

from itertools import permutations, product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.xai.methods.interactions import Fixlip
from clip_xai.xai.methods.text_games import TokenKernelShap, TokenOcclusion
from clip_xai.xai.methods.text_methods import (
    TextExplainer,
    TokenAttentionGradient,
    TokenGradEclip,
    TokenGradXInput,
    TokenIntegratedGradients,
)
from clip_xai.xai.players import grid_players
from clip_xai.xai.target import SimilarityTarget
from tests.support.text_families import TEXT_FAMILIES, TextFamily
from tests.xai.conftest import assert_close

TEXT = ("a", "pink", "papule")


@pytest.fixture(params=TEXT_FAMILIES)
def family(request: pytest.FixtureRequest) -> TextFamily:
    torch.manual_seed(0)
    return TEXT_FAMILIES[request.param]()


@pytest.fixture()
def target(family: TextFamily) -> SimilarityTarget:
    return SimilarityTarget.from_texts(family.backbone, [" ".join(TEXT)])


def written(kept: tuple[int, ...] | list[int]) -> str:
    """The text as it would be written without the other words; a word's tokens hold the space in front of it."""
    return "".join(TEXT[word] if word == 0 else f" {TEXT[word]}" for word in kept)


def score(family: TextFamily, read: Tensor, kept: tuple[int, ...] | list[int]) -> Tensor:
    """The cosine ``[B]`` of images and of what is left of the text, by the library's own forward pass."""
    with torch.no_grad():
        text = family.embed(family.backbone.tokenize([written(kept)]))
    return (F.normalize(read, dim=-1) @ F.normalize(text, dim=-1).T)[:, 0]


@torch.no_grad()
def test_games_of_words_match_texts_written_without_them(
    family: TextFamily, target: SimilarityTarget, pixels: Tensor
) -> None:
    read = family.backbone.encode_image(pixels)
    whole = score(family, read, (0, 1, 2))
    left_out = [whole - score(family, read, [other for other in range(3) if other != word]) for word in range(3)]
    shapley = torch.zeros(2, 3)
    for order in permutations(range(3)):
        for position, word in enumerate(order):
            before = order[:position]
            gain = score(family, read, sorted((*before, word))) - score(family, read, sorted(before))
            shapley[:, word] += gain / 6
    one = TokenOcclusion(chunk_size=2).explain(family.backbone, pixels, target)
    assert one.tokens == [list(TEXT)]
    assert_close(one.values[:, 0], torch.stack(left_out, dim=1), 1e-4)
    many = TokenKernelShap(chunk_size=3).explain(family.backbone, pixels, target)
    assert_close(many.values[:, 0], shapley, 1e-4)


@torch.no_grad()
def test_interactions_match_all_joint_coalitions(family: TextFamily, target: SimilarityTarget, pixels: Tensor) -> None:
    """Four squares and three words: the mean second difference over all of what else is present (Banzhaf)."""
    found = Fixlip(index="banzhaf", presence=0.5, cells=2, fill=0.2).explain(family.backbone, pixels, target)
    owners = grid_players(24, 2, 2)
    value = {}
    for squares in product([0, 1], repeat=4):
        mask = torch.tensor(squares, dtype=torch.float32)[owners]
        read = family.backbone.encode_image(pixels * mask + 0.2 * (1 - mask))
        for words in product([0, 1], repeat=3):
            value[squares + words] = score(family, read, [word for word in range(3) if words[word]])
    expected = torch.zeros(2, 3, 4)
    for square, word in product(range(4), range(3)):
        for players, scored in value.items():
            sign = 1 if players[square] == players[4 + word] else -1
            expected[:, word, square] += sign * scored / 2**5
    maps = expected.unflatten(2, (2, 2)).repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
    assert_close(found.values[:, 0], maps, 1e-3)  # second differences of nearly equal scores
    assert found.kind == "pair" and found.tokens == [list(TEXT)]


@pytest.mark.parametrize("method", [TokenGradXInput(), TokenIntegratedGradients(steps=60)], ids=lambda one: one.name)
def test_gradients_of_words_stand_where_the_tokenizer_puts_them(
    family: TextFamily, target: SimilarityTarget, pixels: Tensor, method: TextExplainer
) -> None:
    """The library's own forward pass, the embeddings of the words' tokens scaled by a hook."""
    backbone, text = family.backbone, " ".join(TEXT)
    ids, count, first = backbone.tokenize([text]), len(backbone.token_spans(text)), backbone.first_token
    assert torch.equal(ids[0, :first], backbone.tokenize([""])[0, :first])
    assert backbone.tokenize([""])[0, first] == ids[0, first + count]  # the end marker stands right behind the words
    words = torch.zeros(ids.shape[1], 1)
    words[first : first + count] = 1
    read = F.normalize(backbone.encode_image(pixels), dim=-1)

    def scaled(share: Tensor) -> Tensor:
        handle = family.words.register_forward_hook(
            lambda module, inputs, output: output * (1 - words + share * words)[: output.shape[-2]]
        )
        embedding = F.normalize(family.embed(ids), dim=-1)
        handle.remove()
        return (read @ embedding.T)[:, 0]

    share = torch.ones((), requires_grad=True)
    whole = scaled(share)
    if isinstance(method, TokenGradXInput):  # the derivative in one factor on all of them
        expected = torch.stack([torch.autograd.grad(one, share, retain_graph=True)[0] for one in whole])
    else:
        expected = (whole - scaled(torch.zeros(()))).detach()
    found = method.explain(backbone, pixels, target)
    assert found.tokens == [list(TEXT)]
    assert_close(found.values[:, 0].sum(dim=1), expected, 2e-3)


@pytest.mark.parametrize("method", [TokenGradEclip(), TokenAttentionGradient()], ids=lambda one: one.name)
def test_attention_of_words_is_that_of_each_word_and_of_no_other_text(
    family: TextFamily, target: SimilarityTarget, pixels: Tensor, method: TextExplainer
) -> None:
    if family.backbone.trace_text(family.backbone.tokenize(["a"])).read_rows is None:  # the mean over all tokens
        with pytest.raises(UserError, match="needs a text tower that is read at one token: choose token_gradxinput"):
            method.explain(family.backbone, pixels, target)
        return
    found = method.explain(family.backbone, pixels, target)
    assert found.tokens == [list(TEXT)]
    assert found.values.shape == (2, 1, 3) and found.values.isfinite().all() and found.values.abs().sum() > 0
    assert_close(found.scores[:, 0], score(family, family.backbone.encode_image(pixels), (0, 1, 2)), 1e-4)
    others = SimilarityTarget.from_texts(family.backbone, [" ".join(TEXT), "melanoma of the arm"])
    beside = method.explain(family.backbone, pixels, others)
    assert_close(beside.values[:, 0, :3], found.values[:, 0], 1e-4)
