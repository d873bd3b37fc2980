"""BERT text towers: PubMedBERT (BiomedCLIP, DermLIP with PanDerm) and Bio_ClinicalBERT (MedCLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from clip_xai.errors import UserError
from clip_xai.models.backbones.transformer import Block, TextTower, split_heads


class BertBlock(Block):
    """transformers' ``BertLayer``, which normalises after attention: its ``normed`` is the residual stream itself."""

    def require_openable(self) -> None:
        """Raise a UserError for layers of another kind."""
        if type(self.module).__name__ != "BertLayer" or self.module.is_decoder:
            raise UserError(f"blocks of type {type(self.module).__name__} cannot be traced: choose a BERT encoder")

    def run(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return the layer's output."""
        output = self.module(tokens, mask)
        return output[0] if isinstance(output, tuple) else output

    def normed(self, tokens: Tensor) -> Tensor:
        """Return the tokens: the layer before has normalised them."""
        return tokens

    def query_key_value(self, normed: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Project with ``query``, ``key`` and ``value``."""
        attention = self.module.attention.self
        parts = (attention.query(normed[:, rows]), attention.key(normed), attention.value(normed))
        query, key, value = (split_heads(part, attention.num_attention_heads) for part in parts)
        return query, key, value

    def project(self, context: Tensor) -> Tensor:
        """Apply the dense layer behind attention."""
        return self.module.attention.output.dense(context)

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Add, normalise, then the feed-forward part, which adds and normalises too."""
        tokens = self.module.attention.output.LayerNorm(attended + tokens)
        return self.module.output(self.module.intermediate(tokens), tokens)


class BertText(nn.Module):
    """A BERT encoder with a projection, under the names that open_clip's ``HFTextEncoder`` gives its weights.

    Attributes:
        transformer: The encoder, without its own pooling layer.
        proj: Linear, or linear, GELU, linear with the mean width between; no biases.
        pooling: ``"class"`` reads the first token, ``"mean"`` averages all that are not padding.
        context_length: Tokens of a text.
    """

    def __init__(
        self, config: BertConfig, embed_dim: int, pooling: str, projection: str, context_length: int = 77
    ) -> None:
        """Build the tower at random weights.

        Args:
            config: The encoder's sizes.
            embed_dim: D.
            pooling: ``"class"`` or ``"mean"``.
            projection: ``"linear"`` or ``"mlp"``.
            context_length: Tokens of a text, markers and padding included.
        """
        super().__init__()
        self.context_length = context_length
        self.transformer = BertModel(config, add_pooling_layer=False)
        self.pooling = pooling
        width, hidden = config.hidden_size, (config.hidden_size + embed_dim) // 2
        self.proj: nn.Module = nn.Linear(width, embed_dim, bias=False)
        if projection == "mlp":
            first, second = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, embed_dim, bias=False)
            self.proj = nn.Sequential(first, nn.GELU(), second)


class MedClipText(nn.Module):
    """Bio_ClinicalBERT under the names that the medclip package gives its weights.

    Three layers are averaged (the first, the second and the last), and of each all tokens that are not padding. The
    package averages padding in as well, so that a text's embedding depends on its neighbours in the batch; for a text
    alone the two are the same.
    """

    pooling = "medclip"

    def __init__(self, config: BertConfig, embed_dim: int) -> None:
        super().__init__()
        self.model = BertModel(config)
        self.projection_head = nn.Linear(config.hidden_size, embed_dim, bias=False)


class BertTower(TextTower):
    """The adapter of ``BertText`` and ``MedClipText``."""

    def __init__(self, module: BertText | MedClipText, context_length: int) -> None:
        """Wrap a tower.

        Args:
            module: The tower.
            context_length: Tokens of a text, markers and padding included.
        """
        self.module: Any = module
        self.context_length = context_length
        whole: Any = module
        custom = isinstance(module, MedClipText)
        self.bert: Any = whole.model if custom else whole.transformer
        self.projection: Any = whole.projection_head if custom else whole.proj
        self.width = int(self.bert.config.hidden_size)
        self.vocabulary_size = int(self.bert.config.vocab_size)

    @property
    def blocks(self) -> Sequence[Block]:
        """The encoder's layers."""
        return [BertBlock(layer) for layer in self.bert.encoder.layer]

    def encode(self, token_ids: Tensor) -> Tensor:
        """Return text embeddings."""
        outputs, mask = [self.embed(self.embeddings(token_ids))], self.mask(token_ids)
        for block in self.blocks:
            outputs.append(block.run(outputs[-1], mask))
        return self.pooled(outputs, token_ids)

    def embeddings(self, token_ids: Tensor) -> Tensor:
        """Look the tokens up."""
        return self.bert.embeddings.word_embeddings(token_ids)

    def embed(self, embeddings: Tensor) -> Tensor:
        """Add positions and types, normalise."""
        return self.bert.embeddings(inputs_embeds=embeddings)

    def mask(self, token_ids: Tensor) -> Tensor:
        """Hide padding: ``[T, 1, 1, M]``."""
        dtype = self.bert.embeddings.word_embeddings.weight.dtype
        hidden = torch.zeros(token_ids.shape, dtype=dtype, device=token_ids.device)
        return hidden.masked_fill(~self._visible(token_ids), torch.finfo(dtype).min)[:, None, None]

    def read_rows(self, token_ids: Tensor) -> Tensor | None:
        """Return the class token's position, or None where tokens are averaged."""
        return torch.zeros_like(token_ids[:, 0]) if self.module.pooling == "class" else None

    def pooled(self, outputs: Sequence[Tensor], token_ids: Tensor) -> Tensor:
        """Pool and project."""
        if self.module.pooling == "class":
            return self.projection(outputs[-1][:, 0])
        layers = outputs[-1:] if self.module.pooling == "mean" else [outputs[1], outputs[2], outputs[-1]]
        weights = self._visible(token_ids).to(outputs[-1]).unsqueeze(-1)
        means = [(layer * weights).sum(dim=1) / weights.sum(dim=1) for layer in layers]
        return self.projection(torch.stack(means).mean(dim=0))

    def _visible(self, token_ids: Tensor) -> Tensor:
        return token_ids != self.bert.config.pad_token_id
