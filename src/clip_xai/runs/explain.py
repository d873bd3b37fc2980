"""The job ``explain``: what on the photograph, and in the text, is behind each word and each similarity.

A run directory holds ``index.html``, ``cards/*.png``, ``metrics.json``, the raw attributions (``results/``, see
:mod:`clip_xai.runs.results`) and their index ``attributions.parquet``. Each photograph is written as soon as it is
done; the same command with the same ``run_dir=`` goes on where it stopped. With ``trainer.devices`` above 1 several
processes share one run.
"""

from __future__ import annotations

import functools
import logging
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning import LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from clip_xai.data.images import number_of, read_image, read_mask
from clip_xai.data.preprocess import Geometry
from clip_xai.errors import UserError
from clip_xai.files import replacing, write_json
from clip_xai.models.backbones.base import Backbone
from clip_xai.models.backbones.build import build_backbone
from clip_xai.models.captioner import Caption, Captioner, Decoding
from clip_xai.models.decoding import REPORTED
from clip_xai.models.retrieval import Retrieval
from clip_xai.report.assemble import Answer, assemble
from clip_xai.report.cards import write_card
from clip_xai.report.evidence import Evidence
from clip_xai.report.explained import ExplainedImage
from clip_xai.report.html import write_explanations
from clip_xai.report.wandb_tables import EXPLANATION_COLUMNS, explanation_rows
from clip_xai.runs.checkpoints import resolve_checkpoint
from clip_xai.runs.comparison_texts import ComparisonTexts
from clip_xai.runs.config import DataConfig, ExplainConfig, TrainerConfig
from clip_xai.runs.directories import claim, code_digest
from clip_xai.runs.evidence import localisation_of
from clip_xai.runs.instantiate import decoding, explainers, open_captioner
from clip_xai.runs.judged import asked_of_model, decisive, judged, noted_of_model
from clip_xai.runs.lesion_maps import LesionMaps
from clip_xai.runs.lineage import Lineage
from clip_xai.runs.loggers import log_metrics, log_table, open_loggers
from clip_xai.runs.photographs import Photograph, photographs_at
from clip_xai.runs.questions import Asked, Question, ask, in_brief, question_of, with_prompt
from clip_xai.runs.records import evenly, load_records
from clip_xai.runs.results import Result, ResultStore, index_rows
from clip_xai.runs.trainer import is_first_process, quiet_lightning
from clip_xai.text import counted
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.explainer import Explainer, defined_for, explain_apart
from clip_xai.xai.perturbation import PerturbationBank
from clip_xai.xai.target import SimilarityTarget

log = logging.getLogger(__name__)
ON_THE_PAGE = 200  # photographs; of a longer run, the page shows the first ones
RENDERED_ALONE = (
    "This captioner has seen rendered pictures alone, and this is a photograph: what it says of it means nothing."
)
IN_THE_TABLE = 16  # photographs in the logger's table


