"""Captions a second: one batch with a key-value cache against a loop of one image without one.

    python -m benchmarks.captioning
    python -m benchmarks.captioning --language-model gpt2 --mapper cross_attention --loop-images 2

The loop is what ClipCap and the scripts around it do: an image at a time, the whole sequence through the model again
for each token (an image's beams go through it together). Both sides must write the same captions, token by token, or
there is no table. Features are random: what a caption costs does not depend on what it says, only on its length.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from benchmarks.common import alternately, machine, markdown, speedup
from benchmarks.naive_decoding import naive_caption
from clip_xai.models.backbones.backbone_builder import BackboneSource
from clip_xai.models.captioner import Captioner
from clip_xai.models.mappers import mappers
from clip_xai.models.settings import Decoding
from clip_xai.models.weights import CaptionerSettings, build_captioner

TINY = {"bottleneck_mlp": {"hidden": 256}, "resampler": {"head_width": 32}}


def captioner_of(language_model: str, mapper: str, prefix_length: int | None) -> Captioner:
    """Build a captioner on the tiny tower; the tiny language model is the embedded one, others have random weights."""
    tiny = language_model == "tiny"
    settings = dict(TINY.get(mapper, {})) if tiny else {}
    if prefix_length is not None:
        settings["prefix_length"] = prefix_length
    torch.manual_seed(0)
    captioner = build_captioner(
        CaptionerSettings(
            backbone=BackboneSource("tiny", "tiny", "embedded:tiny"),
            mapper=mapper,
            mapper_settings=settings,
            language_model=language_model,
            language_model_pretrained="embedded:tiny" if tiny else None,
        )
    )
    return captioner.eval()


def measure(
    captioner: Captioner, images: int, loop_images: int, tokens: int, beams: Sequence[int], rounds: int
) -> list[list[object]]:
    """Return a row for each number of beams: captions a second of both sides and their ratio.

    Raises:
        AssertionError: The two sides wrote different captions.
    """
    device, side = next(captioner.parameters()).device, captioner.backbone.preprocess.image_size
    with torch.inference_mode():
        shape = captioner.read(torch.zeros(1, 3, side, side, device=device)).shape[1:]
    read = torch.randn(images, *shape, generator=torch.Generator().manual_seed(1)).to(device)
    rows: list[list[object]] = []
    for count in beams:
        # Captions of one length on both sides: random features may end them at any token.
        decoding = Decoding(beams=count, max_new_tokens=tokens, min_new_tokens=tokens, whole_sentences=False)
        written: dict[str, list[tuple[int, ...]]] = {}

        def batch(decoding: Decoding = decoding, written: dict[str, list[tuple[int, ...]]] = written) -> int:
            written["batch"] = [caption.token_ids for caption in captioner.generate(read, decoding)]
            return images

        def loop(decoding: Decoding = decoding, written: dict[str, list[tuple[int, ...]]] = written) -> int:
            written["loop"] = [tuple(naive_caption(captioner, row, decoding)) for row in read[:loop_images]]
            return loop_images

        batch()
        timings = alternately({"batch": batch, "loop": loop}, rounds=rounds, warmup=0)
        same = sum(one == other for one, other in zip(written["batch"], written["loop"], strict=False))
        assert same == loop_images, f"{loop_images - same} of {loop_images} captions differ"
        fast, slow = timings["batch"], timings["loop"]
        name = "greedy" if count == 1 else f"{count} beams"
        rows.append([name, fast.per_second, slow.per_second, speedup(fast, slow), f"{same} of {loop_images}"])
    return rows


def main(arguments: Sequence[str] | None = None) -> str:
    """Measure, print the table and return it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.captioning", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--language-model", default="tiny", help="tiny, gpt2, gpt2-medium ... at random weights")
    parser.add_argument("--mapper", default="resampler", choices=list(mappers))
    parser.add_argument("--prefix-length", type=int, help="the mapper's own if not given")
    parser.add_argument("--images", type=int, default=32, help="captions in a batch")
    parser.add_argument("--loop-images", type=int, help="images of the loop; all if not given")
    parser.add_argument("--tokens", type=int, default=40, help="tokens of each caption")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    captioner = captioner_of(given.language_model, given.mapper, given.prefix_length).to(given.device)
    loop_images = min(given.loop_images or given.images, given.images)
    rows = measure(captioner, given.images, loop_images, given.tokens, given.beams, given.rounds)
    title = f"Captions a second: {given.language_model}, {given.mapper}, batch {given.images}, {given.tokens} tokens"
    head = ["decoding", "batch with cache", "one image, no cache", "ratio", "same captions"]
    table = markdown(title, head, rows) + f"\n{machine()}"
    print(table)
    return table


if __name__ == "__main__":
    main()
