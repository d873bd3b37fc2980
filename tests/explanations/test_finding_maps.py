"""Records with boxes, explained: each class beside its own boxes, and photographs without boxes as before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clip_xai.data.boxes import Box
from clip_xai.data.localisation import localisation_on_grid
from clip_xai.data.preprocess import Preprocess
from clip_xai.data.record import Record
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.explanations.collection import collect
from clip_xai.explanations.curves import CurveSettings
from clip_xai.explanations.explanation_job import ExplanationJob
from clip_xai.explanations.finding_maps import ALL, BEST, USUAL
from clip_xai.explanations.photographs import Photograph
from clip_xai.explanations.store import ResultStore
from clip_xai.jobs.explain import explain_photographs
from clip_xai.metrics.localisation import energy_inside, lay_over, pointing_hits
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.xai.methods import GradCam
from clip_xai.xai.targets.question import Question
from tests.report.shown import SKIN, shown_in
from tests.support.networks import NETWORKS

NAMES = ["Mass", "Nodule", "Effusion", "Hernia", "Edema"]


def records(folder: Path) -> list[Record]:
    generator = np.random.default_rng(0)
    made = []
    for number in range(4):
        place = folder / f"{number}.png"
        Image.fromarray(generator.integers(0, 255, (120, 160), dtype=np.uint8)).save(place)
        boxes = [Box("Mass", 40 + 5 * number, 30, 40, 50)]
        if number % 2:
            boxes.append(Box("Effusion", 60, 80, 30.5, 20))
        made.append(
            Record(place, "nih", place.name, f"patient {number}", None, None, "", (), height=120, width=160,
                   boxes=tuple(boxes), labels={"Mass": True, "Effusion": bool(number % 2)})
        )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionClassifier, list[Record], ResultStore, dict]:
    folder = tmp_path_factory.mktemp("chest")
    library, network, tower = NETWORKS["torchvision_resnet"]()
    backbone = VisionClassifier(network, tower, Preprocess(image_size=tower.image_size), "small", library, NAMES)
    made = records(folder)
    question = Question(names=("logit",), kind="logit", classes=("Mass", "Effusion", "Hernia"))
    job = ExplanationJob(backbone, None, [GradCam()], question, curves=CurveSettings("default", 3, 1))
    store = ResultStore(folder / "run")
    explain_photographs(job, [Photograph.of(record) for record in made], store)
    return backbone, made, store, collect(store, backbone, "a run")


def test_each_class_is_held_against_its_own_boxes(run) -> None:
    backbone, made, store, metrics = run
    size = backbone.preprocess.image_size
    rows = {(row["method"], row["finding"]): row for row in metrics["findings"]}
    assert metrics["localisation"] == []  # no lesion here, and no class against a box of another
    for finding, numbers in (("Mass", range(4)), ("Effusion", (1, 3))):
        masks, maps = [], []
        results = [result for _, result in store.results()]
        for number in numbers:
            masks.append(localisation_on_grid(made[number], backbone.preprocess, size, finding) >= 0.5)
            [attribution] = results[number].answers["logit"].attributions
            maps.append(attribution.values[0, attribution.labels.index(finding)])
        laid = lay_over(torch.stack(maps), size)
        expected = {
            "pointing": pointing_hits(laid, torch.stack(masks)),
            "energy": energy_inside(laid, torch.stack(masks)),
        }
        row = rows["gradcam", finding]
        assert row["n"] == len(masks)
        for name, values in expected.items():
            known = values[~values.isnan()]
            if len(known):
                assert row[name]["value"] == pytest.approx(float(known.mean()), abs=1e-5)
        assert row["chance"] == pytest.approx(float(torch.stack(masks).float().mean()), abs=1e-6)
    assert rows["gradcam", ALL]["n"] == 6 and ("gradcam", "Hernia") not in rows
    # One point hits the mass of every patient; where several points hit as many of the others, one is drawn of them.
    assert rows[BEST, "Mass"]["pointing"]["value"] == 1
    masks = [localisation_on_grid(record, backbone.preprocess, size, "Mass") >= 0.5 for record in made]
    hits = []
    for number, mask in enumerate(masks):
        others = sum(other.int() for place, other in enumerate(masks) if place != number)
        hits.append(float(mask[others == others.max()].float().mean()))
    assert rows[USUAL, "Mass"]["pointing"]["value"] == pytest.approx(np.mean(hits), abs=1e-5)


def test_the_page_shows_boxes_and_curves(run) -> None:
    _, _, store, metrics = run
    page = (store.run_dir / "index.html").read_text(encoding="utf-8")
    assert "Does the heat lie in the boxes?" in page and "Upper bound: best constant point" in page
    assert "Does the score follow the heat?" in page and "data:image/svg+xml;base64," in page
    assert (store.run_dir / "curves" / "class.svg").is_file()
    [row, control] = metrics["curves"]
    assert (row["method"], row["what"], row["protocol"], row["score"]) == ("gradcam", "class", "default", "class logit")
    assert row["insertion"]["n"] == 12 and control["method"] == "control: random smooth maps"


def test_a_photograph_keeps_its_findings(run) -> None:
    _, made, store, _ = run
    photograph = Photograph.of(made[1])
    assert Photograph.from_plain(photograph.plain()) == photograph
    assert [result.photograph for _, result in store.results()][1] == photograph
    places = photograph.findings(120, 160)
    assert list(places) == ["Mass", "Effusion"] and places["Mass"].sum() == 40 * 50
    assert photograph.outline(120, 160).sum() == (places["Mass"] | places["Effusion"]).sum()
    # A label that is stated to be absent has no place, and a photograph without boxes is written as before.
    absent = replace(made[1], labels={"Mass": False, "Effusion": True})
    assert list(Photograph.of(absent).findings(120, 160)) == ["Effusion"]
    plain = Photograph.of(replace(made[1], boxes=())).plain()
    assert not {"boxes", "labels", "label_masks"} & set(plain)


def test_a_page_of_chest_films_speaks_of_patients(
    run: tuple[VisionClassifier, list[Record], ResultStore, dict],
) -> None:
    backbone, _, store, _ = run
    collect(store, backbone, "a run", vocabulary=load_vocabulary("chest"))
    page = shown_in((store.run_dir / "index.html").read_text())
    assert "95 % interval over patients" in page and "but those of the same patient" in page
    assert not SKIN.search(page)
