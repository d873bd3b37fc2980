"""Makes the embedded default's weights again: ``python -m clip_xai.studies.pretrain`` (about an hour on two cores).

The tokenizer and the language model learn from descriptions of rendered scenes, the CLIP from rendered pictures and
their captions; ``--parts measure`` prints what the shipped weights reach. No seed of a rendered scene is used that the
miniature data set uses, and no mask is ever read.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from open_clip.pos_embed import get_2d_sincos_pos_embed
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import GPT2LMHeadModel

from clip_xai.config.cli import report_errors
from clip_xai.data.synthetic.describe import describe, facet_captions, facets
from clip_xai.data.synthetic.rendered import RenderedScenes
from clip_xai.data.synthetic.scene import Scene, sample_scene
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.files import replacing, write_json
from clip_xai.models.assets import TINY_CLIP, TINY_GPT2
from clip_xai.models.backbones.backbone_builder import EMBEDDED, build_backbone, tiny_backbone
from clip_xai.models.backbones.clip import CLIPBackbone, with_texts
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.finite import require_finite
from clip_xai.models.language_model import tiny_config
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.progress import track
from clip_xai.runs.directories import claim
from clip_xai.training.embedded_pretraining import EmbeddedPretraining, RenderedBatches
from clip_xai.training.loader_workers import keep_memory_flat
from clip_xai.training.stop_at_non_finite import StopAtNonFinite

# Scenes of the miniature data set are numbered from 0; training and testing here start far above.
TRAINING_SEEDS, TEST_SEEDS = 10_000_000, 20_000_000
LONGEST_PREFIX = 32
PARTS = ("tokenizer", "language_model", "clip", "measure")
JUDGED = ("diagnosis", *(name for name in load_vocabulary().attributes if name != "view"))


@dataclass(frozen=True)
class Recipe:
    """Every number that the embedded weights depend on.

    Attributes:
        seed: Of the weights, the batches and the order of the captions.
        scenes: Rendered training pictures.
        test_scenes: Rendered pictures of the measurement.
        vocabulary_size: Of the byte-level BPE.
        head_width: Channels of an attention head of the image tower.
        readout: What becomes the embedding: ``tok``, the class token, or ``avg``, the mean of the patches.
        least_parts: Training pictures show at least so many structures, artefacts and marks.
        patch_dropout: Share of patches left out of a training step (FLIP, arXiv 2212.00794).
        whole_captions: Pictures of a batch that are also set against their whole captions.
        steps: Optimiser steps of the CLIP; the cosine falls to 0 over them.
        whole_pictures: Last steps, in which no patch is dropped, as for every later user.
        position_weight: Weight of the short captions that say where, against 1 for all others.
        position_gain: 2-D sine-cosine embeddings times this gain are added to the initial position embeddings;
            open_clip's own are faint beside the patches.
        paraphrases: Weight of the contrast among short captions, in which wordings of one fact attract each other.
            Without it the captions of all positions fall into one point, from which neither tower finds out.
        language_steps, language_batch, language_rate: Of the language model.
    """

    seed: int = 0
    scenes: int = 16_000
    test_scenes: int = 1_500
    vocabulary_size: int = 640
    image_size: int = 96
    patch_size: int = 8
    patch_dropout: float = 0.5
    width: int = 128
    layers: int = 4
    head_width: int = 32
    readout: str = "tok"
    least_parts: int = 0
    text_layers: int = 2
    context_length: int = 64
    whole_captions: int = 64
    steps: int = 1_800
    warmup: int = 100
    whole_pictures: int = 120
    learning_rate: float = 1.5e-3
    batch_size: int = 256
    position_weight: float = 3.0
    position_gain: float = 0.5
    paraphrases: float = 1.0
    weight_decay: float = 0.1
    language_steps: int = 1_500
    language_batch: int = 64
    language_rate: float = 1.5e-3


def clip_config(recipe: Recipe, vocabulary_size: int, dropout: float) -> dict[str, Any]:
    """Return open_clip's configuration of the embedded CLIP."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": recipe.image_size,
            "patch_size": recipe.patch_size,
            "width": recipe.width,
            "layers": recipe.layers,
            "head_width": recipe.head_width,
            "pool_type": recipe.readout,
            "patch_dropout": dropout,
        },
        "text_cfg": {
            "context_length": recipe.context_length,
            "vocab_size": vocabulary_size,
            "width": 128,
            "heads": 4,
            "layers": recipe.text_layers,
        },
    }


def train_tokenizer(recipe: Recipe) -> CaptionTokenizer:
    """Learn the byte-level BPE from whole and short captions."""
    rng = np.random.default_rng(recipe.seed)
    texts: list[str] = []
    for index in range(4_000):
        scene = sample_scene(TRAINING_SEEDS + index)
        texts += [*describe(scene, 3), *facet_captions(scene, rng).values()]
    tokenizer = CaptionTokenizer.train(texts, recipe.vocabulary_size)
    tokenizer.save(TINY_GPT2)
    return tokenizer


