"""What the cache, the loop and the loss cost and save: python -m benchmarks.training [--parts cache loop loss].

cache  an epoch of stage 1 on cached features against the same epoch that encodes its photographs again
loop   an epoch in Lightning, with logging and checkpoints, against a bare PyTorch loop over the same tensors
loss   logits at caption tokens, steps of like length and no graph for what is frozen, against the straightforward way

Towers and language models stand at random weights: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.common import Timing, alternately, machine, markdown, peak_mib, speedup
from clip_xai.data.images import read_image
from clip_xai.data.record import Record
from clip_xai.models.backbones.backbone_builder import BackboneSource, build_backbone
from clip_xai.models.captioner import IGNORED, Captioner
from clip_xai.models.language_model import build_language_model
from clip_xai.models.mappers import build_mapper
from clip_xai.models.weights import CaptionerSettings
from clip_xai.tasks.captions.data import CaptionData, Steps
from clip_xai.tasks.captions.module import CaptionerModule
from clip_xai.tasks.captions.unfreezing import Unfreezing
from clip_xai.training.features import FeatureCache, FeatureTable
from clip_xai.training.optimisation import Optimisation
from clip_xai.training.samplers import EpochSampler
from clip_xai.training.trainer import quiet_lightning

WORDS = (
    "a",
    "red",
    "brown",
    "scaly",
    "patch",
    "with",
    "an",
    "irregular",
    "border",
    "upper",
    "left",
    "melanoma",
    "nevus",
)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def captions(count: int, longest: int, seed: int = 0) -> list[str]:
    """Return captions whose lengths spread as those of the six sources do: most short, some long."""
    draw = np.random.default_rng(seed)
    lengths = np.clip(draw.lognormal(3.0, 0.6, count), 5, longest).astype(int)
    return [" ".join(draw.choice(WORDS, length)) for length in lengths]


def photographs(directory: Path, count: int) -> list[Record]:
    """Write photographs of 600 x 450 pixels, as HAM10000 has them."""
    records = []
    for index, text in enumerate(captions(count, 40)):
        image = directory / f"{index}.jpg"
        noise = np.random.default_rng(index).integers(0, 255, (45, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((600, 450)).save(image, quality=90)
        records.append(Record(image, "ham10000", image.name, str(index), None, None, text, (text,)))
    return records


def captioner_of(architecture: str, language_model: str) -> Captioner:
    """Return a captioner at random weights: the tower, the default mapper, a GPT-2."""
    torch.manual_seed(0)
    backbone = build_backbone("benchmark", architecture, None)
    model, tokenizer = build_language_model(language_model, None)
    mapper = build_mapper(
        "resampler", embed_dim=backbone.embed_dim, width=backbone.width, embedding_dim=model.config.n_embd,
        grid=backbone.grid, blocks=model.config.n_layer, prefix_length=32, head_width=32,
    )  # fmt: skip
    return Captioner(backbone, mapper, model, tokenizer).to(DEVICE)


def stage_1(captioner: Captioner) -> list[nn.Parameter]:
    """Freeze all but what stage 1 trains; return that."""
    captioner.requires_grad_(False)
    parts = [captioner.mapper, captioner.language_model.transformer.wte, captioner.language_model.transformer.wpe]
    return [parameter.requires_grad_(True) for part in parts for parameter in part.parameters()]


def step(loss: Tensor, optimiser: torch.optim.Optimizer, trained: Sequence[nn.Parameter]) -> None:
    """One step of the optimiser, with clipping."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimiser.step()


