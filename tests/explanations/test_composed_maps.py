"""Maps that follow the words: against a slow recursion, and on a planted captioner whose diagnosis follows a word."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from clip_xai.errors import UserError
from clip_xai.explanations.composed_maps import chain_in_words, composed_answer, composed_maps
from clip_xai.report.assemble import Answer
from clip_xai.report.explained import TOTAL_EFFECT
from clip_xai.report.ledger import Columns, Estimate, Ledger, LedgerWord
from clip_xai.xai.attribution import Attribution

TOTALS = [1.2, 0.8, -0.3, 2.0, 1.5]
LOWS = [0.4, 0.1, -0.9, -0.2, 0.6]
DIRECT = [1.2, 0.5, -0.3, 0.02, 0.1]
CARRIED = [0.0, 0.2, 0.1, 1.9, 1.0]
SWAPS = [[], [0.3], [-0.1, -0.2], [0.6, 0.2, 5.0], [0.4, -0.5, 1.0, 3.0]]


def planted() -> Ledger:
    """Five words, of which the third is not decided by the image and the fourth's total reaches below 0."""
    words = []
    for t in range(5):
        direct, carried = (Estimate(value, value - 0.1, value + 0.1) for value in (DIRECT[t], CARRIED[t]))
        columns = Columns(direct, carried, Estimate(TOTALS[t], LOWS[t], TOTALS[t] + 1), 0.1, 32)
        swaps = tuple(SWAPS[t])
        words.append(LedgerWord(f"word{t}", "colour", "red", (t, t + 1), 0.5, 0.5, 0.1, columns, None, swaps, None))
    return Ledger(tuple(words), 32, 64, 0, None)


def slow(t: int, direct: list[list[float]]) -> list[float]:
    """One map by its definition, word by word and place by place."""
    size = sum(abs(value) for value in direct[t])
    own = [value / size for value in direct[t]]
    allowed = {s: SWAPS[t][s] for s in range(t) if SWAPS[t][s] > 0 and LOWS[s] > 0}
    if not allowed:
        return own
    found = []
    for place, value in enumerate(own):
        carried = 0.0
        for s, effect in allowed.items():
            before = slow(s, direct)[place]
            starts = not [r for r in range(s) if SWAPS[s][r] > 0 and LOWS[r] > 0]
            carried += effect / sum(allowed.values()) * (before if starts else before / TOTALS[s])
        found.append(DIRECT[t] * value + CARRIED[t] * carried)
    return found


def test_composed_maps_are_those_of_a_slow_recursion() -> None:
    direct = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = composed_maps(direct, planted())
    expected = [slow(t, direct.flatten(1).tolist()) for t in range(5)]
    torch.testing.assert_close(found.flatten(1), torch.tensor(expected, dtype=torch.float64))
    assert planted().shares(3) == {0: pytest.approx(0.75), 1: pytest.approx(0.25)}
    assert planted().shares(4) == {0: 1.0}  # neither the word that speaks against it nor those that nothing decides
    torch.testing.assert_close(found[2], direct[2] / direct[2].abs().sum())  # nothing leads to it: the direct map
    equal = composed_maps(direct, planted(), [{s: 1 / t for s in range(t)} for t in range(5)])
    assert not torch.allclose(equal[4], found[4])


def test_a_map_without_heat_stays_one() -> None:
    direct = torch.ones(5, 2, 2)
    direct[0] = 0
    found = composed_maps(direct, planted())
    assert found[0].abs().sum() == 0 and torch.isfinite(found).all()


def test_an_answer_says_what_its_maps_are_composed_of() -> None:
    ledger = planted()
    labels = [f"colour: {word.text}" for word in ledger.words]
    values = torch.rand(1, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    found = Attribution(values, "gradcam", {}, torch.zeros(1, 5), labels, True)
    rollout = replace(found, method="attention_rollout", text_dependent=False)
    over_words = Attribution(torch.zeros(1, 5, 3), "token_occlusion", {}, torch.zeros(1, 5), labels, True, "text",
                             tokens=[["a"] * 3] * 5)  # fmt: skip
    answer = Answer("log-probability", [None] * 5, [found, rollout, over_words], [{}, {}, {}])
    composed = composed_answer(answer, ledger)
    assert composed.score_name == TOTAL_EFFECT and [one.method for one in composed.attributions] == ["gradcam"]
    torch.testing.assert_close(composed.attributions[0].scores, torch.tensor([TOTALS]))
    assert composed.contexts[0].startswith("It does not follow from any word")
    # 0.2 [0.1, 0.3] of a word is named; what reaches down to 0 is not.
    assert composed.contexts[1] == "Directly 0.5 nats, through the words before 0.2: “word0” 100%."
    faint = replace(ledger.words[1], columns=replace(ledger.words[1].columns, carried=Estimate(0.2, -0.1, 0.5)))
    faint_ledger = replace(ledger, words=(ledger.words[0], faint, *ledger.words[2:]))
    assert chain_in_words(faint_ledger, 1).endswith("bring, 0.2, is not told from nothing.")
    assert composed.contexts[3] == "Directly 0.02 nats, through the words before 1.9: “word0” 75%, “word1” 25%."
    assert len(composed.left_out) == 2 and composed.items[3].label == "colour: word3"
    with pytest.raises(UserError, match="same map for every word"):
        composed_answer(replace(answer, attributions=[rollout], settings=[{}]), ledger)
