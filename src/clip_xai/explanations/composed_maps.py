r"""Maps that follow the words: what the image does to a word by itself, and through the words it follows from.

With d_t the direct map of content word t over its absolute sum, D, C and T of its ledger, and a_ts how much of what the
words before bring to t comes from word s::

    composed_t = D_t d_t + C_t sum_s a_ts composed_s / T_s                        in nats

s runs over the content words before t whose T has a lower bound above 0 and that make t likelier than the other values
of their vocabulary do; a_ts are these swap effects, scaled to sum to 1. Where no such word stands before t, all that
the image does to t goes the direct way and ``composed_t / T_t = d_t``: its map is the direct one.

All direct maps are those of one pass of a method. No completeness is claimed: what this wording adds (R) is in no map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.report.assemble import Answer
from clip_xai.report.explained import TOTAL_EFFECT, number, title_of
from clip_xai.report.ledger import Ledger


def composed_maps(direct: Tensor, ledger: Ledger, shares: Sequence[Mapping[int, float]] | None = None) -> Tensor:
    """Compose the maps of the content words of one caption.

    Args:
        direct: Their direct maps, ``[T, ...]``, in the ledger's order.
        ledger: The ledger of the caption.
        shares: For each word which of those before it bring how much; the ledger's own if None.

    Returns:
        ``[T, ...]``; a map of zeros stays one.
    """
    sums = direct.abs().flatten(1).sum(dim=1).reshape(-1, *[1] * (direct.ndim - 1))
    scaled = torch.where(sums > 0, direct / sums, torch.zeros_like(direct))
    composed: list[Tensor] = []
    by_total: list[Tensor] = []  # over T: what a word hands on to those that follow from it
    for t, word in enumerate(ledger.words):
        from_words = ledger.shares(t) if shares is None else shares[t]
        columns = word.columns
        if not from_words:
            composed.append(scaled[t])
            by_total.append(scaled[t])
            continue
        carried = sum((share * by_total[s] for s, share in from_words.items()), torch.zeros_like(scaled[t]))
        composed.append(columns.direct.value * scaled[t] + columns.carried.value * carried)
        by_total.append(composed[t] / columns.total.value)
    return torch.stack(composed)


def composed_answer(answer: Answer, ledger: Ledger) -> Answer:
    """Return an answer about content words with composed maps in the place of the direct ones.

    Args:
        answer: What the methods say of each content word of one photograph's caption, in the ledger's order.
        ledger: The ledger of the caption.

    Raises:
        UserError: No method has a map that could be composed.
    """
    attributions, settings, left_out = [], [], list(answer.left_out)
    totals = torch.tensor([[word.columns.total.value for word in ledger.words]])
    for attribution, own in zip(answer.attributions, answer.settings, strict=True):
        title = title_of(attribution.method)
        if attribution.kind != "image" or len(attribution.labels) != len(ledger.words):
            left_out.append(f"{title} has no map of places for each content word: none is composed.")
            continue
        if not attribution.text_dependent:
            left_out.append(f"{title} draws the same map for every word: none is composed.")
            continue
        values = composed_maps(attribution.values[0].double(), ledger)[None].float()
        attributions.append(replace(attribution, values=values, scores=totals, delta=None))
        settings.append({**own, "maps": "composed"})
    if not attributions:
        raise UserError(" ".join(left_out))
    contexts = tuple(chain_in_words(ledger, t) for t in range(len(ledger.words)))
    return Answer(TOTAL_EFFECT, answer.spans, attributions, settings, answer.notes, tuple(left_out), contexts)


def chain_in_words(ledger: Ledger, t: int) -> str:
    """Say which part of a composed map comes from where."""
    word, shares = ledger.words[t], ledger.shares(t)
    if not shares:
        return "It does not follow from any word before it that the photograph decided: this is its direct map."
    largest = sorted(shares.items(), key=lambda one: -one[1])
    parts = ", ".join(f"“{ledger.words[s].text}” {share:.0%}" for s, share in largest if share >= 0.005)
    columns = word.columns
    if not columns.carried.holds:
        return (
            f"Directly {number(round(columns.direct.value, 2))} nats. What the words before bring, "
            f"{number(round(columns.carried.value, 2))}, is not told from nothing."
        )
    return (
        f"Directly {number(round(columns.direct.value, 2))} nats, through the words before "
        f"{number(round(columns.carried.value, 2))}: {parts}."
    )
