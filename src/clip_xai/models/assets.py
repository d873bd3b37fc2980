"""Where the embedded weights lie."""

from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "assets"
TINY_CLIP = ASSETS / "tiny_clip"
TINY_GPT2 = ASSETS / "tiny_gpt2"
