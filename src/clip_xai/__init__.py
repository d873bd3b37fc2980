"""CLIP-XAI: train, judge and explain vision-language models of skin photographs."""

__version__ = "0.1.0"
