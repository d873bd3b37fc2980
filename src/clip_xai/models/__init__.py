"""Tensors: backbones, mappers, language models and the captioner; weights in and out."""
