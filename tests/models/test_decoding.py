"""Batched decoding with a cache against one image at a time without one, token by token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from benchmarks.naive_decoding import naive_caption
from clip_xai.errors import UserError
from clip_xai.models.captioner import Captioner
from clip_xai.models.decoding import BannedPhrases, finished, is_sentence_end
from clip_xai.models.settings import Decoding
from clip_xai.models.tokenizer import CaptionTokenizer
from tests.models.conftest import SMALL_MAPPERS, TEXTS, build_captioner
from tests.support.captions import log_prob

LENGTH = 16
MODES = {
    "greedy": Decoding(),
    "longest": Decoding(max_new_tokens=5),
    "shortest": Decoding(min_new_tokens=11),
    "penalties": Decoding(repetition_penalty=1.3, no_repeat_ngram_size=2),
    "beams": Decoding(beams=3),
    "beams, long": Decoding(beams=3, length_penalty=2.0),
    "beams, short": Decoding(beams=4, length_penalty=-1.0, early_stopping=True),
    "original": Decoding(
        beams=4,
        min_new_tokens=6,
        no_repeat_ngram_size=4,
        repetition_penalty=1.15,
        length_penalty=0.6,
        early_stopping=True,
        banned_phrases=("papule with", "most likely"),
    ),
    "draws": Decoding(sample=True, seed=3),
    "hot draws": Decoding(sample=True, temperature=1.7, top_k=40, top_p=0.8, seed=11),
    "banned": Decoding(banned_phrases=("lesion", "pink papule")),
    "banned draws": Decoding(sample=True, banned_phrases=("a", "TWO")),
    "stops": Decoding(stop_at="a"),
    "stops, beams": Decoding(beams=3, stop_at="a"),
    "stops, later": Decoding(beams=2, stop_at="n", min_new_tokens=5),
    "stops, draws": Decoding(sample=True, stop_at="l", seed=5),
}


@pytest.fixture(scope="module")
def half_learnt() -> dict[str, Captioner]:
    return {}


@torch.enable_grad()
def learnt(name: str, kept: dict[str, Captioner], parts: tuple) -> tuple[Captioner, Tensor]:
    """A captioner that has seen its captions a few times: unsure, and sometimes it ends."""
    torch.manual_seed(7)
    read = torch.randn(4, 16) if name.startswith(("bottleneck", "clipcap")) else torch.randn(4, 9, 32)
    if name not in kept:
        captioner = build_captioner(name, *parts)
        ids = captioner.encode_captions([*TEXTS, "two small words"])
        optimiser = torch.optim.AdamW([p for p in captioner.parameters() if p.requires_grad], lr=2e-3)
        for _ in range(12):
            optimiser.zero_grad()
            captioner.loss(read, ids).backward()
            optimiser.step()
        kept[name] = captioner
    return kept[name], read


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["resampler", pytest.param("cross_attention", marks=pytest.mark.slow)])
def test_a_batch_with_a_cache_writes_what_a_loop_writes(
    name: str, mode: str, half_learnt: dict[str, Captioner], captioner_parts: tuple
) -> None:
    captioner, read = learnt(name, half_learnt, captioner_parts)
    decoding = replace(MODES[mode], max_new_tokens=min(LENGTH, MODES[mode].max_new_tokens), whole_sentences=False)
    captions = captioner.generate(read, decoding)
    for row, caption in enumerate(captions):
        ids = naive_caption(captioner, read[row], decoding, row=row)
        assert list(caption.token_ids) == ids
        assert caption.text == captioner.tokenizer.decode(ids)
        assert decoding.min_new_tokens <= len(ids) <= decoding.max_new_tokens


@pytest.mark.parametrize("name", [name for name in SMALL_MAPPERS if name not in ("resampler", "cross_attention")])
@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_the_other_mappers_too(name: str, mode: str, half_learnt: dict[str, Captioner], captioner_parts: tuple) -> None:
    test_a_batch_with_a_cache_writes_what_a_loop_writes(name, mode, half_learnt, captioner_parts)


@pytest.mark.parametrize("mode", ["greedy", "beams", "draws"])
@pytest.mark.parametrize("name", ["resampler", "cross_attention"])
def test_prompts_of_many_lengths_are_padded_on_the_left(
    name: str, mode: str, half_learnt: dict[str, Captioner], captioner_parts: tuple
) -> None:
    captioner, read = learnt(name, half_learnt, captioner_parts)
    prompts = ["", "a brown lesion in the upper left", "two", "papule, scale"]
    decoding = replace(MODES[mode], max_new_tokens=10, whole_sentences=False)
    captions = captioner.generate(read, decoding, prompts=prompts)
    for row, (prompt, caption) in enumerate(zip(prompts, captions, strict=True)):
        assert list(caption.token_ids) == naive_caption(captioner, read[row], decoding, prompt, row)


@torch.no_grad()
def test_log_probabilities_after_padded_prompts_are_those_of_each_alone(
    half_learnt: dict[str, Captioner], captioner_parts: tuple
) -> None:
    captioner, read = learnt("cross_attention", half_learnt, captioner_parts)
    prompts = ["", "a brown lesion in the upper left", "two", "papule, scale"]
    ids = captioner.encode_captions([*TEXTS, "a"])
    found = log_prob(captioner, read, ids, prompts)
    for row, prompt in enumerate(prompts):
        alone = log_prob(captioner, read[row : row + 1], ids[row : row + 1], [prompt])
        torch.testing.assert_close(found[row], alone[0], rtol=1e-4, atol=1e-4)
    supervised = (ids != -100).sum()
    torch.testing.assert_close(captioner.loss(read, ids, prompts=prompts), -found.sum() / supervised)


def test_draws_depend_on_seed_and_row_alone(half_learnt: dict[str, Captioner], captioner_parts: tuple) -> None:
    captioner, read = learnt("resampler", half_learnt, captioner_parts)
    decoding = Decoding(sample=True, max_new_tokens=LENGTH)
    all_of_them = captioner.generate(read, decoding)
    assert captioner.generate(read[[2, 0]], decoding, rows=[2, 0]) == [all_of_them[2], all_of_them[0]]
    assert captioner.generate(read, replace(decoding, seed=1)) != all_of_them


def test_draws_follow_the_distribution(half_learnt: dict[str, Captioner], captioner_parts: tuple) -> None:
    captioner, read = learnt("resampler", half_learnt, captioner_parts)
    many = 3000
    decoding = Decoding(sample=True, max_new_tokens=1, whole_sentences=False)
    captions = captioner.generate(read[:1].expand(many, -1, -1), decoding)
    with torch.no_grad():
        words = captioner.language_model.transformer.wte(torch.tensor([[0]]))
        expected = captioner.caption_logits(captioner.prefix(read[:1]), words)[0, 0].softmax(-1)
    ids = [caption.token_ids[0] if caption.token_ids else captioner.tokenizer.eos_id for caption in captions]
    counts = torch.bincount(torch.tensor(ids), minlength=len(expected)) / many
    # Six standard errors of a share.
    assert ((counts - expected).abs() <= 6 * (expected * (1 - expected) / many).sqrt() + 2 / many).all()


@pytest.mark.parametrize("phrase", ["lesion", "a small", "Pink Papule", "s", "two words"])
def test_a_banned_phrase_is_never_written_however_it_is_spelt(
    phrase: str, half_learnt: dict[str, Captioner], captioner_parts: tuple
) -> None:
    captioner, read = learnt("resampler", half_learnt, captioner_parts)
    for decoding in (Decoding(), Decoding(beams=3), Decoding(sample=True, temperature=0.7)):
        free = captioner.generate(read, replace(decoding, max_new_tokens=LENGTH))
        banned = captioner.generate(read, replace(decoding, max_new_tokens=LENGTH, banned_phrases=(phrase,)))
        assert not any(phrase.lower() in caption.text.lower() for caption in banned)
        for before, after in zip(free, banned, strict=True):
            if phrase.lower() not in before.text.lower() and decoding == Decoding():
                assert after == before  # what did not occur changes nothing (a draw it does: the shares of the rest)


def test_a_ban_holds_with_and_without_a_leading_space_and_across_token_borders() -> None:
    tokenizer = CaptionTokenizer.train(["follow up", "follow", "up"] * 9, vocabulary_size=300)
    ban = BannedPhrases(["Follow up "], tokenizer)
    for written in ("follow", "x follow", "FOLLOW", "fo", "", "(", "follow u"):
        ids = tokenizer.encode(written)
        scores = ban(torch.tensor([ids], dtype=torch.long), torch.zeros(1, tokenizer.vocabulary_size))
        for token in range(tokenizer.vocabulary_size):
            completes = "follow up" in tokenizer.decode([*ids, token]).lower()
            assert scores[0, token].isneginf() == completes, (written, token)


def test_the_bytes_of_tokens_are_what_the_tokenizer_decodes(tokenizer: CaptionTokenizer) -> None:
    for token in range(tokenizer.vocabulary_size):
        assert tokenizer.token_bytes[token].decode(errors="replace") == tokenizer.decode([token])


@pytest.mark.parametrize(
    ("text", "kept", "complete"),
    [
        ("A papule. It is pink. It may be", "A papule. It is pink.", True),
        ("A papule (pink.) It may", "A papule (pink.)", True),
        ("What is it? A melan", "What is it?", True),
        ("It is 1.5 cm wide and pi", "It is 1.5 cm wide and", False),
        ("A papule. It measures 1.", "A papule.", True),
        ("A papule, e.g. a nevus of", "A papule, e.g. a nevus", False),
        ("A papule, e.g. a nevus. Then, i.e. aft", "A papule, e.g. a nevus.", True),
        ("Age: 55, Sex: male, Loc", "Age: 55, Sex: male,", False),
        ("A papule. It is pink.", "A papule. It is pink.", True),
    ],
)
def test_a_caption_is_cut_back_to_its_last_whole_sentence(text: str, kept: str, complete: bool) -> None:
    tokenizer = CaptionTokenizer.train([text] * 3, vocabulary_size=300)
    caption = finished(tokenizer.encode(text), tokenizer, whole_sentences=True)
    assert (caption.text, caption.complete) == (kept, complete)
    assert tokenizer.decode(caption.token_ids) == kept


def test_a_caption_that_the_model_ended_is_left_as_it_is(tokenizer: CaptionTokenizer) -> None:
    ids = [*tokenizer.encode("a papule. a small"), tokenizer.eos_id, tokenizer.eos_id]
    caption = finished(ids, tokenizer, whole_sentences=True)
    assert (caption.text, caption.complete) == ("a papule. a small", True)
    assert tokenizer.eos_id not in caption.token_ids


def test_captions_that_run_out_of_tokens_end_with_a_sentence(
    half_learnt: dict[str, Captioner], captioner_parts: tuple
) -> None:
    captioner, read = learnt("resampler", half_learnt, captioner_parts)
    whole = Decoding(sample=True, temperature=2.0, max_new_tokens=60)
    raw = captioner.generate(read, replace(whole, whole_sentences=False))
    for caption, before in zip(captioner.generate(read, whole), raw, strict=True):
        assert before.text.startswith(caption.text)
        ended = len(before.token_ids) < 60
        assert caption == before if ended else not caption.complete or is_sentence_end(caption.text, " ")


def test_too_few_positions_are_one_line_that_says_how_many_there_are(captioner: Captioner) -> None:
    read = torch.randn(1, 16) if captioner.reads == "pooled" else torch.randn(1, 9, 32)
    with pytest.raises(UserError, match=r"set generation\.max_new_tokens=1"):
        captioner.generate(read, Decoding(max_new_tokens=200))
    limit = 128 - captioner.prefix(read).shape[1] + captioner.mapper.memory_length + 1
    assert len(captioner.generate(read, Decoding(max_new_tokens=limit, whole_sentences=False))[0].token_ids) <= limit


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(beams=3), Decoding(sample=True, seed=2)])
def test_a_caption_ends_with_the_mark_that_stops_it(
    decoding: Decoding, half_learnt: dict[str, Captioner], captioner_parts: tuple
) -> None:
    captioner, read = learnt("resampler", half_learnt, captioner_parts)
    captions = captioner.generate(read, replace(decoding, stop_at="a", max_new_tokens=60))
    stopped = [caption for caption in captions if caption.text.endswith("a")]
    assert stopped and all(caption.complete for caption in stopped)
    for caption in captions:
        spelt = [captioner.tokenizer.decode([token]) for token in caption.token_ids]
        assert not any(token.endswith("a") for token in spelt[:-1])
        assert captioner.tokenizer.decode(caption.token_ids) == caption.text


def test_a_mark_with_which_no_token_ends_is_one_line(captioner: Captioner) -> None:
    read = torch.randn(1, 16) if captioner.reads == "pooled" else torch.randn(1, 9, 32)
    with pytest.raises(UserError, match=r"generation\.stop_at='papule\. A': no token of the tokenizer ends with it"):
        captioner.generate(read, Decoding(stop_at="papule. A", max_new_tokens=4))


def test_settings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(UserError, match=r"generation\.beams=1, not 4"):
        Decoding(beams=4, sample=True)
    with pytest.raises(UserError, match="more than max_new_tokens=5"):
        Decoding(max_new_tokens=5, min_new_tokens=6)


def test_a_language_model_with_more_ids_than_tokens_can_be_banned_and_decoded(captioner_parts: tuple) -> None:
    backbone, _, tokenizer = captioner_parts
    from clip_xai.models.language_model import tiny_config

    torch.manual_seed(0)
    wide = GPT2LMHeadModel(tiny_config(tokenizer.vocabulary_size + 50, tokenizer.eos_id)).eval()
    captioner = build_captioner("resampler", backbone, wide, tokenizer)
    decoding = Decoding(max_new_tokens=9, banned_phrases=("lesion",), beams=2)
    assert len(captioner.generate(torch.randn(2, 9, 32), decoding)) == 2
