"""The content words of a caption, each to be followed through the words before it."""

from __future__ import annotations

from clip_xai.errors import UserError
from clip_xai.xai.slots import slots_of
from clip_xai.xai.targets.base import CAPTION, TargetContext, targets
from clip_xai.xai.targets.caption import CaptionTarget

TOTAL = "caption_total"


class CaptionTotalTarget(CaptionTarget):
    """Log-probability of each content word, of whose maps those that follow the words are composed.

    A word's own map holds the words before it fixed and shows what the image does to it besides. What the image does
    through them is in their maps: see :mod:`clip_xai.explanations.composed_maps`.
    """

    name = TOTAL


@targets.register(TOTAL, needs=CAPTION, order=4)
def caption_total(context: TargetContext) -> CaptionTotalTarget:
    """Make one score of each content word of the caption.

    Raises:
        UserError: It has none.
    """
    captioner, token_ids = context.caption()
    slots = slots_of(captioner, token_ids)
    text = captioner.tokenizer.decode(token_ids)
    if not slots:
        raise UserError(f"the caption {text!r} has no word that the vocabulary knows: choose target=caption")
    labels = [f"{slot.kind}: {text[slot.start : slot.end]}" for slot in slots]
    return CaptionTotalTarget(captioner, token_ids, [slot.tokens for slot in slots], labels)
