"""The job ``explain``: what on the photograph, and in the text, is behind each word and each similarity.

A run directory holds ``index.html``, ``cards/*.png``, ``metrics.json``, the raw attributions (``results/``, see
:mod:`clip_xai.explanations.store`) and their index ``attributions.parquet``. Each photograph is written as soon as it
is done; the same command with the same ``run_dir=`` goes on where it stopped. With ``trainer.devices`` above 1 several
processes share one run.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from clip_xai.config.chosen import refuse_unused
from clip_xai.config.schemas import DataConfig, DataOfTheRun, ExplainConfig, TrainerConfig
from clip_xai.data.record import Record
from clip_xai.data.vocabulary import DEFAULT, load_vocabulary
from clip_xai.errors import UserError
from clip_xai.explanations.collection import collect, shown, table_rows
from clip_xai.explanations.curves import CurveSettings
from clip_xai.explanations.evidence_calibration import calibration_beside
from clip_xai.explanations.explainer_ranking import in_order
from clip_xai.explanations.explanation_job import ExplanationJob
from clip_xai.explanations.ledger_plan import ledger_plan
from clip_xai.explanations.map_evidence import EvidenceSettings, cost_in_words
from clip_xai.explanations.measured import localisation_of, measuring
from clip_xai.explanations.photographs import Photograph, photographs_at
from clip_xai.explanations.questions import question_of
from clip_xai.explanations.store import ResultStore
from clip_xai.files import write_json
from clip_xai.jobs.chosen_methods import methods_of, ranking_of
from clip_xai.models.backbones.families import backbones
from clip_xai.report.cards import write_card
from clip_xai.report.evidence import Evidence
from clip_xai.report.wandb_tables import EXPLANATION_COLUMNS
from clip_xai.runs.checkpoints import resolve_checkpoint
from clip_xai.runs.directories import claim, code_digest, plugin_digest
from clip_xai.runs.instantiate import decoding
from clip_xai.runs.judged import (
    asked_of_model,
    decisive,
    judged,
    noted_of_model,
    require_vocabulary,
    tower_weights,
    vocabulary_of,
)
from clip_xai.runs.loggers import log_metrics, log_table, open_loggers
from clip_xai.runs.records import digest_of, evenly, load_records
from clip_xai.tasks.task import Opened, refuse_settings_unused_at, task_at
from clip_xai.text import counted
from clip_xai.training.trainer import is_first_process, quiet_lightning
from clip_xai.xai.targets.base import targets
from clip_xai.xai.targets.question import Question

log = logging.getLogger(__name__)
UNUSED_BY_A_BACKBONE = ("generation", "ledger")  # it writes no captions


class ExplainingModule(LightningModule):
    """Lets Lightning give out the photographs: to one process or to several."""

    def __init__(
        self,
        job: ExplanationJob,
        photographs: Sequence[Photograph],
        store: ResultStore,
        evidence: Evidence | None = None,
    ) -> None:
        super().__init__()
        self.model = job.captioner or job.backbone
        self.job = job
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
                result = self.job.result(photograph)
                image = shown(result, self.job.backbone, vocabulary=self.job.vocabulary)
            except UserError as error:
                self.store.write_problem(number, photograph, str(error))
                log.warning("%s: %s", photograph.name, error)
                continue
            except OSError:
                raise  # a full disk ends the run; a photograph that cannot be read is not such an error
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
    question = question_asked(config, chosen.place)
    model, photographs = model_of(config, chosen.place), chosen.photographs
    ranking = ranking_of(config, chosen.place, model, question)
    methods, of_order = in_order(methods_of(config, ranking, question), ranking, question.names)
    how = decoding(config.generation)
    curves = None if config.curves is None else CurveSettings(config.curves, seed=config.seed)
    of_maps = None
    if config.evidence != "none":
        calibration = calibration_beside(chosen.place, model.fingerprints)
        of_maps = EvidenceSettings(config.evidence == "words", calibration, config.seed)
    plan, no_plan = ledger_plan(config, chosen.place, chosen.records, model.captioner, model.retrieval is not None)
    job = ExplanationJob(
        model.backbone, model.captioner, methods, question, how, model.retrieval, curves, of_maps, plan
    )
    store = ResultStore(Path(config.run_dir))
    asked = asked_of(config, chosen, model, job)
    log.info("%s", model.words)
    if of_maps is not None:
        log.info("%s", cost_in_words(of_maps, len(photographs)))
    if plan is not None:
        log.info("%s", plan.cost_in_words(len(photographs)))
    elif no_plan:
        log.warning("%s", no_plan)
    noted = {} if chosen.place is None else noted_of_model(chosen.place)
    evidence = localisation_of(job.backbone, Path(config.runs_root))
    explain_photographs(job, photographs, store, config.trainer, asked, noted, evidence)
    if not is_first_process():
        return {}
    subtitle = " · ".join(filter(None, [model.words, of_order]))
    notes = [*chosen.notes, *filter(None, [no_plan])]
    words = job.vocabulary.of_labels() if model.of_labels else job.vocabulary
    measured_with = measuring(chosen.place, config.ckpt)
    metrics = collect(store, job.backbone, subtitle, config.seed, evidence, measured_with, words, notes)
    metrics |= {"model": model.words}
    metrics |= {"photographs": len(photographs), "seconds": round(time.perf_counter() - started, 1)}
    write_json(store.run_dir / "metrics.json", metrics)
    with open_loggers(config.logger, store.run_dir, "explain", asdict(config)) as loggers:
        log_metrics(loggers, {"explained": metrics["explained"], "problems": len(metrics["problems"])})
        log_table(loggers, "explanations", EXPLANATION_COLUMNS, list(table_rows(store, job.backbone, job.vocabulary)))
    log.info("report: %s", store.run_dir / "index.html")
    return metrics


@dataclass(frozen=True)
class Chosen:
    """What is looked at.

    Attributes:
        place: The exported model or checkpoint; None where a CLIP is explained by itself.
        photographs: The photographs.
        data: The settings of the data that they are from; None for photographs of ``image=``.
        notes: Sentences that a reader must see.
        records: Those that the photographs were chosen from; none where files were named.
    """

    place: Path | None
    photographs: list[Photograph]
    data: DataConfig | None = None
    notes: tuple[str, ...] = ()
    records: tuple[Record, ...] = ()


def choose(config: ExplainConfig) -> Chosen:
    """Find the model, and the photographs: of ``image=``, else records of the model's data.

    Raises:
        UserError: Nothing is there.
    """
    alone = config.backbone is not None
    if config.backbone is not None:
        refuse_unused(f"backbone={config.backbone.name} by itself", UNUSED_BY_A_BACKBONE)
    if config.image is not None:
        photographs = photographs_at(config.image)
        return Chosen(None if alone else _model_at(config), photographs)
    place: Path | None = None
    notes: tuple[str, ...] = ()
    if alone:
        if config.data is None:
            raise UserError("a CLIP by itself has no data of its own: give image=..., or choose data=...")
        records, data = load_records(config.data, config.split), config.data
    else:
        on = judged(config, refuse_settings_unused_at)
        records, place, data, notes = on.records, on.place, on.data, on.notes
    photographs = [Photograph.of(record) for record in evenly(records, config.samples)]
    return Chosen(place, photographs, data, notes, tuple(records))


def _model_at(config: ExplainConfig) -> Path:
    try:
        place = resolve_checkpoint(config.ckpt, Path(config.runs_root), task=config.trained_for)
    except UserError as error:
        if config.text is None:
            raise
        raise UserError(f"{error}; or explain the text by a CLIP alone: add backbone=NAME") from error
    refuse_settings_unused_at(place)
    return place


def question_asked(config: ExplainConfig, place: Path | None) -> Question:
    """What the settings ask of the model of a place, or of the backbone that they choose; no weights are read for it.

    Raises:
        UserError: It is none that such a model could answer.
    """
    if place is not None and isinstance(config.data, DataOfTheRun) and "vocabulary" in config.data.changed:
        require_vocabulary(config.data, place)
    trained = place
    if place is None and config.backbone is not None:
        trained = tower_weights(config.backbone.pretrained)
        if trained is not None and config.data is not None:
            require_vocabulary(config.data, trained)
    words = (None if trained is None else vocabulary_of(trained)) or load_vocabulary(vocabulary_named(config))
    if place is not None:
        task = task_at(place)
        return question_of(config.target, config.text, task.captions, task.classifies, words)
    classifier = config.backbone is not None and config.backbone.library is not None
    return question_of(config.target, config.text, False, classifier, words)


def vocabulary_named(config: ExplainConfig) -> str:
    """Name or file of the field's words that the settings name."""
    return DEFAULT if config.data is None else config.data.vocabulary


