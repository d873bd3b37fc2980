"""Slots of captions: against exact enumeration of every continuation by a slow loop, and against counts of samples."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from clip_xai.data.vocabulary import Vocabulary
from clip_xai.models.captioner import Captioner
from clip_xai.models.continuation import Continuation
from clip_xai.xai.slots import (
    log_odds_at,
    rivals_of,
    sampled_captions,
    share_stating,
    slot_log_odds,
    slots_of,
    states,
)  # fmt: skip

CAPTION = "A small red lesion in the centre left with streaks. This is most likely melanoma."


@pytest.fixture(scope="module")
def captioner(random_captioner: Captioner) -> Captioner:
    return random_captioner


@pytest.fixture(scope="module")
def read(captioner: Captioner) -> torch.Tensor:
    with torch.no_grad():
        return captioner.read(torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1)))


def chance(captioner: Captioner, read: torch.Tensor, before: list[int], ids: list[int]) -> float:
    """p(ids | image, before), by the captioner's own scoring of a whole caption."""
    found = captioner.token_log_probs(read, torch.tensor([[*before, *ids]]))[0, len(before) :]
    return float(found.detach().double().sum().exp())


def test_the_content_words_of_a_caption_are_found_with_their_tokens(captioner: Captioner) -> None:
    ids = captioner.tokenizer.encode(CAPTION)
    found = slots_of(captioner, ids)
    assert [(slot.kind, slot.value) for slot in found] == [
        ("size", "small"), ("colour", "red"), ("position", "centre left"), ("structures", "streaks"),
        ("diagnosis", "melanoma"),
    ]  # fmt: skip
    for slot in found:
        said = captioner.tokenizer.decode([ids[token] for token in slot.tokens]).strip()
        assert CAPTION[slot.start : slot.end] in said


@pytest.mark.parametrize("kind", ["colour", "position", "structures"])
def test_log_odds_are_those_of_a_slow_enumeration(captioner: Captioner, read: torch.Tensor, kind: str) -> None:
    ids = captioner.tokenizer.encode(CAPTION)
    slot = next(one for one in slots_of(captioner, ids) if one.kind == kind)
    before = ids[: slot.tokens[0]]
    values = rivals_of(slot.kind, slot.value, captioner.vocabulary)
    phrases = {tuple(ids[slot.tokens[0] : slot.tokens[-1] + 1]): slot.value}
    for value, texts in values.items():
        for text in texts:
            phrases.setdefault(tuple(captioner.tokenizer.encode(" " + text)), value)
    found = slot_log_odds(captioner, read, ids, slot)
    for row in range(len(read)):
        # A string of tokens belongs to the longest phrase that it begins with.
        mass = dict.fromkeys(values, 0.0)
        for one, value in phrases.items():
            here = chance(captioner, read[row : row + 1], before, list(one))
            longer = [two for two in phrases if len(two) > len(one) and two[: len(one)] == one]
            nearest = [
                two
                for two in longer
                if not any(len(two) > len(three) and two[: len(three)] == three for three in longer)
            ]
            mass[value] += here - sum(chance(captioner, read[row : row + 1], before, list(two)) for two in nearest)
        own = mass.pop(slot.value)
        assert float(found[row]) == pytest.approx(math.log(own) - math.log(sum(mass.values())), abs=2e-4)
    longer_than_another = [one for one, two in itertools.permutations(phrases, 2) if one[: len(two)] == two]
    assert (kind == "colour") <= bool(longer_than_another)  # red, reddish: the rule is at work
    together = log_odds_at(captioner, read, [(ids, slot), (ids, slots_of(captioner, ids)[0]), (ids, slot)])
    torch.testing.assert_close(together[[0, 2]], found[[0, 2]], atol=1e-5, rtol=0)


def test_diagnoses_above_and_below_are_no_rivals(captioner: Captioner) -> None:
    vocabulary: Vocabulary = captioner.vocabulary
    rivals = rivals_of("diagnosis", "seborrheic keratosis", vocabulary)
    assert next(iter(rivals)) == "seborrheic keratosis" and "benign keratosis" not in rivals and "melanoma" in rivals


def test_samples_have_the_chances_of_the_model(captioner: Captioner, read: torch.Tensor) -> None:
    drawn = sampled_captions(captioner, read[:1], samples=600)[0]
    log_probs = Continuation(captioner, captioner.prefix(read[:1]), []).log_probs([(0, [])])
    likeliest = int(log_probs.argmax())
    expected = float(log_probs.max().exp())
    share = sum(bool(one.token_ids) and one.token_ids[0] == likeliest for one in drawn) / len(drawn)
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / len(drawn))
    alike = sampled_captions(captioner, read[:1].expand(2, -1, -1), samples=3, numbers=[5, 5])
    assert alike[0] == alike[1]
    assert share_stating(drawn[:3], "colour", "red", captioner.vocabulary) in {(k + 0.5) / 4 for k in range(4)}
    assert states("a scar, not melanoma", "diagnosis", "scar", captioner.vocabulary)
