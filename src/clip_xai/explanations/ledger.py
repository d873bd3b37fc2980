r"""The ledger of a caption: for each content word, what the image gives and what the words before it give.

A caption is written word by word, each behind the image and the words before. So a word's own heat map, which holds
the words before fixed, shows the **direct** part of what the image does to it and is blind to what the image does
through them. With image_k of K other patients and w a content word in its slot, in nats::

    D = log p(w | image, words before) - log mean_k p(w | image_k, the same words before)
    C = log mean_k p(w | image_k, the same words before) - log mean_k P(slot = w | image_k)
    T = log P(slot = w | image) - log mean_k P(slot = w | image_k)
    R = T - D - C = log P(slot = w | image) - log p(w | image, words before)

P(slot = w | .) is the share of captions drawn at temperature 1 that state w, wherever it stands:
``(hits + 1/2) / (drawn + 1)``, of the other patients for their mean share over all of their captions together.

**The first content word carries nothing.** Let u be the words before it and suppose that its slot is filled behind u
and nowhere else. Then ``P(slot = w | image_k) = p(u | image_k) p(w | image_k, u)``. Where u is the same for every
image, ``p(u | image_k) = 1``, both means of C are the same and C is 0. Where captions start in several ways, C would be
``log mean_k p(w | image_k, u) - log mean_k sum_u p(u | image_k) p(w | image_k, u)``: the choice of a wording, which no
content word has brought. It belongs to what this very wording adds, so C of the first content word is 0 and R takes it.

**Intervals** (95 %): the other patients are drawn anew with replacement, the same draw for both means of C; each share
of drawn captions is drawn from the beta distribution whose mean it is (Jeffreys: hits + 1/2, misses + 1/2). Percentiles
are expanded for K as in :mod:`clip_xai.metrics.intervals`. p(w | image, words before) is exact. Under ten other
patients nothing has an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_xai.data.lexicon import read_diagnosis
from clip_xai.explanations.other_patients import OtherPatients, Stated
from clip_xai.metrics.intervals import bounds_of_counts
from clip_xai.models.captioner import Captioner
from clip_xai.report.ledger import FEWEST, LEAST, Columns, Estimate, Ledger, LedgerWord
from clip_xai.xai.slots import Slot, excludes, slots_of
from clip_xai.xai.word_swaps import swap_effects, word_log_probs

RESAMPLES = 1000


@dataclass(frozen=True)
class LedgerSettings:
    """How a ledger is taken.

    Attributes:
        others: Photographs of so many other patients.
        samples: Captions drawn of the photograph.
        of_others: Captions drawn of each other one: their mean share is of all of them together.
        seed: Seed of the draws and of the resamples.
    """

    others: int = 32
    samples: int = 64
    of_others: int = 16
    seed: int = 0


@dataclass(frozen=True)
class ReadCaption:
    """A caption whose ledger is taken.

    Attributes:
        read: What the mapper reads of its photograph, ``[1, D]`` or ``[1, S, W]``.
        token_ids: Its tokens.
        stated: What captions that were drawn of the photograph state.
        samples: How many were drawn.
    """

    read: Tensor
    token_ids: tuple[int, ...]
    stated: Stated
    samples: int


def ledger_of(
    captioner: Captioner, asked: ReadCaption, others: OtherPatients, alike: OtherPatients, seed: int = 0
) -> Ledger:
    """Take the ledger of a caption.

    Args:
        captioner: The captioner, in evaluation mode.
        asked: The caption.
        others: Photographs of other patients.
        alike: Photographs of other patients whose captions state the same diagnosis; under ten they do not count.
        seed: Seed of the resamples.
    """
    slots = slots_of(captioner, asked.token_ids)
    diagnosis = read_diagnosis(captioner.tokenizer.decode(asked.token_ids), captioner.vocabulary)
    if diagnosis is None:
        alike = alike.but("", 0)
    if not slots:
        return Ledger((), len(others), asked.samples, len(alike), diagnosis, captioner.vocabulary.groups)
    used = alike if len(alike) >= FEWEST else alike.but("", 0)
    read = torch.cat([asked.read, others.read, used.read])
    log_p = slot_log_probs(captioner, read, asked.token_ids, slots)
    swaps = swap_effects(captioner, asked.read, asked.token_ids, slots).numpy()
    own, end = log_p[0], 1 + len(others)
    columns = _columns(slots, own, log_p[1:end], asked, others, seed)
    same = _columns(slots, own, log_p[end:], asked, used, seed) if len(used) else [None] * len(slots)
    text = captioner.tokenizer.decode(asked.token_ids)
    words = []
    for t, slot in enumerate(slots):
        before = swaps[t, :t]
        carrier = int(before.argmax()) if t and columns[t].carried.holds and before.max() >= LEAST else None
        words.append(
            LedgerWord(
                text=text[slot.start : slot.end],
                kind=slot.kind,
                value=slot.value,
                span=(slot.start, slot.end),
                p=float(np.exp(own[t])),
                share=(asked.stated[slot.kind, slot.value] + 0.5) / (asked.samples + 1),
                entropy=slot_entropy(slot.kind, slot.value, asked, captioner),
                columns=columns[t],
                same=same[t],
                swaps=tuple(float(one) for one in before),
                carrier=None if carrier is None else text[slots[carrier].start : slots[carrier].end],
            )
        )
    return Ledger(tuple(words), len(others), asked.samples, len(alike), diagnosis, captioner.vocabulary.groups)


def slot_log_probs(
    captioner: Captioner, read: Tensor, token_ids: Sequence[int], slots: Sequence[Slot]
) -> NDArray[np.float64]:
    """Return log p(w | image, words before) of the content words of one caption for B images, ``[B, S]``, in nats."""
    found = word_log_probs(captioner, read, [list(token_ids)] * len(read))
    return torch.stack([found[:, list(slot.tokens)].sum(dim=1) for slot in slots], dim=1).numpy()


def slot_entropy(kind: str, value: str, asked: ReadCaption, captioner: Captioner) -> float:
    """Return the entropy of a slot in the captions drawn of a photograph, in nats; not to state it is a value, too."""
    rivals = excludes(kind, captioner.vocabulary)
    counts = [count for (one, named), count in asked.stated.items() if one == kind and (rivals or named == value)]
    shares = np.array([*counts, asked.samples - sum(counts)]) / asked.samples
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def _columns(
    slots: Sequence[Slot], own: NDArray, log_p: NDArray, asked: ReadCaption, others: OtherPatients, seed: int
) -> list[Columns]:
    """D, C and T of each of S content words against K photographs whose log p ``[K, S]`` is known."""
    pairs = [(slot.kind, slot.value) for slot in slots]
    hits = np.array([[stated[pair] for pair in pairs] for stated in others.stated], dtype=np.float64)
    return [
        columns_of(
            own[t], log_p[:, t], asked.stated[pair], asked.samples, hits[:, t], np.array(others.samples),
            np.random.default_rng([seed, t]), first=t == 0,
        )
        for t, pair in enumerate(pairs)
    ]  # fmt: skip


def columns_of(
    own: float,
    log_p: NDArray[np.float64],
    own_hits: int,
    samples: int,
    hits: NDArray[np.float64],
    others_samples: NDArray[np.int64],
    generator: np.random.Generator,
    first: bool = False,
) -> Columns:
    """Return D, C and T of one content word with their intervals; see the module.

    Args:
        own: log p(w | image, words before).
        log_p: log p(w | image_k, the same words before), ``[K]``.
        own_hits: How many captions drawn of the photograph state it.
        samples: How many were drawn.
        hits: How many captions drawn of each other photograph state it, ``[K]``.
        others_samples: How many were drawn of each, ``[K]``.
        generator: Draws the resamples.
        first: Whether no content word stands before it.
    """
    count = len(log_p)
    shares = hits / others_samples
    drawn = count**2 / (1 / others_samples).sum()  # so many captions would tell as much, the same number of each
    times = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    blind, base = float(_log_means(log_p, np.ones((1, count)))[0]), _log_share(shares.mean() * drawn, drawn)
    share = _log_share(own_hits, samples)
    blind_drawn = _log_means(log_p, times)
    drawn_hits = times @ shares * drawn / count
    base_drawn = np.log(generator.beta(drawn_hits + 0.5, drawn - drawn_hits + 0.5))
    share_drawn = np.log(generator.beta(own_hits + 0.5, samples - own_hits + 0.5, size=RESAMPLES))
    # What all of them agree on may still be otherwise in a patient who is not among them: p lies between 0 and 1.
    alike = _bounded(np.exp(blind), np.exp(blind_drawn), count, (0.0, 1.0))
    unvaried = Estimate(own - blind, own - float(np.log(alike.high)), own - float(np.log(max(alike.low, 1e-300))))
    direct = unvaried if np.ptp(blind_drawn) <= 1e-9 else _bounded(own - blind, own - blind_drawn, count)
    carried = Estimate(0.0, 0.0, 0.0) if first else _bounded(blind - base, blind_drawn - base_drawn, count)
    total = _bounded(share - base, share_drawn - base_drawn, count)
    return Columns(direct, carried, total, float(np.exp(base)), count)


def _log_share(hits: float, drawn: float) -> float:
    """Log of a share of drawn captions, never that of 0 or 1."""
    return float(np.log((hits + 0.5) / (drawn + 1)))


def _log_means(log_p: NDArray[np.float64], times: NDArray) -> NDArray[np.float64]:
    """Log of the mean probability of K photographs, ``[B]``, in B draws ``[B, K]`` of them."""
    highest = log_p.max()
    sums = times @ np.exp(log_p - highest)
    return np.log(np.maximum(sums, np.finfo(np.float64).tiny) / log_p.size) + highest


def _bounded(value: float, draws: NDArray, count: int, span: tuple[float, float] | None = None) -> Estimate:
    found = bounds_of_counts(float(value), draws, count, count, float(count), span=span)
    return Estimate(found.value, found.low, found.high)