def cache(rounds: int, count: int, language_models: Sequence[str], batch_size: int = 8) -> str:
    """Cached features against encoding anew; both sides take the same steps on the same photographs."""
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        records = photographs(Path(folder), count)
        for name in language_models:
            captioner = captioner_of("ViT-B-16", name)
            trained = stage_1(captioner)
            optimiser = torch.optim.AdamW(trained, lr=1e-4)
            table = FeatureCache(Path(folder) / "cache", captioner.backbone).table(
                [r.image for r in records], captioner.reads
            )
            batches = [records[start : start + batch_size] for start in range(0, count, batch_size)]

            def cached(batch: Sequence[Record], table: FeatureTable = table) -> Tensor:
                return table.stack([record.image for record in batch]).to(DEVICE)

            @torch.no_grad()
            def encoded(batch: Sequence[Record], captioner: Captioner = captioner) -> Tensor:
                pixels = [captioner.backbone.preprocess(read_image(record.image)) for record in batch]
                return captioner.read(torch.stack(pixels).to(DEVICE))

            def epoch(
                read: Callable[[Sequence[Record]], Tensor],
                captioner: Captioner = captioner,
                optimiser: torch.optim.Optimizer = optimiser,
                trained: Sequence[nn.Parameter] = tuple(trained),
                batches: Sequence[Sequence[Record]] = tuple(batches),
            ) -> int:
                for batch in batches:
                    tokens = captioner.encode_captions([record.caption for record in batch])
                    step(captioner.loss(read(batch), tokens), optimiser, trained)
                return count

            first = captioner.loss(cached(batches[0]), captioner.encode_captions([r.caption for r in batches[0]]))
            again = captioner.loss(encoded(batches[0]), captioner.encode_captions([r.caption for r in batches[0]]))
            torch.testing.assert_close(first, again, atol=1e-4, rtol=1e-4)  # the same work
            times = alternately({"cached": lambda: epoch(cached), "encoded": lambda: epoch(encoded)}, rounds)
            rows.append(
                [
                    name,
                    times["cached"].per_second,
                    times["encoded"].per_second,
                    speedup(times["cached"], times["encoded"]),
                ]
            )
    title = f"Stage 1 on ViT-B/16: cached features against encoding {count} photographs anew"
    return markdown(title, ["language model", "cached, samples/s", "encoded, samples/s", "times faster"], rows)


class Clock(Callback):
    """Times Lightning's training epochs, and after each runs the bare loop's."""

    def __init__(self, bare: Callable[[], None]) -> None:
        self.bare = bare
        self.lightning_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self.start = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it, and give the bare loop its turn."""
        _wait()
        self.lightning_seconds.append(time.perf_counter() - self.start)
        start = time.perf_counter()
        self.bare()
        _wait()
        self.bare_seconds.append(time.perf_counter() - start)


def loop(rounds: int, count: int, batch_size: int = 32) -> str:
    """Lightning with data module, loggers, schedule and checkpoints against a loop over tensors in memory."""
    captioner, twin = captioner_of("tiny", "tiny"), captioner_of("tiny", "tiny")
    with tempfile.TemporaryDirectory() as folder:
        records, table = invented(captioner, count, longest=60)
        data = CaptionData(
            captioner, table, records, records[:batch_size], batch_size=batch_size, max_tokens=96, seed=0
        )
        batches = [
            {key: value.to(DEVICE) for key, value in batch.items() if key in ("read", "tokens")}
            for batch in data.train_dataloader()
        ]
        trained = stage_1(twin.train())
        optimiser = torch.optim.AdamW(trained, lr=1e-4)

        def bare() -> None:
            for batch in batches:
                step(twin.loss(batch["read"], batch["tokens"]), optimiser, trained)

        clock, plan = Clock(bare), Unfreezing(["mapper", "embeddings"])
        settings = CaptionerSettings(backbone=BackboneSource("benchmark", "tiny", None), mapper="resampler")
        captioner.backbone.source = "none"  # as with published weights: not written into checkpoints
        module = CaptionerModule(captioner, settings, Optimisation(learning_rate=1e-4), plan)
        with quiet_lightning():
            Trainer(
                accelerator="auto", devices=1, max_epochs=rounds + 1, gradient_clip_val=1.0, num_sanity_val_steps=0,
                logger=CSVLogger(folder), callbacks=[plan, clock, ModelCheckpoint(folder, monitor="val/loss")],
                enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=10,
            ).fit(module, datamodule=data)  # fmt: skip
    lightning, plain = (Timing(tuple(seconds[1:]), count) for seconds in (clock.lightning_seconds, clock.bare_seconds))
    rows = [
        ["bare PyTorch loop", plain.per_second, 1.0],
        ["Lightning, validation included", lightning.per_second, 1 / speedup(lightning, plain)],
    ]
    title = f"An epoch of stage 1 in Lightning, {count} photographs by {batch_size}, tiny models"
    return markdown(title, ["loop", "samples/s", "time, bare = 1"], rows)


def loss(rounds: int, count: int, language_model: str, batch_size: int = 16) -> str:
    """What this package leaves out, put back piece by piece."""
    captioner = captioner_of("tiny", "tiny")
    captioner.language_model = wide(language_model, captioner).to(DEVICE)
    captioner.mapper = build_mapper(
        "resampler", embed_dim=captioner.backbone.embed_dim, width=captioner.backbone.width,
        embedding_dim=captioner.language_model.config.n_embd, grid=captioner.backbone.grid,
        blocks=captioner.language_model.config.n_layer, prefix_length=32, head_width=32,
    ).to(DEVICE)  # fmt: skip
    captioner.requires_grad_(False)
    trained = [parameter.requires_grad_(True) for parameter in captioner.mapper.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)
    records, table = invented(captioner, count, longest=96)
    data = CaptionData(captioner, table, records, records[:2], batch_size=batch_size, max_tokens=128, seed=0)

    def batches(bucket: int | None) -> list[tuple[Tensor, Tensor]]:
        sampler = EpochSampler(range(count), [], 0.0, seed=0)
        parts = [
            data.train_set.__getitems__(places) for places in Steps(data.train_set, sampler, batch_size, bucket=bucket)
        ]
        return [(part["read"].to(DEVICE), part["tokens"].to(DEVICE)) for part in parts]

    def epoch(bucket: int | None, full: bool, graph: bool) -> Callable[[], int]:
        steps = batches(bucket)
        if bucket is None:
            longest = max(tokens.shape[1] for _, tokens in steps)
            steps = [(read, F.pad(tokens, (0, longest - tokens.shape[1]), value=IGNORED)) for read, tokens in steps]

        def run() -> int:
            captioner.language_model.requires_grad_(graph)
            for read, tokens in steps:
                value = everywhere(captioner, read, tokens) if full else captioner.loss(read, tokens)
                step(value, optimiser, trained)
                captioner.language_model.zero_grad(set_to_none=True)
            return count

        return run

    read, tokens = batches(None)[0]
    torch.testing.assert_close(everywhere(captioner, read, tokens), captioner.loss(read, tokens), atol=1e-4, rtol=1e-4)
    sides = {
        "this package": epoch(8, False, False),
        "with logits everywhere": epoch(8, True, False),
        "and padded to the longest": epoch(None, True, False),
        "and a graph for frozen weights": epoch(None, True, True),
    }
    times = alternately(sides, rounds)
    base = times["this package"]
    rows = [[name, t.per_second, speedup(base, t), peak_mib(sides[name])] for name, t in times.items()]
    title = f"A step of stage 1 with {language_model}, {count} captions of 5 to 96 words by {batch_size}"
    return markdown(title, ["", "samples/s", "this package is faster by", "peak memory, MiB"], rows)


def everywhere(captioner: Captioner, read: Tensor, tokens: Tensor) -> Tensor:
    """The same loss with logits at every position, the prefix's included."""
    prefix = captioner.prefix(read)
    embeddings = captioner.language_model.transformer.wte(tokens.clamp(min=0))
    logits = captioner.language_model(inputs_embeds=torch.cat([prefix, embeddings], dim=1), use_cache=False).logits
    labels = torch.cat([tokens.new_full(prefix.shape[:2], IGNORED), tokens], dim=1)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


