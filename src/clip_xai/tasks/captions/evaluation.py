"""Write captions, judge them beside what they have to beat, and say what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import Tensor

from clip_xai.config.schemas import EvaluateConfig
from clip_xai.data.lexicon import read_diagnosis
from clip_xai.data.record import Record
from clip_xai.data.vocabulary import Vocabulary
from clip_xai.errors import UserError
from clip_xai.explanations.ledger import LedgerSettings
from clip_xai.explanations.run_ledger import RunLedger
from clip_xai.files import replacing, write_json, write_text
from clip_xai.metrics.attributes import true_diagnosis
from clip_xai.metrics.bert_score import ScorerUnavailable, load_bert_scorer
from clip_xai.metrics.caption_metrics import CaptionScorer
from clip_xai.metrics.evaluation import ClipFeatures, evaluate_captions
from clip_xai.metrics.results import MODEL, EvaluationResult
from clip_xai.metrics.tokens import AUTO, require_tokenizer
from clip_xai.models.backbones.clip import with_texts
from clip_xai.models.captioner import Caption, Captioner
from clip_xai.models.retrieval import Retrieval
from clip_xai.models.settings import Decoding
from clip_xai.report.evaluation_page import write_evaluation_page
from clip_xai.report.terminal import show
from clip_xai.report.wandb_tables import CAPTION_COLUMNS, caption_rows
from clip_xai.runs.directories import claim, code_digest
from clip_xai.runs.instantiate import decoding
from clip_xai.runs.judged import Judged, asked_of_data, asked_of_model, noted_of_model
from clip_xai.runs.notes import data_notes, few_steps, training_records
from clip_xai.tasks.captions.ledgers import run_ledger, why_no_ledger
from clip_xai.tasks.captions.opened import fingerprints_of, open_captioner
from clip_xai.tasks.captions.prompts import retrieved_prompts
from clip_xai.tasks.captions.training import with_captions
from clip_xai.tasks.captions.written import baseline_captions, cut_for_clip, empty_beams, generate_captions
from clip_xai.tasks.task import Judgement
from clip_xai.text import counted
from clip_xai.training.features import FeatureCache, FeatureTable

EXAMPLES = 24
_TEXTS = 256


@dataclass(frozen=True)
class Evaluation:
    """The captions of every system and what they are worth.

    Attributes:
        records: The records that were judged; those with an unreadable photograph are not among them.
        predictions: Captions of each system, row by row as the records; None where a baseline has none.
        result: Scores, intervals, comparisons and verdicts.
        vocabulary: What diagnoses are read with; that of skin if None.
        written: The model's captions with their tokens.
        ledger: What the words of some captions rest on; None where that was not asked.
    """

    records: list[Record]
    predictions: dict[str, list[str | None]]
    result: EvaluationResult
    vocabulary: Vocabulary | None = None
    written: list[Caption] = field(default_factory=list)
    ledger: RunLedger | None = None

    def table(self) -> pd.DataFrame:
        """Return one row per photograph: all captions, the diagnosis read and true, and the model's measures."""
        rows = []
        for index, record in enumerate(self.records):
            row: dict[str, Any] = {
                "image": record.name,
                "source": record.source,
                "group": record.group,
                "references": list(record.references),
                "diagnosis_true": true_diagnosis(record.diagnosis, record.references, self.vocabulary),
                "diagnosis_read": read_diagnosis(self.predictions[MODEL][index] or "", self.vocabulary),
            }
            row |= {f"caption_{system}": captions[index] for system, captions in self.predictions.items()}
            row |= {metric: values[index] for metric, values in self.result.rows.items()}
            row |= {} if self.ledger is None else self.ledger.cells(index)
            rows.append(row)
        return pd.DataFrame(rows).rename(columns={f"caption_{MODEL}": "caption"})


