from __future__ import annotations

import html
from pathlib import Path

import numpy as np
from PIL import Image

from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.metrics.classification import evaluate_classes
from clip_xai.metrics.shortcuts import shortcut
from clip_xai.report.classification_page import write_classification_page
from tests.report.planted import HOSTILE
from tests.report.shown import SKIN, shown_in

NAMES = ("Mass", "Nodule", HOSTILE)


def planted(multiple: bool, group_words: tuple[str, str] = ("patient", "patients")):
    generator = np.random.default_rng(0)
    truth = np.eye(3)[generator.integers(3, size=90)]
    if multiple:
        truth[generator.random(truth.shape) < 0.1] = np.nan
    scores = generator.normal(size=(90, 3)) + 2 * truth
    groups = [f"p{row}" for row in range(90)]
    result = evaluate_classes(
        np.nan_to_num(scores),
        truth,
        NAMES,
        groups,
        multiple=multiple,
        train=truth,
        samples=100,
        group_words=group_words,
    )
    audit = shortcut(np.nan_to_num(scores), truth, NAMES, np.arange(90) % 2, groups, "tube", samples=100)
    return result.with_shortcuts(audit)


def example(path: Path, truth: list[float | None], probabilities: list[float]) -> dict[str, object]:
    return {
        "image": path,
        "name": HOSTILE,
        "source": "nih",
        "truth": dict(zip(NAMES, truth, strict=True)),
        "probabilities": dict(zip(NAMES, probabilities, strict=True)),
    }


def grey(path: Path) -> Path:
    exif = Image.Exif()
    exif[0x013B] = "somebody"
    Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) % 200).convert("L").save(path, exif=exif)
    return path


def test_page_of_one_class(tmp_path: Path) -> None:
    result, picture = planted(multiple=False), grey(tmp_path / "a.jpg")
    examples = [example(picture, [1, 0, 0], [0.7, 0.2, 0.1]), example(picture, [0, 1, 0], [0.7, 0.2, 0.1])]
    figures = {"Contact sheet": Image.new("L", (8, 8))}
    text = write_classification_page(result, examples, tmp_path / "index.html", figures).read_text()
    assert text.index("beats the most frequent answer") < text.index("<h2>")
    for words in ("macro AUROC", "Confusion matrix", "ROC curves", "Shortcut: tube", "Contact sheet", "truly Nodule"):
        assert words in text
    assert result.cell(result.metrics[0], "model", "overall") in text
    assert HOSTILE not in text and html.escape(HOSTILE, quote=False).split("&")[0] in text
    assert "somebody" not in text and 'src="http' not in text


def test_groups_are_called_as_the_field_calls_them(tmp_path: Path) -> None:
    """Whose photographs belong together are patients on chest films, and whatever a field's file says elsewhere."""
    place = tmp_path / "index.html"
    for words in (load_vocabulary("chest").groups, ("eye", "eyes")):
        text = write_classification_page(planted(multiple=True, group_words=words), [], place).read_text()
        assert f"90 {words[1]}" in text and f"bootstrap over {words[1]}" in text
        assert not SKIN.search(shown_in(text))


def test_page_of_several_labels(tmp_path: Path) -> None:
    result, picture = planted(multiple=True), grey(tmp_path / "a.jpg")
    examples = [
        example(picture, [1, None, 0], [0.2, 0.9, 0.6]),
        example(picture, [0, 0, float("nan")], [0.1, 0.1, 0.1]),
        example(picture, [0, 0, 0], [0.1, 0.1, 0.1]),
    ]
    text = write_classification_page(result, examples, tmp_path / "index.html").read_text()
    assert "Confusion matrix" not in text
    for words in ("Mass missed", "Nodule: truth not known", "is absent", "no finding", "not stated or uncertain"):
        assert words in text
    assert text.count('class="some-wrong"') == 1
