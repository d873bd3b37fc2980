"""Decoding as ClipCap does it: one image at a time, the whole sequence through the model again for each token.

Slow and plain on purpose: the batched decoder with its cache is held against it, for equality in tests and for speed in
``benchmarks/captioning.py``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clip_xai.models.captioner import Captioner
from clip_xai.models.settings import Decoding
from clip_xai.models.tokenizer import CaptionTokenizer


@torch.no_grad()
def naive_caption(
    captioner: Captioner, read: Tensor, decoding: Decoding, prompt: str | None = None, row: int = 0
) -> list[int]:
    """Return the tokens of one image's caption, ``[D]`` or ``[N, W]``, up to its end marker and before any cut."""
    choose = _beams if decoding.beams > 1 else _one_path
    ids = choose(captioner, captioner.mapper(read[None]), decoding, prompt, row)
    end = captioner.tokenizer.eos_id
    return ids[: ids.index(end)] if end in ids else ids


def ending(decoding: Decoding, tokenizer: CaptionTokenizer) -> set[int]:
    """Return the tokens with which a caption ends."""
    mark = decoding.stop_at
    spelt = range(tokenizer.vocabulary_size) if mark else ()
    return {tokenizer.eos_id, *(token for token in spelt if tokenizer.decode([token]).endswith(mark or ""))}


def next_logits(captioner: Captioner, mapped: Tensor, ids: list[int], prompt: str | None = None) -> Tensor:
    """Return the logits ``[V]`` after some tokens: no cache, no batch."""
    return _logits_of_beams(captioner, mapped, [ids], prompt)[0]


def _logits_of_beams(captioner: Captioner, mapped: Tensor, beams: list[list[int]], prompt: str | None) -> Tensor:
    """Return the logits ``[beams, V]`` after each of one image's beams, which are equally long."""
    mapper, model = captioner.mapper, captioner.language_model
    before = captioner.tokenizer.encode(captioner.prompt if prompt is None else prompt)
    words = torch.tensor([before + ids for ids in beams], dtype=torch.long, device=mapped.device)
    start = mapper.prefix_length - mapper.memory_length
    slots, memory = mapped[:, :start], mapped[:, start:]
    inputs = torch.cat([slots.expand(len(beams), -1, -1), model.transformer.wte(words)], dim=1)
    with mapper.looking_at(model.transformer, memory if mapper.memory_length else None):
        return model(inputs_embeds=inputs, use_cache=False).logits[:, -1]


def _one_path(captioner: Captioner, mapped: Tensor, decoding: Decoding, prompt: str | None, row: int) -> list[int]:
    ids: list[int] = []
    ends = ending(decoding, captioner.tokenizer)
    while len(ids) < decoding.max_new_tokens:
        scores = penalised(next_logits(captioner, mapped, ids, prompt), ids, decoding, captioner.tokenizer)
        ids.append(_drawn(scores, decoding, row, len(ids)) if decoding.sample else int(scores.argmax()))
        if ids[-1] in ends:
            break
    return ids


def _beams(captioner: Captioner, mapped: Tensor, decoding: Decoding, prompt: str | None, row: int) -> list[int]:
    """Beam search: the best candidates that end are kept with their score over length, the others go on."""
    tokenizer = captioner.tokenizer
    ends = ending(decoding, tokenizer)
    wide = (1 + len(ends)) * decoding.beams  # as many as beams go on, however many of the best end
    running: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[tuple[float, list[int]]] = []
    for length in range(1, decoding.max_new_tokens + 1):
        candidates = []
        logits = _logits_of_beams(captioner, mapped, [ids for _, ids in running], prompt)
        for (score, ids), log_probs in zip(running, logits.log_softmax(-1), strict=True):
            scores = penalised(log_probs, ids, decoding, tokenizer)
            best = scores.topk(min(wide, len(scores)))
            found = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            candidates += [(score + value, [*ids, token]) for value, token in found]
        candidates = sorted(candidates, key=lambda item: -item[0])[:wide]
        finished = [ids[-1] in ends or length == decoding.max_new_tokens for _, ids in candidates]
        # Only what ends among the best as many as beams counts as ended.
        for (score, ids), over in list(zip(candidates, finished, strict=True))[: decoding.beams]:
            if over:
                ended.append((score / length**decoding.length_penalty, ids))
        ended = sorted(ended, key=lambda item: -item[0])[: decoding.beams]
        running = [item for item, over in zip(candidates, finished, strict=True) if not over][: decoding.beams]
        full = len(ended) == decoding.beams
        if not running or (full and decoding.early_stopping):
            break
        if full and running[0][0] / length**decoding.length_penalty <= ended[-1][0]:
            break
    return ended[0][1]


def penalised(scores: Tensor, ids: list[int], decoding: Decoding, tokenizer: CaptionTokenizer) -> Tensor:
    """Return scores ``[V]`` after penalties and bans, token by token."""
    scores = scores.clone()
    for token in set(ids):
        factor = decoding.repetition_penalty
        scores[token] = scores[token] * factor if scores[token] < 0 else scores[token] / factor
    size = decoding.no_repeat_ngram_size
    if size and len(ids) >= size:
        for start in range(len(ids) - size + 1):
            if ids[start : start + size - 1] == ids[len(ids) - size + 1 :]:
                scores[ids[start + size - 1]] = -torch.inf
    if len(ids) < decoding.min_new_tokens:
        scores[list(ending(decoding, tokenizer))] = -torch.inf
    if decoding.banned_phrases:
        for token in range(len(scores)):
            text = tokenizer.decode([*ids, token]).lower()
            if any(phrase.lower() in text for phrase in decoding.banned_phrases):
                scores[token] = -torch.inf
    return scores


def _drawn(scores: Tensor, decoding: Decoding, row: int, step: int) -> int:
    values = scores.double().numpy() / decoding.temperature
    order = np.argsort(-values, kind="stable")
    if decoding.top_k:
        order = order[: decoding.top_k]
    odds = np.exp(values[order] - values[order[0]])
    odds /= odds.sum()
    count = int(np.searchsorted(np.cumsum(odds), decoding.top_p - 1e-9) + 1)
    kept = np.zeros_like(values)
    kept[order[:count]] = odds[:count]
    number = np.random.default_rng((decoding.seed, row, step)).random() * kept.sum()
    return int(np.flatnonzero(np.cumsum(kept) > number)[0])