def evaluate(config: EvaluateConfig, on: Judged) -> Judgement:
    """Evaluate a trained captioner and write ``captions.parquet``, ``metrics.json``, ``evaluation.md``, ``index.html``.

    Args:
        config: All settings.
        on: The captioner and the photographs.

    Raises:
        UserError: No photograph can be read, or the directory holds something else.
    """
    require_tokenizer(config.tokenizer)
    if config.shortcuts or config.attributes is not None:
        raise UserError("shortcuts= and attributes= are of classifiers, and this model writes captions: leave them out")
    captioner, retrieval = open_captioner(on.place, on.data.vocabulary)
    captioner.to(Fabric(accelerator=config.trainer.accelerator, devices=1).device)
    run_dir = Path(config.run_dir)
    claim(run_dir, "evaluate", asked_of_evaluation(config, on, captioner), noted_of_model(on.place))
    bert_scorer, skipped = choose_bert_scorer(config.bert_score)
    records = with_captions(on.records, config.split)
    no_ledger = why_no_ledger(config.ledger, records, retrieval)
    train = [record for record in training_records(on) if record.references]
    cache = FeatureCache(Path(on.data.cache_dir), captioner.backbone)
    batch_size = config.trainer.feature_batch_size
    reads = cache.table([record.image for record in records], captioner.reads, batch_size)
    found = evaluate_captioner(
        captioner,
        records,
        train,
        reads=reads,
        pooled=cache.table([record.image for record in records + train], "pooled", batch_size),
        decoding=decoding(config.generation),
        batch_size=config.generation.batch_size,
        clip_score=config.clip_score is not None,
        tokenizer=config.tokenizer,
        cautions=few_steps(on.place),
        bert_scorer=bert_scorer,
        skipped=skipped | ({"What the words rest on (ledger)": no_ledger} if no_ledger else {}),
        notes={
            "captioner": str(on.place),
            "captioner's fingerprint": captioner.fingerprint()[:12],
            "tower's fingerprint": captioner.backbone.fingerprint[:12],
            **data_notes(config, on, records),
        },
        samples=config.bootstrap,
        seed=config.seed,
        retrieval=retrieval,
    )
    if not no_ledger:
        asked = LedgerSettings(seed=config.seed)
        found = replace(found, ledger=run_ledger(captioner, found.records, found.written, reads, config.ledger, asked))
    metrics = write_evaluation(found, run_dir)
    show(found.result, run_dir)
    summary = {f"{config.split}/{key}": value for key, value in found.result.summary().items()}
    return Judgement(metrics, summary, {"captions": (CAPTION_COLUMNS, list(caption_rows(examples(found))))})


def evaluate_captioner(
    captioner: Captioner,
    records: Sequence[Record],
    train_records: Sequence[Record],
    reads: FeatureTable,
    pooled: FeatureTable,
    *,
    decoding: Decoding | None = None,
    batch_size: int = 64,
    clip_score: bool = True,
    bert_scorer: CaptionScorer | None = None,
    skipped: dict[str, str] | None = None,
    notes: dict[str, str] | None = None,
    cautions: Sequence[str] = (),
    tokenizer: str = AUTO,
    samples: int = 1000,
    seed: int = 0,
    retrieval: Retrieval | None = None,
) -> Evaluation:
    """Write captions for records and judge them beside the baselines.

    Args:
        captioner: The model, on the device it shall run on.
        records: What is judged.
        train_records: What the baselines know.
        reads: What the mapper reads of each record's photograph.
        pooled: Image embeddings of the records' and the training records' photographs.
        decoding: How captions are decoded.
        batch_size: Photographs per decoding step.
        clip_score: Take CLIPScore by the captioner's own CLIP.
        bert_scorer: For BERTScore; None leaves it out.
        skipped: Reasons for what is left out, by name.
        notes: Settings to be shown in the report.
        cautions: Sentences that stand before every number of it.
        tokenizer: How BLEU and ROUGE cut captions into tokens; see `clip_xai.metrics.tokens`.
        samples: Resamples behind each interval.
        seed: Seed of the baselines and the resamples.
        retrieval: Makes the prompt of each photograph; None for the captioner's own. A shuffled image brings the
            prompt that it was described with.

    Raises:
        UserError: No photograph can be read, or too few captions are known for a prompt.
    """
    unreadable = reads.unreadable | pooled.unreadable
    judged = [record for record in records if record.image not in unreadable]
    known = [record for record in train_records if record.image not in unreadable]
    if not judged:
        raise UserError(
            f"none of {counted(len(records), 'photograph')} can be read: {next(iter(unreadable.values()), '')}"
        )
    decoding = decoding or Decoding()
    prompts = None if retrieval is None else retrieved_prompts(retrieval, judged, pooled)
    written = generate_captions(captioner, judged, reads, decoding, batch_size, prompts)
    captions = [caption.text for caption in written]
    features = pooled.stack([record.image for record in judged])
    words = captioner.vocabulary
    others, reasons = baseline_captions(captions, judged, known, features, pooled, seed, tokenizer, words)
    backbone = captioner.backbone
    clip = ClipFeatures(f"{backbone.name} {backbone.fingerprint[:12]}", features, _text_encoder(captioner))
    left_out = {**({} if clip_score else {"CLIPScore": "clip_score=null"}), **(skipped or {}), **reasons}
    predictions: dict[str, list[str | None]] = {MODEL: [*captions], **others}
    result = evaluate_captions(
        predictions,
        judged,
        clip=clip if clip_score else None,
        bert_scorer=bert_scorer,
        skipped=left_out,
        notes={
            "decoding": ", ".join(f"{key}={value}" for key, value in asdict(decoding).items()),
            **cut_for_clip(captioner, captions if clip_score else []),
            **({} if retrieval is None else {"retrieved captions in each prompt": str(retrieval.count)}),
            **(notes or {}),
        },
        set_aside={f"{r.source}/{r.name}": unreadable[r.image] for r in records if r.image in unreadable},
        cautions=[*empty_beams(captions, decoding), *cautions],
        tokenizer=tokenizer,
        samples=samples,
        seed=seed,
        vocabulary=words,
    )
    return Evaluation(judged, predictions, result, words, written)


