"""What evidence on heat maps costs: ``python -m benchmarks.evidence [--rounds 5] [--photographs 2] [--words 20]``.

First table: a photograph explained by ``xai=basic`` with and without evidence, on the tiny captioner. Second table: the
gains behind it for several questions, in one stream of masked images for each photograph, against the straightforward
loop: photograph by photograph, question by question, map by map, one masked image after the other. Both sides must find
the same numbers to 1e-6, or there is no table. The photographs are noise: what a gain costs does not depend on them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.captioning import captioner_of
from benchmarks.common import Timing, alternately, machine, markdown, speedup
from clip_xai.config.cli import compose_job
from clip_xai.explanations.blind_maps import blind_maps
from clip_xai.explanations.evidence_calibration import FIELDS
from clip_xai.explanations.explanation_job import ExplanationJob
from clip_xai.explanations.map_evidence import EvidenceSettings
from clip_xai.explanations.photographs import Photograph
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.models.settings import Decoding
from clip_xai.runs.instantiate import explainers_of
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.random_fields import LENGTHS, gaussian_fields
from clip_xai.xai.relevance_gain import DELETED_TO, SHARES, relevance_gains, units_of
from clip_xai.xai.target import SimilarityTarget, Target
from clip_xai.xai.targets.question import Question

QUESTIONS = 3  # diagnosis, whole caption and text
MAPS = 5  # of xai=basic, for each question


def explained(captioner: Captioner, photographs: int, words: int, folder: Path) -> dict[str, Callable[[], int]]:
    """Return calls that explain photographs with and without evidence."""
    files = []
    for number in range(photographs):
        file = folder / f"{number}.png"
        noise = np.random.default_rng(number).integers(0, 256, (192, 256, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
        files.append(Photograph(file, file.name))
    methods = explainers_of(compose_job("explain", ["xai=basic"], folder).xai)
    decoding = Decoding(max_new_tokens=words, min_new_tokens=words, whole_sentences=False)

    def side(evidence: EvidenceSettings | None) -> Callable[[], int]:
        job = ExplanationJob(captioner.backbone, captioner, methods, Question(), decoding, evidence=evidence)

        def work() -> int:
            found = [job.result(one) for one in files]
            if bool(evidence) != any(answer.evidence for one in found for answer in one.answers.values()):
                raise AssertionError("evidence was gathered where it was not asked for, or the other way round")
            return len(files)

        return work

    return {"with": side(EvidenceSettings()), "without": side(None)}


def straightforward(backbone: VisionBackbone, pixels: Tensor, target: Target, one_map: Tensor) -> Tensor:
    """Return the gain of one map over one photograph ``[1, 3, S, S]``, one masked image after the other, ``[T]``."""
    rows, columns = one_map.shape
    total = rows * columns
    deleted = DELETED_TO(pixels)
    # Equal places, of which the centre's map has many, come in the same random order on both sides.
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    hottest_first = drawn[one_map.flatten()[drawn].argsort(descending=True, stable=True)]
    shares = [0.0, *(round(total * share) / total for share in SHARES), 1.0]
    gain = torch.zeros(len(target.labels), dtype=torch.float64)
    for place, share in enumerate(shares[1:-1], start=1):
        weight = (shares[place + 1] - shares[place - 1]) / 2
        for sign, order in ((1, hottest_first.flip(0)), (-1, hottest_first)):
            kept = torch.ones(total)
            kept[order[: round(total * share)]] = 0
            high, wide = pixels.shape[-2] // rows, pixels.shape[-1] // columns
            mask = kept.view(rows, columns).repeat_interleave(high, 0).repeat_interleave(wide, 1)
            with torch.no_grad():
                image = pixels * mask + deleted * (1 - mask)
                gain += sign * weight * target.score(backbone.features(image).read(target.reads))[0].double()
    return gain


class Gains:
    """The gains of fields, of maps without any model and of heat maps, for several questions about photographs."""

    def __init__(self, backbone: VisionBackbone, photographs: int) -> None:
        """Draw photographs, questions and maps."""
        side = backbone.preprocess.image_size
        generator = torch.Generator().manual_seed(0)
        self.backbone = backbone
        self.pixels = torch.randn(photographs, 3, side, side, generator=generator)
        self.units = units_of(PerturbationBank(backbone, self.pixels[:1]))
        texts = torch.randn(QUESTIONS, backbone.embed_dim, generator=generator)
        self.targets = [SimilarityTarget(text[None], ["text"]) for text in texts]
        self.heat = torch.randn(photographs, QUESTIONS, MAPS, *self.units, generator=generator)
        self.fields = [gaussian_fields(FIELDS, self.units, length) for length in LENGTHS]

    def known(self, pixels: Tensor) -> list[Tensor]:
        """The maps of one photograph that know nothing, which all questions share."""
        return [*self.fields, blind_maps(pixels, self.backbone.preprocess, self.units)]

    def stream(self) -> Tensor:
        """All gains, in one stream for each photograph."""
        found = []
        for pixels, heat in zip(self.pixels[:, None], self.heat, strict=True):
            bank, known = PerturbationBank(self.backbone, pixels), self.known(pixels)
            for target, own in zip(self.targets, heat, strict=True):
                found += [relevance_gains(bank, target, maps, key=place) for place, maps in enumerate(known)]
                found.append(relevance_gains(bank, target, own))
        return torch.cat(found)[:, 0]

    def loop(self) -> Tensor:
        """The same, one masked image after the other."""
        found = []
        for pixels, heat in zip(self.pixels[:, None], self.heat, strict=True):
            known = self.known(pixels)
            for target, own in zip(self.targets, heat, strict=True):
                found += [straightforward(self.backbone, pixels, target, one) for maps in (*known, own) for one in maps]
        return torch.cat(found)


def compared(gains: Gains, rounds: int) -> tuple[dict[str, Timing], float]:
    """Time both sides by turns.

    Returns:
        The times, and the largest difference of two gains.

    Raises:
        AssertionError: Two gains differ by more than 1e-6.
    """
    found: dict[str, Tensor] = {}

    def side(name: str, work: Callable[[], Tensor]) -> Callable[[], int]:
        def timed() -> int:
            found[name] = work()
            return len(found[name])

        return timed

    times = alternately({"stream": side("stream", gains.stream), "loop": side("loop", gains.loop)}, rounds)
    apart = float((found["stream"] - found["loop"]).abs().max())
    if not apart <= 1e-6:
        raise AssertionError(f"the two sides differ by {apart:.1e}")
    return times, apart


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--photographs", type=int, default=2, help="photographs in a round")
    parser.add_argument("--words", type=int, default=20, help="tokens of a caption")
    options = parser.parse_args(arguments)
    captioner = captioner_of("tiny", "resampler", None)
    with tempfile.TemporaryDirectory() as folder:
        times = alternately(explained(captioner, options.photographs, options.words, Path(folder)), options.rounds)
    rows = [[name, 1 / timing.per_second] for name, timing in times.items()]
    rows.append(["ratio", speedup(times["without"], times["with"])])
    print(markdown(f"xai=basic with and without evidence, {machine()}", ["evidence", "seconds a photograph"], rows))
    times, apart = compared(Gains(captioner.backbone, options.photographs), options.rounds)
    rows = [[name, timing.per_second] for name, timing in times.items()]
    rows += [["times faster", speedup(times["stream"], times["loop"])], ["largest difference", f"{apart:.0e}"]]
    print(markdown(f"Gains for {QUESTIONS} questions, {machine()}", ["side", "maps a second"], rows))


if __name__ == "__main__":
    main()
