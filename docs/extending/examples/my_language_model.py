"""A language model: a small LLaMA at random weights."""

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from clip_xai.models.assets import TINY_GPT2
from clip_xai.models.language_model import language_models
from clip_xai.models.tokenizer import CaptionTokenizer


@language_models.register("small_llama")
def small_llama() -> tuple[PreTrainedModel, CaptionTokenizer]:
    """Build the model and its tokenizer."""
    tokenizer = CaptionTokenizer.load(TINY_GPT2)
    config = LlamaConfig(
        vocab_size=tokenizer.vocabulary_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.eos_id,
    )
    return LlamaForCausalLM(config), tokenizer