def choose_bert_scorer(model: str | None) -> tuple[CaptionScorer | None, dict[str, str]]:
    """Return the scorer for BERTScore, or None with the reason why it is left out."""
    if model is None:
        return None, {
            "BERTScore": "no scorer was chosen; bert_score=roberta-large takes it from the Hugging Face cache"
        }
    try:
        return load_bert_scorer(model), {}
    except ScorerUnavailable as error:
        return None, {"BERTScore": str(error)}


def asked_of_evaluation(config: EvaluateConfig, on: Judged, captioner: Captioner) -> dict[str, Any]:
    """What decides the numbers of an evaluation."""
    alone = ("split", "bert_score", "clip_score", "tokenizer", "bootstrap", "ledger", "seed")
    return {
        "settings": {name: getattr(config, name) for name in alone} | {"generation": asdict(config.generation)},
        **asked_of_model(on.place, fingerprints_of(captioner)),
        **asked_of_data(on.data, on.manifest),
        "code": code_digest("data", "models", "metrics", *(["xai", "explanations"] if config.ledger else [])),
    }


def write_evaluation(found: Evaluation, run_dir: Path) -> dict[str, Any]:
    """Write the tables and the page of an evaluation; return what ``metrics.json`` holds."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with replacing(run_dir / "captions.parquet") as unfinished:
        found.table().to_parquet(unfinished, index=False)
    metrics = found.result.to_dict()
    ledger = found.ledger
    if ledger is not None:
        metrics["ledger"] = ledger.measured
        with replacing(run_dir / "ledger.parquet") as unfinished:
            ledger.table([record.name for record in found.records]).to_parquet(unfinished, index=False)
    write_json(run_dir / "metrics.json", metrics)
    write_text(run_dir / "evaluation.md", found.result.to_markdown())
    tables = () if ledger is None else (ledger.page_table,)
    write_evaluation_page(found.result, examples(found), run_dir / "index.html", tables)
    return metrics


def examples(found: Evaluation, count: int = EXAMPLES) -> list[dict[str, Any]]:
    """Choose photographs for the page at even steps through the sources, with all that is said of them.

    Returns:
        Dictionaries with ``image`` (path), ``name``, ``source``, ``group``, ``references``, ``diagnosis_true``,
        ``diagnosis_read``, ``captions`` (by system) and ``scores`` (by measure, None where the row does not count),
        ``ledger`` (None where none was taken).
    """
    order = sorted(range(len(found.records)), key=lambda index: (found.records[index].source, index))
    steps = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    chosen = []
    for row in (order[step] for step in steps):
        record = found.records[row]
        captions = {s: text for s, texts in found.predictions.items() if (text := texts[row]) is not None}
        chosen.append(
            {
                "image": record.image,
                "name": record.name,
                "source": record.shown_source,
                "group": record.group,
                "references": list(record.references),
                "diagnosis_true": true_diagnosis(record.diagnosis, record.references, found.vocabulary),
                "diagnosis_read": read_diagnosis(captions[MODEL], found.vocabulary),
                "captions": captions,
                "scores": {metric: values[row] for metric, values in found.result.rows.items()},
                "ledger": None if found.ledger is None else found.ledger.ledgers.get(row),
            }
        )
    return chosen


def _text_encoder(captioner: Captioner) -> Any:
    """Return a function that encodes each different caption once, in batches."""

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> Tensor:
        different = list(dict.fromkeys(texts))
        parts = [
            with_texts(captioner.backbone).encode_text(different[start : start + _TEXTS]).float().cpu()
            for start in range(0, len(different), _TEXTS)
        ]
        row = {text: index for index, text in enumerate(different)}
        return torch.cat(parts)[[row[text] for text in texts]]

    return encode
