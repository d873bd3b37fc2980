"""What a captioner could write next behind the same first words of a caption: these are read once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clip_xai.models.captioner import Captioner
from clip_xai.models.causal_model import output_layer, word_embeddings


class Continuation:
    """B images and the first tokens of a caption, to be gone on with in many ways.

    The keys and values of the language model are kept, so that each way costs its own tokens alone. Evaluation mode
    and no gradients, as everything that is counted and not explained.

    Attributes:
        captioner: The captioner.
    """

    @torch.no_grad()
    def __init__(self, captioner: Captioner, prefix: Tensor, token_ids: Sequence[int]) -> None:
        """Read what all ways share.

        Args:
            captioner: The captioner, in evaluation mode.
            prefix: What stands before the caption, ``[B, K + P, E]``.
            token_ids: The caption's first tokens; there may be none.
        """
        self.captioner = captioner
        sequence, self._memory = captioner.split(prefix)
        model = captioner.language_model
        before = word_embeddings(model)(torch.tensor([list(token_ids)], dtype=torch.long, device=prefix.device))
        inputs = torch.cat([sequence, before.expand(len(prefix), -1, -1)], dim=1)
        with captioner.mapper.looking_at(model, self._memory):
            decoder: Any = model.base_model
            found = decoder(inputs_embeds=inputs, use_cache=True)
        self._last: Tensor = found.last_hidden_state[:, -1]
        self._cache: Any = found.past_key_values

    @torch.no_grad()
    def log_probs(self, ways: Sequence[tuple[int, Sequence[int]]]) -> Tensor:
        """Return log p(next token) in nats behind each of N ways to go on, ``[N, V]``.

        Args:
            ways: For each the row of its image, and the tokens behind those that are shared; there may be none.
        """
        model = self.captioner.language_model
        device = self._last.device
        rows = torch.tensor([row for row, _ in ways], device=device)
        lengths = torch.tensor([len(tokens) for _, tokens in ways], device=device)
        hidden = self._last[rows]
        if int(lengths.max()):
            longest = int(lengths.max())
            # Padded on the right: causality keeps the padding from what is read.
            ids = torch.tensor([[*tokens, *([0] * (longest - len(tokens)))] for _, tokens in ways], device=device)
            cache = copy.deepcopy(self._cache)
            cache.batch_select_indices(rows)
            memory = None if self._memory is None else self._memory[rows]
            with self.captioner.mapper.looking_at(model, memory):
                decoder: Any = model.base_model
                states: Tensor = decoder(
                    inputs_embeds=word_embeddings(model)(ids), past_key_values=cache, use_cache=True
                ).last_hidden_state
            behind = states[torch.arange(len(ways), device=device), (lengths - 1).clamp(min=0)]
            hidden = torch.where(lengths[:, None] > 0, behind, hidden)
        return output_layer(model)(hidden).log_softmax(dim=-1)
