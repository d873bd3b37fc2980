"""Do heat maps lie on the lesion? ``python -m clip_xai.studies.localise [ckpt=latest] [samples=200] [xai=basic]``.

Every explainer over many photographs with lesion masks, beside controls that look at no model (random, centre, colour
contrast, edges, the usual place), the attention rollout, and the same explainers on the same tower at random weights.
Takes the settings of ``explain``; writes ``localisation.json`` and ``localisation.md`` into the run directory.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from clip_xai.config.cli import compose_job, report_errors
from clip_xai.config.schemas import ExplainConfig
from clip_xai.data.images import read_image, read_mask
from clip_xai.data.record import EMPTY_MASK, FULL_MASK, Record
from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.errors import UserError
from clip_xai.explanations.lesion_maps import RANDOM, TRAINED, LesionMaps
from clip_xai.explanations.lesion_ranking import COMPARED, SEEDS, ranked_regions, ranking_table, rows_with_ranking
from clip_xai.explanations.questions import WHOLE_CAPTION, diagnosis_words, with_prompt
from clip_xai.files import write_json, write_text
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.blueprint import random_twin
from clip_xai.models.backbones.clip import with_texts
from clip_xai.models.captioner import Captioner
from clip_xai.models.retrieval import Retrieval
from clip_xai.models.settings import Decoding
from clip_xai.progress import track
from clip_xai.report.assemble import Answer
from clip_xai.report.explained import LOG_PROBABILITY, MARGIN
from clip_xai.report.pages import Table
from clip_xai.runs.checkpoints import CAPTIONS
from clip_xai.runs.directories import claim, code_digest, plugin_digest
from clip_xai.runs.instantiate import decoding, device_of, explainers_of
from clip_xai.runs.judged import Judged, asked_of_data, asked_of_model, judged, noted_of_model
from clip_xai.runs.records import evenly
from clip_xai.tasks.captions.opened import fingerprints_of, open_captioner
from clip_xai.text import counted, plural
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.explainer import Explainer, defined_for, explain_together
from clip_xai.xai.methods import AttentionRollout
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import CaptionTarget, ContrastTarget, SimilarityTarget, Target

log = logging.getLogger(__name__)


def localise(config: ExplainConfig) -> tuple[list[dict[str, Any]], Table]:
    """Measure localisation over ``config.samples`` photographs that have a lesion mask and a known diagnosis.

    Returns:
        One row for each method and target, and the table for a reader.

    Raises:
        UserError: There is no such photograph, the model sees none of the lesions, or a setting is given that is of
            no meaning here.
    """
    _refuse_settings_of_explain(config)
    on = judged(replace(config, trained_for=CAPTIONS))
    records, idle = measurable(on.records)
    if not records:
        raise UserError(f"split={config.split}: no photograph has a mask and a diagnosis; localisation needs both")
    chosen = evenly(records, config.samples)
    captioner, retrieval = open_captioner(on.place, on.data.vocabulary)
    noted = noted_of_model(on.place) | {"data.name": on.data.name, "truth": captioner.vocabulary.truth}
    claim(Path(config.run_dir), "localise", asked_of_localisation(config, on, captioner), noted)
    captioner.to(device_of(config.trainer))
    words = captioner.vocabulary
    methods = [method for method in explainers_of(config.xai) if method.modality == "image"]
    rollout = AttentionRollout()  # a control: it does not hear what is asked
    if "attention" in captioner.backbone.supports and rollout.name not in {method.name for method in methods}:
        methods.append(rollout)
    towers = [captioner.backbone]
    trained = measure(towers, captioner, chosen, methods, decoding(config.generation), retrieval, words)
    torch.manual_seed(config.seed)
    twins = [random_twin(captioner.backbone).to(device_of(config.trainer)) for _ in range(SEEDS)]
    random = measure(twins, None, chosen, methods, vocabulary=words)
    rows = rows_with_ranking(trained.measure(config.seed), ranked_regions(trained, random, config.seed))
    controls = [row for row in random.measure(config.seed) if not row["method"].startswith("control")]
    rows = [row | {"weights": TRAINED} for row in rows if row[COMPARED]["n"]]
    rows += [row | {"weights": RANDOM} for row in controls]
    table = ranking_table(rows, words)
    if table is None:
        raise UserError(
            f"split={config.split}: the model sees a {words.truth} in none of {counted(len(chosen), 'photograph')}: "
            "the masks are empty or lie outside the square that it reads"
        )
    fingerprints = f"fingerprint {captioner.fingerprint()[:12]}, tower {captioner.backbone.fingerprint[:12]}"
    said = [table.note, f"Captioner: {on.place}, {fingerprints}.", *(f"{note}." for note in on.notes)]
    if idle:
        said.append(f"Left out: {counted(idle, 'mask')} of nothing or of everything, by which nothing is measured.")
    return rows, replace(table, note=" ".join(said))


def measurable(records: Sequence[Record]) -> tuple[list[Record], int]:
    """Return the records on which heat can be measured, and how many more have a mask of nothing or of everything."""
    found = [record for record in records if record.mask and record.diagnosis]
    able = [record for record in found if not {EMPTY_MASK, FULL_MASK}.intersection(record.flags)]
    return able, len(found) - len(able)


def _refuse_settings_of_explain(config: ExplainConfig) -> None:
    """Refuse what ``explain`` would heed and this does not: it measures a captioner and its tower on a data set."""
    for name in ("backbone", "image", "text"):
        if getattr(config, name) is not None:
            raise UserError(
                f"{name}= is a setting of explain.py; heat is measured on the masks of a captioner's data set: leave "
                f"it out and choose with ckpt, data, split and samples"
            )


def asked_of_localisation(config: ExplainConfig, on: Judged, captioner: Captioner) -> dict[str, Any]:
    """What decides the numbers."""
    settings = {name: getattr(config, name) for name in ("split", "samples", "seed")}
    return {
        "settings": settings | {name: asdict(getattr(config, name)) for name in ("xai", "generation")},
        **asked_of_model(on.place, fingerprints_of(captioner)),
        **asked_of_data(on.data, on.manifest),
        "code": code_digest("data", "models", "metrics", "xai") + plugin_digest(explainers_of(config.xai)),
    }


def measure(
    towers: Sequence[VisionBackbone],
    captioner: Captioner | None,
    records: Sequence[Record],
    methods: Sequence[Explainer],
    how: Decoding | None = None,
    retrieval: Retrieval | None = None,
    vocabulary: Vocabulary | None = None,
) -> LesionMaps:
    """Explain the true diagnosis by similarity and by contrast and, with a captioner, what the caption says.

    Photographs take the towers, equally built, in turn: a captioner's own, or several at random weights. The contrast
    is the margin of the true diagnosis over every other one that stands in the records: it takes out what all texts of
    a field share, which a single similarity also explains.
    """
    words = vocabulary or load_vocabulary()
    maps, silent = LesionMaps(vocabulary=words), 0
    known = sorted({record.diagnosis for record in records if record.diagnosis})
    progress = track(records, "Heat maps beside masks" if captioner else "The same at random weights")
    for number, record in enumerate(progress):
        backbone = towers[number % len(towers)]
        assert record.mask is not None
        picture = read_image(record.image)
        pixels = backbone.preprocess.read(record.image)[None].to(next(backbone.parameters()).device)
        with with_prompt(captioner, retrieval, pixels, record.group):
            answers = answered(backbone, captioner, pixels, record.diagnosis, known, methods, how, words)
        silent += captioner is not None and all(answer.score_name != LOG_PROBABILITY for answer in answers)
        geometry = backbone.preprocess.geometry(picture.width, picture.height)
        maps.add(backbone, picture, geometry, read_mask(record.mask, record.mask_values), answers, record.group)
    if silent:
        log.warning(
            "%d of %s %s no map, being empty; the others alone are measured",
            silent,
            counted(len(records), "caption"),
            plural(silent, "has", "have"),
        )
    return maps


def answered(
    backbone: VisionBackbone,
    captioner: Captioner | None,
    pixels: torch.Tensor,
    diagnosis: str | None,
    known: Sequence[str],
    methods: Sequence[Explainer],
    how: Decoding | None,
    vocabulary: Vocabulary | None = None,
) -> list[Answer]:
    """Return what all methods say about each target of one photograph ``[1, 3, S, S]``, whose diagnosis is known."""
    bank = PerturbationBank(backbone, pixels)
    # Captions first: a pass for their patch tokens gives the pooled embeddings of the other targets too.
    targets: list[tuple[str, Target]] = []
    if captioner is not None:
        targets += [(LOG_PROBABILITY, target) for target in spoken(captioner, pixels, how)]
    form = (vocabulary or load_vocabulary()).comparison
    text = form.replace("{}", str(diagnosis))
    targets.append(("cosine", SimilarityTarget.from_texts(with_texts(backbone), [text])))
    others = [name for name in known if name != diagnosis]
    if others:
        texts = [text, *(form.replace("{}", name) for name in others)]
        targets.append((MARGIN, ContrastTarget.from_texts(with_texts(backbone), texts)))
    answers = []
    for name, target in targets:
        able, _ = defined_for(methods, backbone, target)
        found = explain_together(able, backbone, pixels, target, bank)
        if name == MARGIN:
            found = [_first_score(attribution) for attribution in found]
        settings = [method.settings for method in able]
        answers.append(Answer(name, [None] * len(found[0].labels), found, settings))
    return answers


def _first_score(attribution: Attribution) -> Attribution:
    tokens = None if attribution.tokens is None else attribution.tokens[:1]
    values, scores = attribution.values[:, :1], attribution.scores[:, :1]
    return replace(attribution, values=values, scores=scores, labels=attribution.labels[:1], tokens=tokens)


def spoken(captioner: Captioner, pixels: torch.Tensor, how: Decoding | None) -> list[Target]:
    """Return the target of a generated caption: the diagnosis it states, if any, and the whole; nothing if empty."""
    with torch.no_grad():
        caption = captioner.generate(captioner.read(pixels), how)[0]
    if not caption.text.strip():
        return []
    words = CaptionTarget.words(captioner, caption.token_ids).caption_words()
    stated = diagnosis_words(captioner.tokenizer.decode(caption.token_ids), words, captioner.vocabulary)
    parts, labels = [tuple(range(len(caption.token_ids)))], [WHOLE_CAPTION]
    if stated:
        parts.append(tuple(token for word in stated for token in word.tokens))
        labels.append("diagnosis: stated")
    return [CaptionTarget(captioner, caption.token_ids, parts, labels)]


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    lines = [" | ".join(table.head), " | ".join("---" for _ in table.head), *(" | ".join(row) for row in table.rows)]
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{table.note}\n"


def write_localisation(rows: list[dict[str, Any]], table: Table, run_dir: Path) -> None:
    """Write what was measured for programs and for readers."""
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / "localisation.json", rows)
    write_text(run_dir / "localisation.md", markdown(table))


def main(arguments: list[str]) -> None:
    """Measure with the settings of ``explain`` and print the table."""
    run_dir = Path("runs") / "localisation" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    with report_errors("explain"):
        config = compose_job("explain", ["xai=basic", "samples=200", *arguments], run_dir)
        rows, table = localise(config)
        write_localisation(rows, table, Path(config.run_dir))
        print(markdown(table))


if __name__ == "__main__":
    main(sys.argv[1:])
