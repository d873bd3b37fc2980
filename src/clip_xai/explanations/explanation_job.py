"""Explaining one photograph after another: a model, explainers and a question, and the result of each photograph."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clip_xai.data.images import number_of, read_image
from clip_xai.data.preprocess import Geometry
from clip_xai.data.vocabulary import Vocabulary
from clip_xai.errors import UserError
from clip_xai.explanations.comparison_texts import ComparisonTexts
from clip_xai.explanations.composed_maps import composed_answer
from clip_xai.explanations.curves import CurveSettings, measured_curves
from clip_xai.explanations.ledger_plan import LedgerPlan
from clip_xai.explanations.map_evidence import EvidenceSettings, measured_evidence
from clip_xai.explanations.other_patients import OtherPatients
from clip_xai.explanations.photographs import Photograph
from clip_xai.explanations.questions import TargetSpecification, ask, in_brief, with_prompt
from clip_xai.explanations.store import Result
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.clip import with_texts
from clip_xai.models.captioner import Caption, Captioner
from clip_xai.models.retrieval import Retrieval
from clip_xai.models.settings import REPORTED, Decoding
from clip_xai.report.assemble import Answer
from clip_xai.runs.lineage import Lineage
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.explainer import Explainer, defined_for, explain_apart
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import SimilarityTarget, Target
from clip_xai.xai.targets.caption_total import TOTAL, CaptionTotalTarget
from clip_xai.xai.targets.question import Question
from clip_xai.xai.targets.target_builder import needs_captioner

RENDERED_ALONE = (
    "This captioner has seen rendered pictures alone, and this is a photograph: what it says of it means nothing."
)


@dataclass(frozen=True)
class ExplanationJob:
    """All that is needed to explain one photograph after another.

    Attributes:
        backbone: The tower.
        captioner: The captioner; None where only the similarity to a given text is asked.
        methods: The explainers; those that read a trace share one pass for each target.
        question: What is asked.
        decoding: How captions are decoded; None for how they are evaluated. Where it is another, the evaluated caption
            stands among a photograph's facts.
        retrieval: Makes each photograph's prompt, which is shown among its facts; None for the captioner's own.
        curves: How insertion and deletion curves of the maps are drawn; None for none.
        evidence: How evidence on the maps is gathered; None for none.
        ledger: What the ledgers of captions are measured on; None for none.
    """

    backbone: VisionBackbone
    captioner: Captioner | None
    methods: Sequence[Explainer]
    question: Question
    decoding: Decoding | None = None
    retrieval: Retrieval | None = None
    curves: CurveSettings | None = None
    evidence: EvidenceSettings | None = None
    ledger: LedgerPlan | None = None

    def __post_init__(self) -> None:
        if self.captioner is None and needs_captioner(self.question):
            raise UserError(
                "without a captioner there is no caption to explain: choose target=similarity or contrast with "
                "text=..., class or embedding_dimension; of a classifier, logit"
            )
        if TOTAL in self.question.names and self.ledger is None:
            raise UserError(
                f"target={TOTAL} follows the words of the ledger: leave out ledger=0; where photographs of other "
                "patients are not at hand, give data=NAME (data.root=DIR)"
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
    def vocabulary(self) -> Vocabulary:
        """The words that captions are read with and default texts are made of: the captioner's, or the question's."""
        return self.question.vocabulary if self.captioner is None else self.captioner.vocabulary

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
                photograph = replace(photograph, facts=photograph.facts | {"note": ended})
        ledger = None
        if self.ledger is not None and self.captioner is not None and caption is not None:
            with torch.no_grad():
                read = self.captioner.read(pixels)
            ledger = self.ledger.ledger(self.captioner, read, caption, photograph, self._others)
        answers = {}
        bank = PerturbationBank(self.backbone, pixels)  # masked images are run once for all questions
        brief = in_brief(self.question)
        shorter = {} if brief is None else ask(brief, self.backbone, self.captioner, caption, pixels, True)
        unanswered: list[str] = []
        for name, asked in ask(self.question, self.backbone, self.captioner, caption, pixels, True).items():
            try:
                answer = self._answer(pixels, bank, asked, shorter.get(name, asked))
                if isinstance(asked.target, SimilarityTarget):
                    answer = replace(answer, contexts=self._scale(pixels, asked.target))
                if isinstance(asked.target, CaptionTotalTarget) and ledger is not None:
                    answer = composed_answer(answer, ledger)
                else:
                    answer = self._measured(answer, bank, asked.target, photograph)
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
        return Result(photograph, None if caption is None else caption.text, answers, ledger)

    def _measured(self, answer: Answer, bank: PerturbationBank, target: Target, photograph: Photograph) -> Answer:
        """Add evidence and curves, where they are asked, to what the methods say."""
        own = number_of(photograph.path) if photograph.path.is_file() else 0
        if self.evidence is not None:
            answer = replace(answer, evidence=measured_evidence(answer, bank, target, self.evidence, own))
        if self.curves is not None:
            answer = replace(answer, curves=measured_curves(answer, bank, target, self.curves, own))
        return answer

    @functools.cached_property
    def _others(self) -> OtherPatients:
        """Other patients' photographs, with captions drawn of them at the first ledger."""
        assert self.ledger is not None and self.captioner is not None
        return self.ledger.others(self.captioner)

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
        return ComparisonTexts(with_texts(self.backbone), self.vocabulary)

    def _answer(
        self, pixels: Tensor, bank: PerturbationBank, asked: TargetSpecification, shorter: TargetSpecification
    ) -> Answer:
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