def train_language_model(recipe: Recipe, tokenizer: CaptionTokenizer) -> float:
    """Train the embedded GPT-2 on descriptions alone; return the last loss in nats per token."""
    torch.manual_seed(recipe.seed)
    model = GPT2LMHeadModel(tiny_config(tokenizer.vocabulary_size, tokenizer.eos_id)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.language_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.language_rate, recipe.language_steps)
    rng = np.random.default_rng(recipe.seed + 1)
    loss = torch.tensor(0.0)
    for _ in track(range(recipe.language_steps), "Training the language model"):
        batch = _description_batch(recipe, tokenizer, rng)
        # A prefix will stand before the captions, so they are learned at every place where one may begin.
        offsets = torch.from_numpy(rng.integers(0, LONGEST_PREFIX + 1, (len(batch), 1)))
        positions = torch.arange(batch.shape[1]) + offsets
        loss = model(input_ids=batch.clamp(min=0), position_ids=positions, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    require_finite(model.state_dict(), "the language model")
    state = {key: value.half().contiguous() for key, value in model.state_dict().items() if key != "lm_head.weight"}
    with replacing(TINY_GPT2 / "model.safetensors") as unfinished:
        save_file(state, unfinished)
    return loss.item()


def _description_batch(recipe: Recipe, tokenizer: CaptionTokenizer, rng: np.random.Generator) -> Tensor:
    seeds = TRAINING_SEEDS + rng.integers(0, recipe.scenes, recipe.language_batch)
    texts = [describe(sample_scene(int(seed)), 3)[rng.integers(3)] for seed in seeds]
    rows = [[*tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    batch = torch.full((len(rows), max(map(len, rows))), -100)
    for target, row in zip(batch, rows, strict=True):
        target[: len(row)] = torch.tensor(row)
    return batch


class ZeroShot(Callback):
    """Measures and saves the tower now and then, so that a stopped run is not lost."""

    def __init__(self, recipe: Recipe, test: RenderedScenes, every: int, folder: Path) -> None:
        self.recipe, self.test, self.every, self.folder = recipe, test, every, folder

    def on_train_batch_end(self, trainer: Trainer, module: Any, *args: Any) -> None:
        """Print zero-shot accuracies and write the weights every so many steps."""
        step = trainer.global_step
        if step == self.recipe.steps - self.recipe.whole_pictures:
            module.backbone.visual.patch_dropout = torch.nn.Identity()
        if step % self.every and step != self.recipe.steps:
            return
        accuracies = measure(module.backbone, self.test)
        loss = round(float(trainer.callback_metrics["train/loss"]), 3)
        print(json.dumps({"step": step, "loss": loss} | accuracies), flush=True)
        save_backbone(module.backbone, self.recipe, accuracies, self.folder)


@torch.no_grad()
def measure(backbone: CLIPBackbone, test: RenderedScenes) -> dict[str, float]:
    """Return zero-shot accuracy on held-out pictures, for the diagnosis and each attribute.

    A value's classifier is the mean embedding of every short caption that names it, as CLIP's prompt ensembles are.
    """
    was_training = backbone.training
    backbone.eval()
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (backbone.preprocess.mean, backbone.preprocess.std))
    images = []
    for start in range(0, len(test.scenes), 250):
        pixels = (torch.from_numpy(test.pixels[start : start + 250]).float() / 255 - mean) / std
        images.append(torch.nn.functional.normalize(backbone.encode_image(pixels), dim=-1))
    embeddings = torch.cat(images)
    prompts, values = prompts_by_value(test), [facets(scene) for scene in test.scenes]
    accuracies = {}
    for kind in JUDGED:
        names = sorted(prompts[kind])
        centres = torch.stack([_ensemble(backbone, sorted(prompts[kind][name])) for name in names])
        chosen = (embeddings @ centres.T).argmax(1).tolist()
        hits = [names[choice] == value[kind] for choice, value in zip(chosen, values, strict=True)]
        accuracies[kind] = round(float(np.mean(hits)), 4)
    backbone.train(was_training)
    return accuracies


def prompts_by_value(test: RenderedScenes) -> dict[str, dict[str, set[str]]]:
    """Return every short caption that names a value, by kind and value."""
    rng = np.random.default_rng(0)
    prompts: dict[str, dict[str, set[str]]] = {kind: {} for kind in JUDGED}
    for scene in test.scenes:
        stated, value = facet_captions(scene, rng), facets(scene)
        for kind in JUDGED:
            prompts[kind].setdefault(value[kind], set()).add(stated[kind])
    return prompts


def _ensemble(backbone: CLIPBackbone, texts: list[str]) -> Tensor:
    embeddings = torch.nn.functional.normalize(backbone.encode_text(texts), dim=-1)
    return torch.nn.functional.normalize(embeddings.mean(0), dim=-1)


def save_backbone(backbone: OpenClipBackbone, recipe: Recipe, accuracies: dict[str, float], folder: Path) -> None:
    """Write the tower in half precision, its configuration, and beside the folder the recipe with what it measured."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.half().contiguous() for key, value in backbone.model.state_dict().items()}
    require_finite(state, "the tower in half precision")
    with replacing(folder / "model.safetensors") as unfinished:
        save_file(state, unfinished)
    vocabulary_size = int(backbone.model.vocab_size)
    config = {"model_cfg": clip_config(recipe, vocabulary_size, 0.0)}
    write_json(folder / "open_clip_config.json", config)
    report = {
        "command": "python -m clip_xai.studies.pretrain",
        "recipe": asdict(recipe),
        "zero_shot_accuracy": accuracies,
        "held_out_scenes": recipe.test_scenes,
        "trained_on": "rendered pictures and their captions alone; no masks, no labels",
    }
    write_json(folder.parent / "recipe.json", report)


def train_clip(
    recipe: Recipe, tokenizer: CaptionTokenizer, work: Path, workers: int, every: int, folder: Path | None = None
) -> None:
    """Train a CLIP like the embedded one from nothing, in one go, and write it.

    Args:
        recipe: How.
        tokenizer: Of its texts.
        work: Where rendered pictures are kept.
        workers: Processes that render.
        every: Steps between two measurements.
        folder: Where it is written; None for the place of the embedded one.
    """
    seed_everything(recipe.seed, verbose=False)
    training, test = rendered("train", recipe, work, workers), held_out(recipe, work, workers)
    backbone = tiny_backbone(clip_config(recipe, tokenizer.vocabulary_size, recipe.patch_dropout), tokenizer)
    strengthen_positions(backbone, recipe.position_gain)
    module = EmbeddedPretraining(
        backbone,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        steps=recipe.steps,
        warmup=recipe.warmup,
        paraphrases=recipe.paraphrases,
        position_weight=recipe.position_weight,
    )
    batches = RenderedBatches(training, backbone, recipe.batch_size, recipe.whole_captions, recipe.seed)
    trainer = Trainer(
        max_steps=recipe.steps,
        accelerator="cpu",
        precision="bf16-mixed",
        logger=False,
        enable_checkpointing=False,
        gradient_clip_val=1.0,
        callbacks=[
            StopAtNonFinite(),
            ZeroShot(recipe, test, every, folder or TINY_CLIP),
            TQDMProgressBar(refresh_rate=20),
        ],
        enable_model_summary=False,
    )
    trainer.fit(module.train(), DataLoader(batches, batch_size=None, num_workers=1, worker_init_fn=keep_memory_flat))


def held_out(recipe: Recipe, work: Path, workers: int) -> RenderedScenes:
    """Return the pictures that every measurement is made on."""
    return rendered("test", recipe, work, workers)


def rendered(name: str, recipe: Recipe, work: Path, workers: int) -> RenderedScenes:
    """Render the ``train`` or ``test`` pictures, or read them where an earlier run left them."""
    first, count = (TRAINING_SEEDS, recipe.scenes) if name == "train" else (TEST_SEEDS, recipe.test_scenes)
    least = recipe.least_parts if name == "train" else 0
    cache = work / f"{name}_{count}_{recipe.image_size}{f'_of_{least}_parts' if least else ''}.npy"
    shown = (seed for seed in itertools.count(first) if not least or parts_shown(sample_scene(seed)) >= least)
    return RenderedScenes.render(list(islice(shown, count)), recipe.image_size, cache, workers)


def parts_shown(scene: Scene) -> int:
    """Return how many structures, artefacts and marks a scene shows."""
    return len(scene.structures) + len(scene.distractors) + len(scene.marks)


@torch.no_grad()
def strengthen_positions(backbone: OpenClipBackbone, gain: float) -> None:
    """Add ``gain`` times 2-D sine-cosine position embeddings to the learned ones."""
    fixed = get_2d_sincos_pos_embed(backbone.width, backbone.grid[0], cls_token=True)
    backbone.visual.positional_embedding += gain * torch.from_numpy(fixed).float()


def main(arguments: list[str] | None = None) -> None:
    """Make the tokenizer, the language model and the CLIP, in this order."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/pretrain"), help="where rendered pictures are kept")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:3])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=int, default=250, help="measure and save after so many steps")
    options = parser.parse_args(arguments)
    # Denormal numbers make tiny models ten times slower on some processors.
    torch.set_flush_denormal(True)
    recipe = Recipe()
    claim(options.work, "pretrain", {"settings": asdict(recipe)}, setting="--work")
    tokenizer = train_tokenizer(recipe) if "tokenizer" in options.parts else CaptionTokenizer.load(TINY_GPT2)
    if "clip" in options.parts:
        train_clip(recipe, tokenizer, options.work, options.workers, options.every)
    if "measure" in options.parts:
        backbone = with_texts(build_backbone("tiny", "tiny", EMBEDDED))
        print(json.dumps(measure(backbone, held_out(recipe, options.work, options.workers))))
    if "language_model" in options.parts:
        print(f"language model: {train_language_model(recipe, tokenizer):.3f} nats per token")


if __name__ == "__main__":
    with report_errors("train"):
        main()
