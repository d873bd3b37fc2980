"""open_clip's own ``VisionTransformer`` and text transformers, such as DermLIP ViT-B/16's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from open_clip.transformer import (
    AttentionalPooler,
    ResidualAttentionBlock,
    TextTransformer,
    VisionTransformer,
    text_global_pool,
)
from torch import Tensor, nn

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.models.backbones.text_tokenizers import TextTokenizer
from clip_xai.models.backbones.transformer import (
    AttentionPool,
    Block,
    TextTower,
    TransformerTower,
    multihead_query_key_value,
    resample_positions,
    whole_grid,
)
from clip_xai.private_api import open_clip_embeds, open_clip_global_pool, open_clip_pooled


class OpenClipBlock(Block):
    """open_clip's ``ResidualAttentionBlock``, around PyTorch's ``nn.MultiheadAttention``."""

    def require_openable(self) -> None:
        """Raise a UserError for blocks of another kind, and for the settings of older releases."""
        attention: Any = getattr(self.module, "attn", None)
        plain = type(self.module) is ResidualAttentionBlock and isinstance(attention, nn.MultiheadAttention)
        if not plain or not attention.batch_first or attention.in_proj_weight is None:
            raise UserError(
                f"blocks of type {type(self.module).__name__} cannot be traced: "
                "choose a CLIP ViT with open_clip's standard blocks"
            )

    def run(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return the block's output."""
        return self.module(tokens, attn_mask=mask)

    def normed(self, tokens: Tensor) -> Tensor:
        """Return the output of ``ln_1``."""
        return self.module.ln_1(tokens)

    def query_key_value(self, normed: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Project with ``in_proj_weight``."""
        return multihead_query_key_value(self.module.attn, normed[:, rows], normed)

    def project(self, context: Tensor) -> Tensor:
        """Apply ``out_proj``."""
        return self.module.attn.out_proj(context)

    def scaled(self, attended: Tensor) -> Tensor:
        """Apply the layer scale of attention."""
        return self.module.ls_1(attended)

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Add what attention gave, then the feed-forward part."""
        tokens = tokens + self.scaled(attended)
        return tokens + self.module.ls_2(self.module.mlp(self.module.ln_2(tokens)))


class OpenClipPool(AttentionPool):
    """open_clip's ``AttentionalPooler`` (CoCa), of which the rows that become the embedding are computed."""

    def __init__(self, tower: OpenClipVisionTower) -> None:
        self.visual = tower.module
        self.module: AttentionalPooler = tower.module.attn_pool
        self.embedding = tower.of_pooled

    def normed(self, tokens: Tensor) -> Tensor:
        """Return the output of ``ln_k``."""
        return self.module.ln_k(tokens)

    def query_key_value(self, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project the learned queries and the tokens."""
        queries = self.module.query[:1] if self.visual.pool_type == "tok" else self.module.query
        queries = self.module.ln_q(queries).unsqueeze(0).expand(len(normed), -1, -1)
        return multihead_query_key_value(self.module.attn, queries, normed)

    def project(self, context: Tensor) -> Tensor:
        """Apply ``out_proj``."""
        return self.module.attn.out_proj(context)

    def finish(self, attended: Tensor) -> Tensor:
        """Normalise, choose or average the queries' rows, project."""
        return self.embedding(open_clip_global_pool(self.visual, self.visual.ln_post(attended)))


class OpenClipVisionTower(TransformerTower):
    """open_clip's ``VisionTransformer`` with a class token, averaged patches or a single attention pool."""

    prefix_tokens = 1

    def __init__(self, visual: VisionTransformer, image_size: int | None = None) -> None:
        """Wrap a tower.

        Args:
            visual: The tower.
            image_size: Side of the input if it is not the tower's own.

        Raises:
            TypeError: The tower is of another family.
            UserError: The image size is not a multiple of the patches.
        """
        if not isinstance(visual, VisionTransformer):
            raise TypeError(f"expected open_clip's VisionTransformer, got {type(visual).__name__}")
        self.module: Any = visual
        rows, columns = visual.image_size
        self.image_size = int(rows) if image_size is None else image_size
        if rows != columns:
            raise UserError(f"the tower takes {rows} x {columns} pixels; only square inputs are supported")
        self.grid = whole_grid(self.image_size, int(visual.patch_size[0]))
        self.embed_dim = int(visual.output_dim)
        self.width = int(visual.conv1.out_channels)
        self.reads_class_token = visual.attn_pool is None and visual.pool_type == "tok"

    @property
    def blocks(self) -> Sequence[Block]:
        """The residual blocks."""
        return [OpenClipBlock(block) for block in self.module.transformer.resblocks]

    @property
    def pool(self) -> AttentionPool | None:
        """CoCa's attention pool, where there is one.

        Raises:
            UserError: There are two, one behind the other.
        """
        if self.module.attn_pool is None:
            return None
        if self.module.attn_pool_contrastive is not None:
            raise UserError("this tower pools by attention twice, which cannot be traced: choose occlusion")
        return OpenClipPool(self)

    def embed(self, pixels: Tensor) -> Tensor:
        """Return patches with positions, the class token in front; positions are resampled for other sizes."""
        visual = self.module
        if self.grid == tuple(visual.grid_size):
            return open_clip_embeds(visual, pixels)
        patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([visual.class_embedding.to(patches).expand(len(patches), 1, -1), patches], dim=1)
        tokens = tokens + resample_positions(visual.positional_embedding, self.grid, 1).to(tokens)
        return visual.ln_pre(visual.patch_dropout(tokens))

    def pooled(self, tokens: Tensor) -> Tensor:
        """Pool, normalise and project as the tower does."""
        return self.of_pooled(open_clip_pooled(self.module, tokens))

    def last_norm(self, tokens: Tensor) -> Tensor:
        """Return all tokens after the norm in front of the pooling."""
        return self.module.ln_post(tokens) if self.module.attn_pool is None else self.module.attn_pool.ln_k(tokens)

    def project(self, tokens: Tensor) -> Tensor:
        """Normalise and project.

        Raises:
            UserError: The tower makes its embedding by attention, so that no single token has one.
        """
        if self.module.attn_pool is not None:
            raise UserError("a tower that pools by attention has no embedding of single patches: choose another method")
        return self.of_pooled(self.module.ln_post(tokens))

    def of_pooled(self, pooled: Tensor) -> Tensor:
        """Return the embedding of what was pooled."""
        return pooled if self.module.proj is None else pooled @ self.module.proj


class OpenClipTextTower(TextTower):
    """The causal text transformer of an ``open_clip.CLIP``, or a ``TextTransformer`` of its own."""

    def __init__(self, model: open_clip.CLIP | TextTransformer) -> None:
        """Wrap a model whose text tower's parts are its own attributes."""
        self.module: Any = model
        self.context_length = int(model.context_length)
        self.width = int(model.token_embedding.embedding_dim)
        self.vocabulary_size = int(model.token_embedding.num_embeddings)
        custom = isinstance(model, TextTransformer)
        self._encode = model if custom else model.encode_text
        self._pool_type = model.pool_type if custom else model.text_pool_type
        self._eos_id = model.eos_id if custom else model.text_eos_id

    @property
    def blocks(self) -> Sequence[Block]:
        """The residual blocks.

        Raises:
            UserError: The tower appends a class token or hides padding, as CoCa's does.
        """
        if getattr(self.module, "cls_emb", None) is not None or getattr(self.module, "use_pad_mask", False):
            raise UserError("CoCa's text tower cannot be traced: choose a backbone with CLIP's own text tower")
        return [OpenClipBlock(block) for block in self.module.transformer.resblocks]

    def encode(self, token_ids: Tensor) -> Tensor:
        """Return text embeddings."""
        output = self._encode(token_ids)
        return output[0] if isinstance(output, tuple) else output  # CoCa's gives its tokens as well

    def embeddings(self, token_ids: Tensor) -> Tensor:
        """Look the tokens up."""
        return self.module.token_embedding(token_ids).to(self._dtype)

    def embed(self, embeddings: Tensor) -> Tensor:
        """Add positions."""
        return embeddings + self.module.positional_embedding[: embeddings.shape[1]].to(self._dtype)

    def mask(self, token_ids: Tensor) -> Tensor | None:
        """Return the causal mask; None where all tokens see all (SigLIP)."""
        mask, length = self.module.attn_mask, token_ids.shape[1]
        return None if mask is None else mask[:length, :length].to(self._dtype)

    def read_rows(self, token_ids: Tensor) -> Tensor | None:
        """Return the end markers' positions, or the last ones."""
        positions = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids).unsqueeze(-1)
        return text_global_pool(positions, token_ids, self._pool_type, eos_token_id=self._eos_id).squeeze(-1)

    def pooled(self, outputs: Sequence[Tensor], token_ids: Tensor) -> Tensor:
        """Normalise, read the end marker, project."""
        tokens = self.module.ln_final(outputs[-1])
        pooled = text_global_pool(tokens, token_ids, self._pool_type, eos_token_id=self._eos_id)
        projection = self.module.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection

    @property
    def _dtype(self) -> torch.dtype:
        return self.module.transformer.get_cast_dtype()


class OpenClipBackbone(CLIPBackbone):
    """A model of open_clip (``CLIP`` or ``CustomTextCLIP``) whose image tower is open_clip's own ViT."""

    def __init__(
        self,
        model: Any,
        tokenizer: TextTokenizer | None,
        preprocess: Preprocess,
        name: str,
        source: str | None = None,
    ) -> None:
        """Wrap a model.

        Args:
            model: The dual encoder; its image tower must be an ``open_clip`` ``VisionTransformer``.
            tokenizer: Gives ids of the model's context length, and token spans.
            preprocess: The tower's evaluation preprocessing; its image size is the input's, whatever the tower was
                trained at.
            name: As in ``backbone=NAME``.
            source: Where the weights came from, None for random ones.

        Raises:
            TypeError: The image tower is of another family.
            UserError: The preprocessing's image size is not a multiple of the tower's patches.
        """
        image_tower = OpenClipVisionTower(model.visual, preprocess.image_size)
        super().__init__(model, image_tower, OpenClipTextTower(model), tokenizer, preprocess, name, source)

    @property
    def visual(self) -> VisionTransformer:
        """The image tower."""
        return self.model.visual  # type: ignore[union-attr, return-value]