@dataclass(frozen=True)
class Inquiry:
    """All that is needed to explain one photograph after another.

    Attributes:
        backbone: The tower.
        captioner: The captioner; None where only the similarity to a given text is asked.
        methods: The explainers; those that read a trace share one pass for each target.
        question: What is asked.
        decoding: How captions are decoded; None for how they are evaluated. Where it is another, the evaluated caption
            stands among a photograph's facts.
        retrieval: Makes each photograph's prompt, which is shown among its facts; None for the captioner's own.
    """

    backbone: Backbone
    captioner: Captioner | None
    methods: Sequence[Explainer]
    question: Question
    decoding: Decoding | None = None
    retrieval: Retrieval | None = None

    def __post_init__(self) -> None:
        if self.captioner is None and self.question.needs_captioner:
            raise UserError(
                "without a captioner there is no caption to explain: choose target=similarity or contrast with "
                "text=..., class or embedding_dimension"
            )

    def result(self, photograph: Photograph) -> Result:
        """Explain one photograph.

        Raises:
            UserError: It cannot be read, or a target cannot be explained.
        """
        picture = read_image(photograph.path)
        geometry = self.backbone.preprocess.geometry(picture.width, picture.height)
        # At reduced size, as features are computed: else the caption may be another than the evaluated one.
        pixels = self.backbone.preprocess.read(photograph.path)[None].to(next(self.backbone.parameters()).device)
        with with_prompt(self.captioner, self.retrieval, pixels, photograph.group or None):
            if self.captioner is not None and self.retrieval is not None:
                photograph = replace(photograph, facts=photograph.facts | {"prompt": self.captioner.prompt})
            return self.result_of(photograph, pixels, geometry)

    @functools.cached_property
    def saw_rendered_alone(self) -> bool:
        """Whether all that the captioner has learned from was drawn by this package."""
        lineage = None if self.captioner is None else Lineage.unpacked(self.captioner.provenance)
        return lineage is not None and lineage.only_rendered

    def result_of(self, photograph: Photograph, pixels: Tensor, geometry: Geometry) -> Result:
        """Explain one photograph that is read already.

        Args:
            photograph: What is known of it.
            pixels: What the tower sees of it, ``[1, 3, S, S]``.
            geometry: Where that lies on it.

        Raises:
            UserError: No method answers.
        """
        if self.saw_rendered_alone and not photograph.rendered:
            photograph = replace(photograph, warning=RENDERED_ALONE)
        caption = None
        if self.captioner is not None:
            decoding = self.decoding or REPORTED
            caption = self._caption(self.captioner, pixels, photograph, decoding)
            if decoding != REPORTED:
                try:
                    evaluated = self._caption(self.captioner, pixels, photograph, REPORTED).text
                except UserError as error:  # its language model may have too few positions for that
                    evaluated = f"none: {error}"
                said = {
                    "decoding": decoding.beside(REPORTED),
                    f"caption as evaluated ({REPORTED.beside(decoding)})": evaluated,
                }
                photograph = replace(photograph, facts=photograph.facts | said)
            if not caption.complete:
                ended = f"the caption ends where generation.max_new_tokens={decoding.max_new_tokens} ran out"
                photograph = replace(photograph, facts=photograph.facts | {"mind": ended})
        answers = {}
        bank = PerturbationBank(self.backbone, pixels)  # masked images are run once for all questions
        brief = in_brief(self.question)
        shorter = {} if brief is None else ask(brief, self.backbone, self.captioner, caption)
        unanswered: list[str] = []
        for name, asked in ask(self.question, self.backbone, self.captioner, caption).items():
            try:
                answer = self._answer(pixels, bank, asked, shorter.get(name, asked))
                if isinstance(asked.target, SimilarityTarget):
                    answer = replace(answer, contexts=self._scale(pixels, asked.target))
            except UserError as error:
                unanswered.append(f"target={name}: {error}")
                continue
            placed = [attribution.with_geometry([geometry]) for attribution in answer.attributions]
            answers[name] = replace(answer, attributions=placed)
        if not answers:
            raise UserError(" ".join(unanswered))
        if unanswered:
            name, answer = next(iter(answers.items()))
            answers[name] = replace(answer, left_out=(*answer.left_out, *unanswered))
        return Result(photograph, None if caption is None else caption.text, answers)

    @staticmethod
    @torch.no_grad()
    def _caption(captioner: Captioner, pixels: Tensor, photograph: Photograph, decoding: Decoding) -> Caption:
        rows = [number_of(photograph.path)] if decoding.sample and photograph.path.is_file() else None
        return captioner.generate(captioner.read(pixels), decoding, rows=rows)[0]

    def _scale(self, pixels: Tensor, target: SimilarityTarget) -> tuple[str, ...]:
        """What each similarity is to be read against."""
        with torch.no_grad():
            return tuple(self.comparison.contexts(self.backbone.encode_image(pixels), target))

    @functools.cached_property
    def comparison(self) -> ComparisonTexts:
        """The other texts, embedded at the first question about one."""
        return ComparisonTexts(self.backbone)

    def _answer(self, pixels: Tensor, bank: PerturbationBank, asked: Asked, shorter: Asked) -> Answer:
        """Explain one target by every method, the shorter one by those not made for every word of a caption."""
        methods, refused = defined_for(self.methods, self.backbone, asked.target)
        left_out = [f"{reason}." for reason in refused]
        costly = [method for method in methods if not method.every_word and shorter.spans != asked.spans]
        quick = [method for method in methods if method not in costly]
        found: list[Attribution] = []
        if quick:
            quick, found, failed = explain_apart(quick, self.backbone, pixels, asked.target, bank)
            left_out += failed
        if costly:
            costly, more, failed = explain_apart(costly, self.backbone, pixels, shorter.target, bank)
            found += more
            left_out += failed
            left_out += [
                f"{method.name} takes dozens of passes for each word: asked of the words by target=caption_word alone."
                for method in costly
            ]
        if not found:
            raise UserError(" ".join(left_out))
        spans = asked.spans if quick else shorter.spans
        settings = [method.settings for method in (*quick, *costly)]
        return Answer(asked.score_name, spans, found, settings, asked.notes, tuple(left_out))


