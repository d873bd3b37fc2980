"""Settings of models that are read before torch is: nothing here imports it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import ClassVar

from clip_xai.errors import UserError
from clip_xai.ranges import Checked, setting

TEMPLATE = "Similar photographs show: {captions} This photograph shows:"  # of a prompt with retrieved captions


@dataclass
class Decoding(Checked):
    """How captions are decoded.

    Attributes:
        beams: 1 is greedy search.
        max_new_tokens: Most tokens in a caption.
        min_new_tokens: Fewest tokens in a caption before ``whole_sentences`` cuts; nothing that ends it comes sooner.
        length_penalty: Exponent of the length by which a beam's log-probability is divided.
        early_stopping: Stop as soon as there are as many finished captions as beams.
        no_repeat_ngram_size: No n-gram of this size occurs twice; 0 allows all.
        repetition_penalty: 1 changes nothing.
        sample: Draw each token instead of taking the likeliest.
        temperature: Divides the logits before a draw.
        top_k: Draw among this many likeliest tokens; 0 among all.
        top_p: Draw among the likeliest tokens that together have this probability.
        seed: Seed of the draws; a caption's draws depend on it and on the caption's row alone, not on the batch.
        banned_phrases: Never written, however they are split into tokens, in whatever case, after a space or not.
        whole_sentences: A caption that reaches ``max_new_tokens`` is cut back to the end of its last sentence, or where
            there is none of its last word.
        stop_at: A caption also ends after the first token that ends with this text, such as ``.`` for a language model
            that never learnt an end marker; null for the end marker alone.
    """

    prefix: ClassVar[str] = "generation"

    beams: int = setting(1, least=1)
    max_new_tokens: int = setting(80, least=1)
    min_new_tokens: int = setting(0, least=0)
    length_penalty: float = 1.0
    early_stopping: bool = False
    no_repeat_ngram_size: int = setting(0, least=0)
    repetition_penalty: float = setting(1.0, above=0)
    sample: bool = False
    temperature: float = setting(1.0, above=0)
    top_k: int = setting(0, least=0)
    top_p: float = setting(1.0, above=0, most=1)
    seed: int = setting(0, least=0)
    banned_phrases: list[str] = field(default_factory=list)
    whole_sentences: bool = True
    stop_at: str | None = setting(None, free_text=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample and self.beams > 1:
            raise UserError(f"generation.sample=true draws single captions: set generation.beams=1, not {self.beams}")
        if self.min_new_tokens > self.max_new_tokens:
            raise UserError(
                f"generation.min_new_tokens={self.min_new_tokens} is more than max_new_tokens={self.max_new_tokens}"
            )

    def beside(self, other: Decoding) -> str:
        """Return the settings by which this decoding differs from another, empty if they are the same.

        Example:
            >>> Decoding(beams=4).beside(Decoding())
            'beams 4'
        """
        known = asdict(other)
        return ", ".join(f"{key} {value}" for key, value in asdict(self).items() if value != known[key])


#: What captions are evaluated and explained with unless another decoding is chosen: ``generation=beams``.
REPORTED = Decoding(beams=4, length_penalty=0.0)
