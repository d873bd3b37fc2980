"""transformers' CLIP and SigLIP towers, such as PubMedCLIP's, MONET's and MedSigLIP's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.transformer import (
    AttentionPool,
    Block,
    TextTower,
    TransformerTower,
    multihead_query_key_value,
    resample_positions,
    split_heads,
    whole_grid,
)


class HuggingFaceBlock(Block):
    """transformers' ``CLIPEncoderLayer`` and ``SiglipEncoderLayer``, which have the same parts."""

    def require_openable(self) -> None:
        """Raise a UserError for layers of another kind."""
        if type(self.module).__name__ not in ("CLIPEncoderLayer", "SiglipEncoderLayer"):
            raise UserError(f"blocks of type {type(self.module).__name__} cannot be traced: choose CLIP or SigLIP")

    def run(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return the layer's output."""
        output = self.module(tokens, attention_mask=mask)
        return output[0] if isinstance(output, tuple) else output

    def normed(self, tokens: Tensor) -> Tensor:
        """Return the output of ``layer_norm1``."""
        return self.module.layer_norm1(tokens)

    def query_key_value(self, normed: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Project with ``q_proj``, ``k_proj`` and ``v_proj``."""
        attention = self.module.self_attn
        parts = (attention.q_proj(normed[:, rows]), attention.k_proj(normed), attention.v_proj(normed))
        query, key, value = (split_heads(part, attention.num_heads) for part in parts)
        return query, key, value

    def project(self, context: Tensor) -> Tensor:
        """Apply ``out_proj``."""
        return self.module.self_attn.out_proj(context)

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Add what attention gave, then the feed-forward part."""
        tokens = tokens + attended
        return tokens + self.module.mlp(self.module.layer_norm2(tokens))


class _VisionTower(TransformerTower):
    """What CLIP's and SigLIP's image towers share."""

    def __init__(self, model: Any, image_size: int | None = None) -> None:
        """Wrap a model that holds ``vision_model``.

        Raises:
            UserError: The image size is not a multiple of the patches.
        """
        self.model, self.module = model, model.vision_model
        embeddings = self.module.embeddings
        self.image_size = int(embeddings.image_size) if image_size is None else image_size
        self.grid = whole_grid(self.image_size, int(embeddings.patch_size))
        self.width = int(embeddings.embed_dim)

    @property
    def blocks(self) -> Sequence[Block]:
        """The encoder's layers."""
        return [HuggingFaceBlock(layer) for layer in self.module.encoder.layers]

    def last_norm(self, tokens: Tensor) -> Tensor:
        """Return all tokens after ``post_layernorm``."""
        return self.module.post_layernorm(tokens)

    def _positions(self) -> Tensor:
        return resample_positions(self.module.embeddings.position_embedding.weight, self.grid, self.prefix_tokens)

    def _patch_embeddings(self, pixels: Tensor) -> Tensor:
        convolution = self.module.embeddings.patch_embedding
        return convolution(pixels.to(convolution.weight.dtype)).flatten(2).transpose(1, 2)


class HuggingFaceClipTower(_VisionTower):
    """The image tower of transformers' ``CLIPModel`` or ``CLIPVisionModelWithProjection``."""

    prefix_tokens = 1
    reads_class_token = True

    def __init__(self, model: Any, image_size: int | None = None) -> None:
        """Wrap a model; see the base class."""
        super().__init__(model, image_size)
        self.embed_dim = int(model.visual_projection.out_features)

    def embed(self, pixels: Tensor) -> Tensor:
        """Return patches with positions, the class token in front; positions are resampled for other sizes."""
        patches = self._patch_embeddings(pixels)
        class_token = self.module.embeddings.class_embedding.expand(len(patches), 1, -1)
        # The misspelt name is the library's.
        return self.module.pre_layrnorm(torch.cat([class_token, patches], dim=1) + self._positions())

    def pooled(self, tokens: Tensor) -> Tensor:
        """Normalise and project the class token."""
        return self.project(tokens[:, 0])

    def project(self, tokens: Tensor) -> Tensor:
        """Normalise and project."""
        return self.model.visual_projection(self.module.post_layernorm(tokens))


class SiglipPool(AttentionPool):
    """SigLIP's attention pool: one learned query, then a feed-forward part."""

    def __init__(self, vision_model: Any) -> None:
        self.vision_model, self.module = vision_model, vision_model.head

    def normed(self, tokens: Tensor) -> Tensor:
        """Return the output of ``post_layernorm``; the pool has no norm of its own in front."""
        return self.vision_model.post_layernorm(tokens)

    def query_key_value(self, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project the query and the tokens."""
        return multihead_query_key_value(self.module.attention, self.module.probe.expand(len(normed), -1, -1), normed)

    def project(self, context: Tensor) -> Tensor:
        """Apply ``out_proj``."""
        return self.module.attention.out_proj(context)

    def finish(self, attended: Tensor) -> Tensor:
        """Add the feed-forward part."""
        return (attended + self.module.mlp(self.module.layernorm(attended)))[:, 0]


class SiglipTower(_VisionTower):
    """The image tower of transformers' ``SiglipModel``: no class token, an attention pool, no projection."""

    prefix_tokens = 0
    reads_class_token = False

    def __init__(self, model: Any, image_size: int | None = None) -> None:
        """Wrap a model; see the base class."""
        super().__init__(model, image_size)
        self.embed_dim = self.width

    @property
    def pool(self) -> AttentionPool:
        """The attention pool."""
        return SiglipPool(self.module)

    def embed(self, pixels: Tensor) -> Tensor:
        """Return patches with positions, resampled for other sizes."""
        return self._patch_embeddings(pixels) + self._positions()

    def pooled(self, tokens: Tensor) -> Tensor:
        """Normalise and pool as the tower does."""
        return self.module.head(self.module.post_layernorm(tokens))

    def project(self, tokens: Tensor) -> Tensor:
        """Raise a UserError: no single token has an embedding."""
        raise UserError("a tower that pools by attention has no embedding of single patches: choose another method")


class _TextTower(TextTower):
    """What CLIP's and SigLIP's text towers share."""

    def __init__(self, model: Any) -> None:
        """Wrap a model that holds ``text_model``."""
        self.model, self.module = model, model.text_model
        self.context_length = int(self.module.embeddings.position_embedding.num_embeddings)
        self.width = int(self.module.embeddings.token_embedding.embedding_dim)
        self.vocabulary_size = int(self.module.embeddings.token_embedding.num_embeddings)

    @property
    def blocks(self) -> Sequence[Block]:
        """The encoder's layers."""
        return [HuggingFaceBlock(layer) for layer in self.module.encoder.layers]

    def encode(self, token_ids: Tensor) -> Tensor:
        """Return text embeddings."""
        tokens, mask = self.embed(self.embeddings(token_ids)), self.mask(token_ids)
        for block in self.blocks:
            tokens = block.run(tokens, mask)
        return self.pooled([tokens], token_ids)

    def embeddings(self, token_ids: Tensor) -> Tensor:
        """Look the tokens up."""
        return self.module.embeddings.token_embedding(token_ids)

    def embed(self, embeddings: Tensor) -> Tensor:
        """Add positions."""
        return embeddings + self.module.embeddings.position_embedding.weight[: embeddings.shape[1]]

    def pooled(self, outputs: Sequence[Tensor], token_ids: Tensor) -> Tensor:
        """Normalise, read one position, project."""
        rows = torch.arange(len(token_ids), device=token_ids.device)
        return self._projected(self.module.final_layer_norm(outputs[-1])[rows, self.read_rows(token_ids)])

    @abstractmethod
    def _projected(self, pooled: Tensor) -> Tensor: ...


class HuggingFaceClipTextTower(_TextTower):
    """CLIP's causal text tower, read at the end marker: the id that the configuration names, else the highest one."""

    def mask(self, token_ids: Tensor) -> Tensor:
        """Return the causal mask."""
        length = token_ids.shape[1]
        hidden = torch.full((length, length), float("-inf"), device=token_ids.device, dtype=self._dtype)
        return hidden.triu(1)[None, None]

    def read_rows(self, token_ids: Tensor) -> Tensor:
        """Return the position of the first end marker."""
        end = self.model.config.text_config.eos_token_id
        # Configurations of before the library knew of other vocabularies name 2, which is not an end marker.
        return (token_ids if end == 2 else (token_ids == end).int()).argmax(dim=-1)

    def _projected(self, pooled: Tensor) -> Tensor:
        return self.model.text_projection(pooled)

    @property
    def _dtype(self) -> torch.dtype:
        return self.module.embeddings.position_embedding.weight.dtype


class SiglipTextTower(_TextTower):
    """SigLIP's text tower: all tokens see all, padding too, and the last position is read, as it was trained."""

    def mask(self, token_ids: Tensor) -> None:
        """Return None: nothing is hidden."""

    def read_rows(self, token_ids: Tensor) -> Tensor:
        """Return the last position."""
        return torch.full((len(token_ids),), token_ids.shape[1] - 1, device=token_ids.device)

    def _projected(self, pooled: Tensor) -> Tensor:
        return self.module.head(pooled)
