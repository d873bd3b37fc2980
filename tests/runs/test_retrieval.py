"""Retrieved captions through the jobs: what is generated, judged and explained has each photograph's own prompt."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from clip_xai.config.schemas import (
    DataConfig,
    GenerationConfig,
    LanguageModelConfig,
    LoggerConfig,
    MapperConfig,
    TrainConfig,
)
from clip_xai.config.training_settings import CallbacksConfig, StageConfig, TrainerConfig
from clip_xai.data.images import read_image
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.explanations.explanation_job import ExplanationJob
from clip_xai.explanations.photographs import Photograph
from clip_xai.metrics.baselines import shuffled_rows
from clip_xai.metrics.caption_metrics import bleu
from clip_xai.metrics.results import MODEL, SHUFFLED
from clip_xai.models.captioner import Captioner
from clip_xai.models.retrieval import CaptionIndex, Retrieval
from clip_xai.models.settings import Decoding
from clip_xai.runs.loggers import open_loggers
from clip_xai.tasks.captions.evaluation import evaluate_captioner
from clip_xai.tasks.captions.opened import captioner_features, captioner_settings
from clip_xai.tasks.captions.prompts import caption_index
from clip_xai.tasks.captions.training import caption_data, log_samples, require_positions, retrieved
from clip_xai.xai.methods import TokenGradXInput, TokenKernelShap, TokenOcclusion
from clip_xai.xai.target import CaptionTarget
from clip_xai.xai.targets.question import Question
from tests.config.test_config import composed
from tests.support.captions import log_prob
from tests.support.fitting import fit
from tests.support.small_captioner import small_captioner
from tests.training.test_prompts import pooled_table, twins

TEMPLATE = "a {captions} a"
SHORT = GenerationConfig(max_new_tokens=8, whole_sentences=False)
DECODING = Decoding(max_new_tokens=8, whole_sentences=False)


def config_of(directory: Path, count: int = 1, **parts: object) -> TrainConfig:
    settings = {
        "language_model": LanguageModelConfig("small", retrieved_captions=count, retrieval_template=TEMPLATE),
        "stage": StageConfig(number=1, name="test", epochs=1, batch_size=4),
        "data": DataConfig(
            name="twins", root=str(directory), output_dir=str(directory), cache_dir=str(directory / "cache")
        ),
        "trainer": TrainerConfig(accelerator="cpu"),
        "callbacks": CallbacksConfig(progress_bar=False, score_captions=1, scored_photographs=3, sample_captions=2),
        "generation": SHORT,
        "run_dir": str(directory / "run"),
        **parts,
    }
    config = TrainConfig(**settings)  # type: ignore[arg-type]
    config.backbone.name, config.backbone.architecture = "small", "tiny"
    config.mapper = MapperConfig(name="resampler")
    return config


@torch.no_grad()
def by_hand(captioner: Captioner, index: CaptionIndex, record: Record, count: int = 1) -> str:
    """The caption of one photograph, read from its file, behind the prompt that the index has for it."""
    pixels = captioner.backbone.preprocess(read_image(record.image))[None]
    prompts = index.prompts(captioner.backbone.encode_image(pixels), count, [record.group], TEMPLATE)
    return captioner.generate(captioner.read(pixels), DECODING, prompts)[0].text


def test_a_run_trains_scores_and_shows_captions_behind_their_prompts(tmp_path: Path) -> None:
    records, captioner, config = twins(tmp_path / "pictures"), small_captioner(), config_of(tmp_path)
    settings = captioner_settings(config.backbone, config.mapper, config.language_model)
    splits = {"train": records[:8], "val": records[8:]}
    table = captioner_features(captioner, records, config.data, config.trainer)
    retrieval, prompts = retrieved(captioner, settings, splits, config)
    assert retrieval is not None and retrieval.index.captions == [record.caption for record in splits["train"]]
    data = caption_data(captioner, table, splits, config, prompts)
    require_positions(captioner, data, config)
    scored = [data.val_set.records[index * 4 // 3] for index in range(3)]
    with open_loggers(LoggerConfig(wandb=False, csv=True), tmp_path / "run", "train", {}) as loggers:
        best, _ = fit(captioner, settings, data, config, loggers, None)
        log_samples(captioner.eval(), data, config, loggers)
    assert best.is_file()
    with (tmp_path / "run" / "csv" / "sample_captions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["caption"] for row in rows] == [by_hand(captioner, retrieval.index, one) for one in records[8:10]]
    with (tmp_path / "run" / "csv" / "metrics.csv").open() as file:
        measured = [float(row["val/bleu"]) for row in csv.DictReader(file) if row["val/bleu"]]
    texts = [by_hand(captioner, retrieval.index, one) for one in scored]
    assert measured == pytest.approx([float(bleu(texts, [one.references for one in scored]))])


def test_what_does_not_fit_is_refused_before_the_first_step(tmp_path: Path) -> None:
    records, captioner = twins(tmp_path / "pictures"), small_captioner()
    splits = {"train": records, "val": records}

    def refusal(config: TrainConfig) -> str:
        settings = captioner_settings(config.backbone, config.mapper, config.language_model)
        table = captioner_features(captioner, records, config.data, config.trainer)
        data = caption_data(captioner, table, splits, config, retrieved(captioner, settings, splits, config)[1])
        with pytest.raises(UserError) as caught:
            require_positions(captioner, data, config)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    said = refusal(config_of(tmp_path, 4))
    assert "64 positions: lower language_model.retrieved_captions" in said and "data.max_tokens" in said
    # Training fits, but not the captions that are written when it ends.
    long = GenerationConfig(max_new_tokens=60)
    assert "set generation.max_new_tokens=" in refusal(config_of(tmp_path, 1, generation=long))
    silent = config_of(tmp_path, 1, generation=long, callbacks=CallbacksConfig(sample_captions=0))
    table = captioner_features(captioner, records, silent.data, silent.trainer)
    require_positions(captioner, caption_data(captioner, table, splits, silent), silent)


def test_settings_of_retrieval_are_carried_and_checked() -> None:
    plain = composed("train").language_model
    assert (plain.retrieved_captions, plain.retrieval_template.count("{captions}")) == (0, 1)
    told = composed(
        "train", "language_model.retrieved_captions=2", "language_model.retrieval_template=Like: {captions} So:"
    )
    settings = captioner_settings(told.backbone, told.mapper, told.language_model)
    assert (settings.retrieved_captions, settings.retrieval_template) == (2, "Like: {captions} So:")
    for wrong, reason in (
        ({"retrieved_captions": -1}, "retrieved_captions=-1: give at least 0"),
        ({"retrieval_template": "So:"}, r"has no \{captions\}"),
        ({"retrieved_captions": 1, "prompt": "a photo of"}, "no place beside retrieved captions"),
    ):
        with pytest.raises(UserError, match=reason):
            LanguageModelConfig("tiny", **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [5, 64])
def test_evaluation_writes_what_each_photograph_gets_by_itself(tmp_path: Path, batch_size: int) -> None:
    records, captioner = twins(tmp_path / "pictures", 16), small_captioner()
    judged, train = records[8:], records[:10]  # two photographs stand in both
    reads = pooled_table(captioner, records, tmp_path, captioner.reads)
    pooled = pooled_table(captioner, records, tmp_path)
    index = caption_index(train, pooled)
    told = {"decoding": DECODING, "batch_size": batch_size, "samples": 20, "clip_score": False, "seed": 3}
    found = evaluate_captioner(
        captioner, judged, train, reads, pooled, retrieval=Retrieval(index, 1, TEMPLATE), **told
    )  # fmt: skip
    alone = [by_hand(captioner, index, record) for record in judged]
    assert found.predictions[MODEL] == alone
    # A shuffled image brings the prompt that goes with it.
    rows = shuffled_rows([record.group for record in judged], 3)
    assert found.predictions[SHUFFLED] == [by_hand(captioner, index, judged[row]) for row in rows]
    without = evaluate_captioner(captioner, judged, train, reads, pooled, **told)  # type: ignore[arg-type]
    assert without.predictions[MODEL] != alone
    assert "retrieved captions in each prompt" in found.result.to_markdown()
    assert "retrieved captions in each prompt" not in without.result.to_markdown()


@pytest.fixture()
def job(tmp_path: Path) -> tuple[ExplanationJob, list[Record]]:
    records, captioner = twins(tmp_path / "pictures"), small_captioner()
    index = caption_index(records, pooled_table(captioner, records, tmp_path))
    methods = [TokenGradXInput(), TokenOcclusion(), TokenKernelShap(samples=64)]
    question = Question(("caption_word", "caption"))
    return ExplanationJob(
        captioner.backbone, captioner, methods, question, DECODING, Retrieval(index, 1, TEMPLATE)
    ), records  # fmt: skip


@torch.no_grad()
def test_what_is_explained_is_the_caption_behind_the_photographs_own_prompt(
    job: tuple[ExplanationJob, list[Record]],
) -> None:
    asked, records = job
    captioner, retrieval = asked.captioner, asked.retrieval
    assert captioner is not None and retrieval is not None
    for record in (records[0], records[7]):
        result = asked.result(Photograph.of(record))
        assert (captioner.prompt, captioner.prompt_ids.numel()) == ("", 0)
        pixels = captioner.backbone.preprocess(read_image(record.image))[None]
        [prompt] = retrieval.prompts(captioner.backbone.encode_image(pixels), [record.group])
        assert result.photograph.facts["prompt"] == prompt and f"no {record.group.split()[1]}x" not in prompt
        read = captioner.read(pixels)
        [caption] = captioner.generate(read, DECODING, [prompt])
        assert result.caption == caption.text
        whole = log_prob(captioner, read, torch.tensor([caption.token_ids]), [prompt]).item()
        for attribution in result.answers["caption"].attributions:
            assert attribution.scores[0, -1].item() == pytest.approx(whole, rel=1e-4, abs=1e-4)
            assert attribution.tokens is not None and attribution.tokens[0][:2] == ["image", "prompt"]


@torch.no_grad()
def test_the_prompt_is_a_player_with_a_part_of_the_score(job: tuple[ExplanationJob, list[Record]]) -> None:
    asked, records = job
    captioner = asked.captioner
    assert captioner is not None
    result = asked.result(Photograph.of(records[2]))
    _, occlusion, shap = result.answers["caption"].attributions
    # By hand: the prompt's inputs give way to the mean of the vocabulary.
    pixels = captioner.backbone.preprocess(read_image(records[2].image))[None]
    with captioner.prompted(result.photograph.facts["prompt"]):
        [caption] = captioner.generate(captioner.read(pixels), DECODING)
        target = CaptionTarget.whole(captioner, caption.token_ids)
        prefix, words = captioner.prefix(captioner.read(pixels)), target.embeddings(1)
        blank = captioner.language_model.transformer.wte.weight.mean(dim=0)
        without = prefix.clone()
        without[:, captioner.mapper.prefix_length :] = blank
        whole, left = target.score_of(prefix, words).item(), target.score_of(without, words).item()
        nothing = target.score_of(blank.expand_as(prefix), blank.expand_as(words)).item()
    assert occlusion.values[0, -1, 1].item() == pytest.approx(whole - left, rel=1e-3, abs=1e-4)
    assert shap.values[0, -1].nansum().item() == pytest.approx(whole - nothing, rel=1e-3, abs=1e-3)


def test_a_photograph_of_no_known_group_may_meet_every_caption(job: tuple[ExplanationJob, list[Record]]) -> None:
    asked, records = job
    found = asked.result(Photograph(records[4].image, "4.png", group="4.png"))
    assert "no 2x" in found.photograph.facts["prompt"]


def test_the_captioner_has_its_own_prompt_again_when_a_photograph_cannot_be_explained(
    job: tuple[ExplanationJob, list[Record]],
) -> None:
    asked, records = job
    question = Question(("caption_span",), span="what nobody says")
    failing = ExplanationJob(asked.backbone, asked.captioner, asked.methods, question, DECODING, asked.retrieval)
    with pytest.raises(UserError, match="what nobody says"):
        failing.result(Photograph.of(records[0]))
    assert asked.captioner is not None and asked.captioner.prompt == "" and not asked.captioner.prompt_ids.numel()
