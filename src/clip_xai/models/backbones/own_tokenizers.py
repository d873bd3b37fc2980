"""The tokenizer of a text tower: what lies beside the weights, CLIP's own, or a stand-in at random weights."""

from __future__ import annotations

from tokenizers import Tokenizer

from clip_xai.errors import UserError
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.backbones.stand_ins import stand_in_unigram, stand_in_wordpiece
from clip_xai.models.backbones.text_tokenizers import ClipTokenizer, PublishedTokenizer, TextTokenizer, canonical
from clip_xai.models.backbones.transformer import TextTower
from clip_xai.models.backbones.weight_files import Published, read_tokenizer, tokenizer_from_hub

CLIP_VOCABULARY = 49_408
PROBE = "a picture of a 5 mm well-defined opacity, most likely benign"


def clip_tokenizer(
    published: Published | None, vocabulary: int | None, source: BackboneSource, text_tower: TextTower | None
) -> TextTokenizer:
    """Return CLIP's own tokenizer, or what lies beside the weights where that is another.

    Args:
        published: Where the weights are.
        vocabulary: How many tokens the text tower knows; None for CLIP's own.
        source: What is built.
        text_tower: The text tower.

    Raises:
        UserError: The tower has a vocabulary of its own and nothing says which.
    """
    assert text_tower is not None
    own = ClipTokenizer(text_tower.context_length)
    found = read_tokenizer([published.folder if published else None])
    if found is None:
        if vocabulary not in (None, CLIP_VOCABULARY) and published is not None:
            raise UserError(
                f"backbone {source.name}: {source.pretrained} has a vocabulary of its own ({vocabulary:,} tokens, "
                f"CLIP's has {CLIP_VOCABULARY:,}): put its tokenizer.json beside the weights, or leave the text tower "
                "out with backbone.text=false"
            )
        return own
    tokenizer, file = found
    ids = own([PROBE])[0].tolist()
    if tokenizer.encode(PROBE).ids == ids[: ids.index(max(ids)) + 1]:
        return own
    marked = tokenizer.encode("a").special_tokens_mask
    if not marked or not marked[-1]:
        raise UserError(f"backbone {source.name}: the tokenizer {file} adds no end marker to a text: correct it")
    end = tokenizer.encode("").ids[-1]
    found_one = PublishedTokenizer(tokenizer, text_tower.context_length, end, int(bool(marked[0])), file)
    return _fitting(found_one, tokenizer, source, text_tower)


def published_tokenizer(
    kind: str,
    published: Published | None,
    repository: str | None,
    source: BackboneSource,
    text_tower: TextTower,
) -> TextTokenizer:
    """Return the tokenizer beside the weights, or of the encoder's own repository; a stand-in for random weights."""
    first = int(kind == "wordpiece")
    context_length, vocabulary_size = text_tower.context_length, text_tower.vocabulary_size
    if published is None:
        tokenizer = (stand_in_wordpiece if first else stand_in_unigram)(vocabulary_size)
        name = f"stand-in {kind} of {vocabulary_size:,} ids: the published files come with the weights"
        return PublishedTokenizer(tokenizer, context_length, 0 if first else 1, first, name)
    found = read_tokenizer([published.folder])
    if found is None and repository is not None:
        found = tokenizer_from_hub(repository, source.name)
    if found is None:
        raise UserError(
            f"backbone {source.name}: {source.pretrained} does not hold a tokenizer.json: put it there, or leave the "
            "text tower out with backbone.text=false"
        )
    tokenizer, file = found
    if not first:
        tokenizer.normalizer = canonical(tokenizer.normalizer)
    pad = tokenizer.token_to_id("[PAD]") if first else 1
    found_one = PublishedTokenizer(tokenizer, context_length, 0 if pad is None else pad, first, file)
    return _fitting(found_one, tokenizer, source, text_tower)


def _fitting(
    tokenizer: PublishedTokenizer, pieces: Tokenizer, source: BackboneSource, text_tower: TextTower
) -> PublishedTokenizer:
    """Refuse a tokenizer with tokens that the tower does not know."""
    largest = max(pieces.get_vocab(with_added_tokens=True).values())
    if largest >= text_tower.vocabulary_size:
        raise UserError(
            f"backbone {source.name}: {tokenizer.name} has tokens up to number {largest:,} and the text tower knows "
            f"{text_tower.vocabulary_size:,}: put the tokenizer that belongs to the weights beside them"
        )
    return tokenizer