def model_of(config: ExplainConfig, place: Path | None) -> Opened:
    """The trained model of a place, or the backbone that the settings choose, by itself.

    Raises:
        UserError: Nothing usable is there.
    """
    if place is not None:
        return task_at(place).opened(place, vocabulary_named(config))
    assert config.backbone is not None
    return Opened.alone(config.backbone)


def asked_of(config: ExplainConfig, chosen: Chosen, model: Opened, job: ExplanationJob) -> dict[str, Any]:
    """What decides a result: settings, weights, data set and sources; not which photographs there are just now."""
    settings: dict[str, Any] = {part: asdict(getattr(config, part)) for part in ("xai", "target", "generation")}
    settings |= {"methods": [method.name for method in job.methods]} if config.xai.best else {}
    settings |= {name: getattr(config, name) for name in ("image", "text")} | {"vocabulary": job.vocabulary.digest}
    if config.curves is not None:
        settings |= {"curves": config.curves}
    if job.evidence is not None:
        calibration = job.evidence.calibration
        settings |= {"evidence": config.evidence, "calibration": None if calibration is None else calibration.digest}
    if job.ledger is not None:
        settings |= {"ledger": config.ledger, "other patients": digest_of(job.ledger.records)}
    if config.curves is not None or job.evidence is not None or job.ledger is not None:
        settings |= {"seed": config.seed}
    if chosen.data is not None:
        of_data = decisive(chosen.data) | {"root": str(Path(chosen.data.root).absolute())}
        settings |= {"split": config.split, "samples": config.samples, "data": of_data}
    weights = {"model": model.fingerprints}
    if chosen.place is not None:
        weights = asked_of_model(chosen.place, model.fingerprints)
    return {
        "settings": settings,
        **weights,
        # What plugins bring decides results, too.
        "code": code_digest("data", "models", "metrics", "xai")
        + plugin_digest(job.methods)
        + targets.code()
        + backbones.code(),
    }


def explain_photographs(
    job: ExplanationJob,
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
        job: What is asked, of which model, by which methods.
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
            module = ExplainingModule(job, photographs, store, evidence)
            runner.predict(module, DataLoader(todo, collate_fn=list), return_predictions=False)  # type: ignore[arg-type]
            runner.strategy.barrier()
    problems = store.problems()
    if len(problems) == len(photographs):
        raise UserError(f"none of {counted(len(photographs), 'photograph')} could be explained; {problems[0]}")