class ExplainingModule(LightningModule):
    """Lets Lightning give out the photographs: to one process or to several."""

    def __init__(
        self, inquiry: Inquiry, photographs: Sequence[Photograph], store: ResultStore, evidence: Evidence | None = None
    ) -> None:
        super().__init__()
        self.model = inquiry.captioner or inquiry.backbone
        self.inquiry = inquiry
        self.photographs = photographs
        self.store = store
        self.evidence = evidence

    def on_predict_start(self) -> None:
        """Let SIGTERM end the process: Lightning only takes note of it, and predicting never looks."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what is written is whole, and the next call goes on from there

    def predict_step(self, batch: list[int], batch_index: int) -> list[int]:
        """Explain the photographs with these numbers, which count from 1, write each at once, return the numbers."""
        for number in batch:
            photograph = self.photographs[number - 1]
            try:
                result = self.inquiry.result(photograph)
                image = shown(result, self.inquiry.backbone)
            except UserError as error:
                self.store.write_problem(number, photograph, str(error))
                log.warning("%s: %s", photograph.name, error)
                continue
            except OSError:
                raise  # a full disk ends the run; a photograph that cannot be read is no such error
            except Exception as error:
                reason = (str(error).splitlines() or [""])[0][:200]
                self.store.write_problem(number, photograph, f"{type(error).__name__}: {reason}")
                log.exception("%s", photograph.name)
                continue
            name = self.store.name_of(number)
            write_card(image, self.store.run_dir / "cards" / f"{name}.png", self.evidence)
            self.store.write(number, result)
        return batch


def explain(config: ExplainConfig) -> dict[str, Any]:
    """Explain photographs with a trained captioner, or with a CLIP alone; see the module for what is written.

    Returns:
        What ``metrics.json`` holds; in a process that only helps another one, nothing.

    Raises:
        UserError: There is no checkpoint or no photograph, not one photograph could be explained, or the run directory
            holds results of other settings.
    """
    started = time.perf_counter()
    chosen = choose(config)
    inquiry, photographs = inquiry_of(config, chosen.place), chosen.photographs
    store = ResultStore(Path(config.run_dir))
    asked, model = asked_of(config, chosen, inquiry), model_in_words(chosen.place, inquiry)
    log.info("%s", model)
    noted = {} if chosen.place is None else noted_of_model(chosen.place)
    evidence = localisation_of(inquiry.backbone, Path(config.runs_root))
    explain_photographs(inquiry, photographs, store, config.trainer, asked, noted, evidence)
    if not is_first_process():
        return {}
    subtitle = " · ".join((model, *chosen.notes))
    metrics = collect(store, inquiry.backbone, subtitle, config.seed, evidence, measuring(config, chosen.place))
    metrics |= {"model": model}
    metrics |= {"photographs": len(photographs), "seconds": round(time.perf_counter() - started, 1)}
    write_json(store.run_dir / "metrics.json", metrics)
    with open_loggers(config.logger, store.run_dir, "explain", asdict(config)) as loggers:
        log_metrics(loggers, {"explained": metrics["explained"], "problems": len(metrics["problems"])})
        log_table(loggers, "explanations", EXPLANATION_COLUMNS, list(table_rows(store, inquiry.backbone)))
    log.info("report: %s", store.run_dir / "index.html")
    return metrics


@dataclass(frozen=True)
class Chosen:
    """What is looked at.

    Attributes:
        place: The captioner's exported model or checkpoint; None where a CLIP is explained by itself.
        photographs: The photographs.
        data: The settings of the data that they are from; None for photographs of ``image=``.
        notes: Sentences that a reader must see.
    """

    place: Path | None
    photographs: list[Photograph]
    data: DataConfig | None = None
    notes: tuple[str, ...] = ()


def choose(config: ExplainConfig) -> Chosen:
    """Find the captioner, and the photographs: of ``image=``, else records of the captioner's data.

    Raises:
        UserError: Nothing is there.
    """
    alone = config.backbone is not None
    if config.image is not None:
        photographs = photographs_at(config.image)
        return Chosen(None if alone else _captioner_of(config), photographs)
    place: Path | None = None
    notes: tuple[str, ...] = ()
    if alone:
        if config.data is None:
            raise UserError("a CLIP by itself has no data of its own: give image=..., or choose data=...")
        records, data = load_records(config.data, config.split), config.data
    else:
        on = judged(config)
        records, place, data, notes = on.records, on.place, on.data, on.notes
    return Chosen(place, [Photograph.of(record) for record in evenly(records, config.samples)], data, notes)


def _captioner_of(config: ExplainConfig) -> Path:
    try:
        return resolve_checkpoint(config.ckpt, Path(config.runs_root))
    except UserError as error:
        if config.text is None:
            raise
        raise UserError(f"{error}; or explain the text by a CLIP alone: add backbone=NAME") from error


def inquiry_of(config: ExplainConfig, place: Path | None) -> Inquiry:
    """What the settings ask, of the captioner of a place or of the backbone that they choose."""
    question = question_of(config.target, config.text, captioner=place is not None)  # refused before weights are read
    methods, how = explainers(config.xai), decoding(config.generation)
    captioner, retrieval = (None, None) if place is None else open_captioner(place)
    backbone = captioner.backbone if captioner is not None else build_backbone(**vars(config.backbone))
    return Inquiry(backbone, captioner, methods, question, how, retrieval)


def model_in_words(place: Path | None, inquiry: Inquiry) -> str:
    """Name the model by path and fingerprint, for page and log."""
    tower = f"tower {inquiry.backbone.name}, fingerprint {inquiry.backbone.fingerprint[:12]}"
    if place is None or inquiry.captioner is None:
        return tower
    return f"captioner {place}, fingerprint {inquiry.captioner.fingerprint()[:12]} · {tower}"


def asked_of(config: ExplainConfig, chosen: Chosen, inquiry: Inquiry) -> dict[str, Any]:
    """What decides a result: settings, weights, data set and sources; not which photographs there are just now."""
    settings: dict[str, Any] = {part: asdict(getattr(config, part)) for part in ("xai", "target", "generation")}
    settings |= {name: getattr(config, name) for name in ("image", "text")}
    if chosen.data is not None:
        of_data = decisive(chosen.data) | {"root": str(Path(chosen.data.root).absolute())}
        settings |= {"split": config.split, "samples": config.samples, "data": of_data}
    model = {"model": {"tower": inquiry.backbone.fingerprint[:16]}}
    if chosen.place is not None and inquiry.captioner is not None:
        model = asked_of_model(chosen.place, inquiry.captioner)
    return {"settings": settings, **model, "code": code_digest("data", "models", "metrics", "xai")}


def explain_photographs(
    inquiry: Inquiry,
    photographs: Sequence[Photograph],
    store: ResultStore,
    trainer: TrainerConfig | None = None,
    asked: dict[str, Any] | None = None,
    noted: dict[str, Any] | None = None,
    evidence: Evidence | None = None,
) -> None:
    """Explain photographs and write the result and the card of each as soon as it is done.

    Photographs that have a result already are left alone; one that has changed since is explained again, and results of
    photographs that are not among these no longer count.

    Args:
        inquiry: What is asked, of which model, by which methods.
        photographs: What is explained.
        store: Where results go.
        trainer: The machine; None for one process on the CPU.
        asked: What decides a result; another call may go on only with the same.
        noted: What is written down beside it.
        evidence: What is known of the methods' maps for this tower.

    Raises:
        UserError: Not one photograph could be explained, or the store holds results of other settings.
    """
    if is_first_process():
        claim(store.run_dir, "explain", asked or {}, noted)
    gone = store.expect(photographs)
    if is_first_process():
        store.write_list()
    (store.run_dir / "cards").mkdir(parents=True, exist_ok=True)
    if gone:
        log.info("left out of page and totals, as not among these: %s of earlier calls", counted(gone, "photograph"))
    todo = [number for number in range(1, len(photographs) + 1) if not store.done(number)]
    if len(todo) < len(photographs):
        log.info("done already: %d of %s", len(photographs) - len(todo), counted(len(photographs), "photograph"))
    if todo:
        machine = trainer or TrainerConfig(accelerator="cpu")
        with quiet_lightning():
            runner = Trainer(
                accelerator=machine.accelerator,
                devices=machine.devices,
                num_nodes=machine.num_nodes,
                strategy="ddp" if machine.world_size > 1 else "auto",
                precision=machine.precision,  # type: ignore[arg-type]
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=sys.stderr.isatty(),
                inference_mode=False,  # explainers take gradients
            )
            module = ExplainingModule(inquiry, photographs, store, evidence)
            runner.predict(module, DataLoader(todo, collate_fn=list), return_predictions=False)  # type: ignore[arg-type]
            runner.strategy.barrier()
    problems = store.problems()
    if len(problems) == len(photographs):
        raise UserError(f"none of {counted(len(photographs), 'photograph')} could be explained; {problems[0]}")


def measuring(config: ExplainConfig, place: Path | None) -> str:
    """The command that measures how well the methods of a page localise."""
    if place is None:
        return "train a captioner on this CLIP, then python -m clip_xai.runs.localise"
    return f"python -m clip_xai.runs.localise ckpt={shlex.quote(config.ckpt)}"


def collect(
    store: ResultStore,
    backbone: Backbone,
    subtitle: str,
    seed: int = 0,
    evidence: Evidence | None = None,
    measure_with: str = "python -m clip_xai.runs.localise",
) -> dict[str, Any]:
    """Write the index of the raw attributions and the page from the results; return the numbers of the run.

    Args:
        store: The results.
        backbone: The tower.
        subtitle: What the page says of the run.
        seed: Seed of the intervals.
        evidence: What is known of the methods' maps for this tower.
        measure_with: The command that measures it where nothing is known.
    """
    rows: list[dict[str, Any]] = []
    lesions = LesionMaps()
    count = 0
    for place, result in store.results():
        rows.extend(index_rows(place, store.run_dir, result))
        shown(result, backbone, lesions)
        count += 1
    with replacing(store.run_dir / "attributions.parquet") as unfinished:
        pd.DataFrame(rows).to_parquet(unfinished, index=False)
    localised = lesions.measure(seed)
    problems = store.problems()
    all_of_them = counted(count, "photograph")
    first = all_of_them if count <= ON_THE_PAGE else f"the first {ON_THE_PAGE} of {all_of_them}"
    write_explanations(
        (shown(result, backbone) for _, result in islice(store.results(), ON_THE_PAGE)),
        store.run_dir / "index.html",
        title="Explanations",
        subtitle=f"{first} · {subtitle}",
        problems=problems,
        table=lesions.table(localised),
        evidence=evidence,
        measure_with=measure_with,
    )
    return {"explained": count, "problems": problems, "localisation": localised}


def table_rows(store: ResultStore, backbone: Backbone) -> Iterator[list[Any]]:
    """Rows of the logger's table: the first photographs of the run."""
    for place, result in islice(store.results(), IN_THE_TABLE):
        yield from explanation_rows(shown(result, backbone), store.run_dir / "cards" / f"{place.stem}.png")


def shown(result: Result, backbone: Backbone, lesions: LesionMaps | None = None) -> ExplainedImage:
    """What a report shows of a result; with ``lesions``, its maps are added to the localisation of the run."""
    photograph = result.photograph
    picture = read_image(photograph.path)
    mask = _mask_of(photograph, picture)
    geometry = backbone.preprocess.geometry(picture.width, picture.height)
    answers = list(result.answers.values())
    measured = {}
    if mask is not None:
        group = photograph.group or photograph.name
        measured = (lesions or LesionMaps()).add(backbone, picture, geometry, mask, answers, group)
    return assemble(
        picture,
        geometry,
        answers,
        name=photograph.name,
        caption=result.caption,
        references=photograph.references,
        mask=mask,
        facts=photograph.facts,
        measurements=measured,
        warning=photograph.warning,
    )


def _mask_of(photograph: Photograph, picture: Image.Image) -> NDArray[np.bool_] | None:
    if photograph.mask is None:
        return None
    mask = read_mask(photograph.mask, photograph.mask_values)
    if mask.shape != (picture.height, picture.width):
        raise UserError(f"the mask {photograph.mask.name} is {mask.shape}, the photograph {picture.size[::-1]}")
    return mask
