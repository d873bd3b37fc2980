"""The ledger of a caption: closed forms of planted captioners, and a slow loop on real ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pytest
import torch

from clip_xai.explanations.ledger import ReadCaption, columns_of, ledger_of
from clip_xai.explanations.other_patients import OtherPatients, drawn_statements, one_of_each_group
from clip_xai.models.captioner import Captioner
from clip_xai.report.ledger import FOLLOWS, NEITHER, SEEN, Ledger, ledger_from_plain
from clip_xai.xai.slots import sampled_captions, slots_of, stated_in, states
from clip_xai.xai.word_swaps import swap_effects, swapped
from tests.support.planted_captioner import END, images, planted_captioner

WORDS = "a red black lesion melanoma scar"
RED = {1.0: 0.95, 0.0: 0.3}  # p(red | image)
MELANOMA = {"red": 0.9, "black": 0.2}
SAMPLES = 400


def by_the_word(number: float, before: tuple[str, ...]) -> Mapping[str, float]:
    """The diagnosis depends on the colour that was written, and on nothing else."""
    if before[-1:] in (("red",), ("black",)):
        return {"lesion": 1.0}
    if before[-1:] == ("lesion",):
        chance = MELANOMA["red"] if "red" in before else MELANOMA["black"]
        return {"melanoma": chance, "scar": 1 - chance}
    if len(before) > 2:
        return {END: 1.0}
    return {"a": 1.0} if not before else {"red": RED[number], "black": 1 - RED[number]}


def by_the_image(number: float, before: tuple[str, ...]) -> Mapping[str, float]:
    """The diagnosis depends on the image, and not on the colour that was written."""
    if before[-1:] == ("lesion",):
        return {"melanoma": RED[number], "scar": 1 - RED[number]}
    if before[-1:] == ("a",):
        return {"red": 0.5, "black": 0.5}
    return by_the_word(number, before)


def others_of(captioner: Captioner, read: torch.Tensor, samples: int, groups: list[str] | None = None) -> OtherPatients:
    stated = drawn_statements(captioner, read, samples, 0, range(100, 100 + len(read)))
    names = groups or [str(row) for row in range(len(read))]
    return OtherPatients(read, tuple(names), tuple(stated), (samples,) * len(read), (None,) * len(read))


def ledger(captioner: Captioner, number: float, caption: str) -> Ledger:
    """The ledger of a caption of one image, against 20 others, of which a quarter have the number 1."""
    others = others_of(captioner, images(*[1.0] * 5, *[0.0] * 15), SAMPLES)
    own = drawn_statements(captioner, images(number), SAMPLES, 0, [7])[0]
    asked = ReadCaption(images(number), tuple(captioner.tokenizer.encode(caption)), own, SAMPLES)
    return ledger_of(captioner, asked, others, others.but("", 0))


def test_what_depends_on_an_earlier_word_is_carried_by_it() -> None:
    captioner = planted_captioner(WORDS, by_the_word)
    found = ledger(captioner, 1.0, " a red lesion melanoma")
    colour, diagnosis = found.words
    share = {number: red * 0.9 + (1 - red) * 0.2 for number, red in RED.items()}
    base = (share[1.0] + 3 * share[0.0]) / 4
    one = diagnosis.columns
    assert one.direct.value == pytest.approx(0, abs=1e-6)
    assert one.carried.value == pytest.approx(math.log(0.9 / base), abs=0.03)
    assert one.total.value == pytest.approx(math.log(share[1.0] / base), abs=0.06)
    assert one.remainder == pytest.approx(math.log(share[1.0] / 0.9), abs=0.06)
    assert diagnosis.verdict == FOLLOWS and diagnosis.carrier == "red"
    assert diagnosis.swaps == (pytest.approx(math.log(0.9 / 0.2), abs=1e-5),)
    # The colour has no content word before it, and the words that do stand there are the same for every image: what C
    # would be by its formula is then 0 but for the captions drawn.
    mean = (RED[1.0] + 3 * RED[0.0]) / 4
    assert colour.columns.direct.value == pytest.approx(math.log(RED[1.0] / mean), abs=1e-6)
    assert asdict(colour.columns.carried) == {"value": 0.0, "low": 0.0, "high": 0.0}
    formula = math.log(mean) - math.log(colour.columns.base)
    assert abs(formula) < 0.04 and colour.columns.remainder == pytest.approx(0, abs=0.06)
    assert colour.verdict == SEEN and colour.carrier is None


def test_what_depends_on_the_image_alone_is_seen() -> None:
    found = ledger(planted_captioner(WORDS, by_the_image), 1.0, " a black lesion melanoma")
    colour, diagnosis = found.words
    one = diagnosis.columns
    expected = math.log(RED[1.0]) - math.log((RED[1.0] + 3 * RED[0.0]) / 4)
    assert one.direct.value == pytest.approx(expected, abs=1e-6)
    assert one.total.value == pytest.approx(expected, abs=0.06)
    assert one.carried.value == pytest.approx(0, abs=0.04) and one.remainder == pytest.approx(0, abs=0.06)
    assert diagnosis.verdict == SEEN and diagnosis.swaps == (pytest.approx(0, abs=1e-5),)
    assert colour.verdict == NEITHER and colour.columns.direct.value == pytest.approx(0, abs=1e-6)
    assert "not in the picture" in colour.map_note


def test_all_of_it_is_that_of_a_loop_over_photographs_and_words(random_captioner: Captioner) -> None:
    captioner = random_captioner
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        read = captioner.read(torch.rand(12, 3, 24, 24, generator=generator))
    caption = "A small red lesion in the centre left with streaks. This is most likely melanoma."
    ids = tuple(captioner.tokenizer.encode(caption))
    others = others_of(captioner, read[1:], 5)
    own = drawn_statements(captioner, read[:1], 5, 0, [3])[0]
    found = ledger_of(captioner, ReadCaption(read[:1], ids, own, 5), others, others.but("", 0))
    slots = slots_of(captioner, ids)
    numbers = [3, *range(100, 111)]
    drawn = [
        sampled_captions(captioner, one[None], 5, 0, [number])[0] for one, number in zip(read, numbers, strict=True)
    ]
    assert [(word.kind, word.value) for word in found.words] == [(slot.kind, slot.value) for slot in slots]
    for place, (word, slot) in enumerate(zip(found.words, slots, strict=True)):

        def chance(image: torch.Tensor, tokens: tuple[int, ...] = slot.tokens) -> float:
            log_p = 0.0
            for token in tokens:
                before = torch.tensor([ids[:token]], dtype=torch.long)
                prefix = captioner.prefix(image)
                log_p += float(captioner.next_log_probs(prefix, before, torch.tensor([token]))[0, ids[token]])
            return math.exp(log_p)

        hits = [sum(states(one.text, slot.kind, slot.value, captioner.vocabulary) for one in some) for some in drawn]

        with torch.no_grad():
            here = chance(read[:1])
            there = np.mean([chance(one[None]) for one in read[1:]])
        base, share = (sum(hits[1:]) + 0.5) / (5 * 11 + 1), (hits[0] + 0.5) / 6
        one = word.columns
        assert word.p == pytest.approx(here, rel=1e-4)
        assert one.direct.value == pytest.approx(math.log(here / there), abs=1e-4)
        assert one.carried.value == pytest.approx(0 if not place else math.log(there / base), abs=1e-4)
        assert one.total.value == pytest.approx(math.log(share / base), abs=1e-9)
        assert one.direct.value + one.carried.value + one.remainder == pytest.approx(one.total.value, abs=1e-12)
    assert ledger_from_plain(asdict(found)) == found


def test_swapping_a_word_is_scoring_the_caption_with_another_one(random_captioner: Captioner) -> None:
    captioner = random_captioner
    ids = captioner.tokenizer.encode("A red lesion with streaks and a crust.")
    slots = slots_of(captioner, ids)
    with torch.no_grad():
        read = captioner.read(torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(2)))
    effects = swap_effects(captioner, read, ids, slots)
    colours = [value for value in captioner.vocabulary.attributes["colour"] if value != "red"]
    texts = [captioner.tokenizer.decode(swapped(captioner, ids, slots[0], value)) for value in colours]
    assert texts[0] == "A light brown lesion with streaks and a crust."

    def of_crust(tokens: list[int]) -> float:
        behind = [token - len(ids) for token in slots[2].tokens]
        found = captioner.token_log_probs(read, torch.tensor([tokens]))[0, behind]
        return float(found.detach().double().sum())

    there = [of_crust(swapped(captioner, ids, slots[0], value)) for value in colours]
    slow = of_crust(ids) - math.log(np.mean(np.exp(there)))
    assert float(effects[2, 0]) == pytest.approx(slow, abs=1e-4)
    assert effects.triu().abs().sum() == 0


def test_a_longer_word_for_which_there_is_no_room_does_not_count(
    random_captioner: Captioner, caplog: pytest.LogCaptureFixture
) -> None:
    captioner = random_captioner
    tokenizer, room = captioner.tokenizer, captioner.room()
    start, end = tokenizer.encode("A red lesion"), tokenizer.encode(" and a crust")
    filler = tokenizer.encode(",")
    assert len(filler) == 1
    ids = [*start, *filler * (room - 4 - len(start) - len(end)), *end]
    slots = slots_of(captioner, ids)
    assert [slot.value for slot in slots] == ["red", "crust"]
    with torch.no_grad():
        read = captioner.read(torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(2)))
    captions = [
        swapped(captioner, ids, slots[0], value)
        for value in captioner.vocabulary.attributes["colour"]
        if value != "red"
    ]
    fitting = [tokens for tokens in captions if len(tokens) <= room]
    assert 0 < len(fitting) < len(captions)

    def of_crust(tokens: list[int]) -> float:
        behind = [token - len(ids) for token in slots[1].tokens]
        return float(captioner.token_log_probs(read, torch.tensor([tokens]))[0, behind].detach().double().sum())

    slow = of_crust(ids) - math.log(np.mean([math.exp(of_crust(tokens)) for tokens in fitting]))
    assert float(swap_effects(captioner, read, ids, slots)[1, 0]) == pytest.approx(slow, abs=1e-4)
    assert f"{len(captions) - len(fitting)} of {len(captions)} other values leave no room for 'crust'" in caplog.text


def test_intervals_hold_what_would_be_found_on_all_patients() -> None:
    generator = np.random.default_rng(0)
    own, share, count, drawn = math.log(0.8), 0.7, 20, 64
    inside = {"direct": 0, "carried": 0, "total": 0}
    trials = 300
    for _ in range(trials):
        blind, stating = generator.beta(2, 4, count), generator.beta(2, 6, count)
        found = columns_of(
            own, np.log(blind), generator.binomial(drawn, share), drawn,
            generator.binomial(drawn, stating).astype(float), np.full(count, drawn), generator,
        )  # fmt: skip
        truth = {"direct": 0.8 / (1 / 3), "carried": (1 / 3) / 0.25, "total": share / 0.25}
        for name, ratio in truth.items():
            one = getattr(found, name)
            inside[name] += one.low <= math.log(ratio) <= one.high
    assert all(0.91 <= hits / trials <= 0.985 for hits in inside.values()), inside


def test_a_captioner_that_does_not_look_has_an_interval_around_nothing() -> None:
    generator = np.random.default_rng(0)
    found = columns_of(math.log(0.6), np.full(16, math.log(0.6)), 38, 64, np.full(16, 38.0), np.full(16, 64), generator)
    assert found.direct.low < 0 < found.direct.high and not found.direct.holds
    few = columns_of(
        math.log(0.6), np.log(np.linspace(0.1, 0.2, 9)), 38, 64, np.full(9, 3.0), np.full(9, 64), generator
    )
    assert math.isnan(few.direct.low) and not few.direct.holds


def test_others_are_of_other_patients_and_of_the_diagnosis() -> None:
    read = torch.arange(5.0)[:, None]
    stated = tuple(Counter({("colour", "red"): row}) for row in range(5))
    others = OtherPatients(read, ("a", "b", "c", "d", "e"), stated, (4, 5, 6, 7, 8), ("x", "x", None, "x", "y"))
    left = others.but("b", 3)
    assert left.groups == ("a", "c", "d") and left.read[:, 0].tolist() == [0.0, 2.0, 3.0]
    alike = others.but("b", 5, "x")
    assert alike.samples == (4, 7)
    assert alike.groups == ("a", "d") and alike.stated[1]["colour", "red"] == 3
    assert one_of_each_group(list(range(6)), list("aabbcc"), 2) == [0, 2]


def test_one_reading_states_what_single_ones_do(random_captioner: Captioner) -> None:
    vocabulary = random_captioner.vocabulary
    text = "A small red or pink lesion with streaks and a crust, not a scar. This is most likely melanoma."
    found = stated_in(text, vocabulary)
    known = {("structures", name) for name in vocabulary.structures}
    known |= {("diagnosis", name) for name in vocabulary.diagnoses}
    known |= {(kind, value) for kind, values in vocabulary.attributes.items() for value in values}
    assert found == {pair for pair in known if states(text, *pair, vocabulary)}
    assert ("diagnosis", "melanoma") in found and ("colour", "red") not in found
