"""The core of the job ``evaluate``: a small captioner that has learned to see colours, and one that has not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.metrics.results import ACROSS, BLIND, MODEL, NEAREST, SHUFFLED, SYSTEMS
from clip_xai.models.captioner import Captioner
from clip_xai.models.settings import Decoding
from clip_xai.report.terminal import show
from clip_xai.runs.lineage import Lineage
from clip_xai.runs.notes import few_steps
from clip_xai.tasks.captions.evaluation import choose_bert_scorer, evaluate_captioner, write_evaluation
from clip_xai.training.features import FeatureCache, FeatureTable
from tests.support.captions import log_prob
from tests.support.small_captioner import small_captioner

COLOURS = {"red": (200, 30, 30), "black": (5, 5, 5), "white": (250, 250, 250), "pink": (250, 150, 170)}
SHORT = Decoding(max_new_tokens=24)


def photographs(directory: Path, count: int, seed: int) -> list[Record]:
    """Flat photographs of four colours with noise, two to a group, from two sources."""
    directory.mkdir()
    records = []
    generator = np.random.default_rng(seed)
    for index in range(count):
        name = list(COLOURS)[index % 4]
        pixels = np.array(COLOURS[name]) + generator.integers(-25, 25, (24, 24, 3))
        image = directory / f"{index}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(image)
        text = f"a {name} spot on the skin"
        source = "ham10000" if index < count // 2 else "ddi"
        records.append(Record(image, source, image.name, f"{seed}-{index // 2}", None, None, text, (text,)))
    return records


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], list[Record], Path]:
    root = tmp_path_factory.mktemp("photographs")
    return photographs(root / "test", 24, seed=1), photographs(root / "train", 32, seed=2), root


def tables(captioner: Captioner, data: tuple[list[Record], list[Record], Path]) -> tuple[FeatureTable, FeatureTable]:
    records, train, root = data
    cache = FeatureCache(root / "cache", captioner.backbone)
    images = [record.image for record in records + train]
    return cache.table(images, captioner.reads), cache.table(images, "pooled")


@pytest.fixture(scope="module")
def seeing(data: tuple[list[Record], list[Record], Path]) -> Captioner:
    """A captioner trained for a second to name the colour."""
    captioner = small_captioner()
    _, train, _ = data
    read = tables(captioner, data)[0].stack([record.image for record in train])
    tokens = captioner.encode_captions([record.caption for record in train])
    learned = [*captioner.mapper.parameters(), *captioner.language_model.parameters()]
    optimiser = torch.optim.AdamW(learned, lr=4e-3)
    for _ in range(150):
        optimiser.zero_grad()
        captioner.loss(read, tokens).backward()
        optimiser.step()
    return captioner.eval()


def test_a_captioner_that_sees_beats_all_that_do_not(seeing, data, tmp_path, capsys) -> None:
    records, train, _ = data
    # The tower has random weights, so that its CLIPScore is no measure of anything.
    settings = {"decoding": SHORT, "batch_size": 7, "samples": 200, "clip_score": False}
    found = evaluate_captioner(seeing, records, train, *tables(seeing, data), **settings)
    result = found.result
    assert result.skipped["CLIPScore"] == "clip_score=null"
    assert result.score("colour").value == 1.0
    assert result.score("colour", BLIND).value == pytest.approx(0.25, abs=0.01)
    assert result.score("colour", SHUFFLED).high < 1
    assert not [verdict for verdict in result.verdicts if "not beat" in verdict.text and "never saw" in verdict.text]
    assert result.systems == (MODEL, BLIND, NEAREST, SHUFFLED, ACROSS)
    half = len(records) // 2
    mine = found.predictions[MODEL]
    assert sorted(found.predictions[SHUFFLED][:half]) == sorted(mine[:half])  # the first half is one source
    assert result.summary()["empty_captions"] == 0

    read = tables(seeing, data)[0].stack([record.image for record in records])
    assert found.predictions[MODEL] == [caption.text for caption in seeing.generate(read, SHORT)]
    assert set(found.predictions[NEAREST]) <= {record.caption for record in train}
    assert sorted(found.predictions[SHUFFLED]) == sorted(found.predictions[MODEL])

    metrics = write_evaluation(found, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    table = pd.read_parquet(tmp_path / "run" / "captions.parquet")
    assert list(table["caption"]) == found.predictions[MODEL]
    assert list(table["caption_blind"]) == found.predictions[BLIND]
    assert table["colour"].mean() == result.score("colour").value
    assert "never saw the image" in (tmp_path / "run" / "evaluation.md").read_text()
    assert (tmp_path / "run" / "index.html").read_text().lower().startswith("<!doctype html>")
    show(result, tmp_path / "run")
    assert "not measured: BERTScore" in capsys.readouterr().out


def test_an_untrained_captioner_is_told_that_it_does_not_beat_the_blind_caption(data) -> None:
    captioner = small_captioner()
    records, train, _ = data
    result = evaluate_captioner(captioner, records, train, *tables(captioner, data), decoding=SHORT, samples=50).result
    assert result.verdicts[0].warning
    assert result.verdicts[0].text.startswith("The model does not beat a caption that never saw the image on ")


def test_an_unreadable_photograph_is_set_aside_by_name(data, tmp_path) -> None:
    captioner = small_captioner()
    records, train, root = data
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    spoilt = [*records, replace(records[0], image=broken, name="broken.jpg")]
    reads, pooled = tables(captioner, (spoilt, train, root))
    found = evaluate_captioner(captioner, spoilt, train, reads, pooled, decoding=SHORT, samples=20)
    assert list(found.result.set_aside) == ["ham10000/broken.jpg"]
    assert found.result.score("bleu").n == len(found.records) == 24
    assert "broken.jpg" in found.result.to_markdown()
    with pytest.raises(UserError, match="none of 1 photograph can"):
        evaluate_captioner(captioner, spoilt[-1:], train, reads, pooled)


def test_a_baseline_that_cannot_be_is_named_with_the_reason(data) -> None:
    captioner = small_captioner()
    records, _, _ = data
    found = evaluate_captioner(captioner, records[:2], [], *tables(captioner, data), decoding=SHORT, samples=20)
    assert found.result.systems == (MODEL,)
    assert found.result.skipped[SYSTEMS[BLIND]] == "the manifest has no training record"
    assert "cannot be shuffled" in found.result.skipped[SYSTEMS[SHUFFLED]]
    assert found.result.verdicts[0].warning
    assert "was not compared with a caption that never saw the image" in found.result.verdicts[0].text


def test_a_source_of_one_patient_is_left_out_of_the_shuffle_by_name(data) -> None:
    captioner = small_captioner()
    records, train, _ = data
    few = [*records[:12], *records[12:14]]  # the second source is two photographs of one patient
    found = evaluate_captioner(captioner, few, train, *tables(captioner, data), decoding=SHORT, samples=20)
    assert found.predictions[SHUFFLED][-2:] == [None, None] and None not in found.predictions[SHUFFLED][:12]
    assert "2 of 2 photographs" in found.result.skipped[f"{SYSTEMS[SHUFFLED]} (ddi)"]
    assert found.result.score("bleu", SHUFFLED).n == 12 and found.result.score("bleu").n == 14


def write_by_frequency(captioner: Captioner, logits: dict[int, float]) -> None:
    """Make the language model draw every token by the same logits (0 but for those given), whatever stands before."""
    with torch.no_grad():
        transformer = captioner.language_model.transformer
        transformer.ln_f.weight.zero_()
        transformer.ln_f.bias.zero_()
        transformer.ln_f.bias[0] = 1
        transformer.wte.weight[:, 0] = 0
        for token, logit in logits.items():
            transformer.wte.weight[token, 0] = logit


def test_beams_are_empty_where_ending_at_once_is_likelier_than_any_caption(data) -> None:
    """A word is a little likelier than the end: greedy writes on and on, and the likeliest caption is the empty one."""
    captioner = small_captioner()
    letter, end = captioner.tokenizer.encode("a")[0], captioner.tokenizer.eos_id
    write_by_frequency(captioner, {letter: 9.1, end: 9.0})
    records, train, _ = data
    read = tables(captioner, data)[0].stack([record.image for record in records[:2]])
    beams = Decoding(beams=4, length_penalty=0.0, max_new_tokens=12)
    assert [caption.text for caption in captioner.generate(read, Decoding(max_new_tokens=12))] == ["a" * 12] * 2
    assert [caption.text for caption in captioner.generate(read, beams)] == ["", ""]
    likeliest = [log_prob(captioner, read, torch.tensor([[letter] * n + [end]] * 2))[0].item() for n in range(4)]
    assert likeliest == sorted(likeliest, reverse=True)
    found = evaluate_captioner(captioner, records, train, *tables(captioner, data), decoding=beams, samples=20)
    assert [verdict.text[:40] for verdict in found.result.verdicts[:2]] == [
        "24 of 24 captions of the model are empty",
        "With generation.length_penalty=0 beams w",
    ]


def test_few_training_steps_of_all_stages_are_said_first(data, tmp_path) -> None:
    captioner = small_captioner()
    assert Lineage().updates == 0
    for number, (before, steps) in enumerate(((0, 2), (2, 4), (2, 98))):
        start = Lineage(steps=("this stage",)).after(Lineage(steps=("an earlier one",), updates=before), None)
        captioner.provenance = start.with_updates(steps).packed()
        place = tmp_path / str(number)
        place.mkdir()
        save_file({"weight": torch.ones(1)}, place / "model.safetensors", metadata=captioner.provenance)
        said = few_steps(place)
        assert said == ([] if before + steps >= 100 else said)
        assert not said or said[0].startswith(f"The model was trained for {before + steps} steps only")
    old = json.loads(captioner.provenance["lineage"])
    del old["updates"]
    save_file({"weight": torch.ones(1)}, place / "model.safetensors", metadata={"lineage": json.dumps(old)})
    assert few_steps(place) == []  # nothing is known of it


def test_a_captioner_that_says_nothing_is_told_so_first(data, tmp_path, capsys) -> None:
    captioner = small_captioner()
    write_by_frequency(captioner, {captioner.tokenizer.eos_id: 50.0})
    records, train, _ = data
    found = evaluate_captioner(captioner, records, train, *tables(captioner, data), decoding=SHORT, samples=20)
    first = "24 of 24 captions of the model are empty"
    assert found.result.verdicts[0].text.startswith(first)
    metrics = write_evaluation(found, tmp_path / "run")
    assert metrics["summary"]["empty_captions"] == 24 and next(iter(metrics["summary"])) == "empty_captions"
    page = (tmp_path / "run" / "index.html").read_text()
    assert page.index(first) < page.index("<h2>")
    show(found.result, tmp_path / "run")
    assert capsys.readouterr().out.startswith(first)


def test_bert_score_without_its_model_is_left_out_with_the_reason(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert choose_bert_scorer(None)[0] is None
    scorer, reasons = choose_bert_scorer("roberta-large")
    assert scorer is None
    assert "not on this disk" in reasons["BERTScore"]