def wide(name: str, captioner: Captioner) -> GPT2LMHeadModel:
    """Return a GPT-2 with the published vocabulary: a small one of four blocks, or a published size."""
    if name != "small":
        return build_language_model(name, None)[0]
    eos = captioner.tokenizer.eos_id
    return GPT2LMHeadModel(GPT2Config(n_embd=256, n_layer=4, n_head=4, bos_token_id=eos, eos_token_id=eos)).eval()


def invented(captioner: Captioner, count: int, longest: int) -> tuple[list[Record], FeatureTable]:
    """Return records without photographs and random features of them."""
    rows, columns = captioner.backbone.grid
    features = np.random.default_rng(0).standard_normal((count, rows * columns, captioner.backbone.width))
    array = features.astype(np.float32)
    records = [
        Record(Path(f"{index}.jpg"), "ham10000", f"{index}.jpg", str(index), None, None, text, (text,))
        for index, text in enumerate(captions(count, longest))
    ]
    return records, FeatureTable({record.image: (array, row) for row, record in enumerate(records)}, {})


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=("cache", "loop", "loss"), default=("cache", "loop", "loss"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photographs", type=int, default=16, help="of the cache's epoch")
    parser.add_argument("--samples", type=int, default=256, help="of the loop's epoch; the loss takes a quarter")
    parser.add_argument("--language-models", nargs="+", default=["tiny", "gpt2"], help="of the cache's epoch")
    parser.add_argument("--language-model", default="small", help="of the loss: small (4 blocks, 256 wide) or gpt2 ...")
    told = parser.parse_args()
    torch.set_flush_denormal(True)
    print(f"{machine()}\n")
    if "cache" in told.parts:
        print(cache(told.rounds, told.photographs, told.language_models))
    if "loop" in told.parts:
        print(loop(told.rounds, told.samples))
    if "loss" in told.parts:
        print(loss(told.rounds, told.samples // 4, told.language_model))


if __name__ == "__main__":
    main()
