"""How likely a captioner finds captions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from clip_xai.models.captioner import Captioner


def log_prob(captioner: Captioner, read: Tensor, token_ids: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
    """The log-probability of whole captions in nats, ``[B]``."""
    return captioner.token_log_probs(read, token_ids, prompts).sum(-1)
