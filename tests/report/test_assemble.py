from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from clip_xai.data.preprocess import Preprocess
from clip_xai.report.assemble import LONGEST_SIDE, Answer, assemble
from clip_xai.report.explained import LOG_PROBABILITY, Explanation
from clip_xai.report.wandb_tables import EXPLANATION_COLUMNS, explanation_rows
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.explainer import explainers


def attribution(method: str, labels: list[str], tokens: list[list[str]] | None = None) -> Attribution:
    count = len(labels)
    values = torch.arange(count * 6.0).reshape(1, count, 6)
    return Attribution(
        values=values if tokens else values.reshape(1, count, 2, 3),
        method=method,
        settings={},
        scores=torch.full((1, count), -0.5),
        labels=labels,
        text_dependent=True,
        kind="text" if tokens else "image",
        tokens=tokens,
    )


def answers() -> list[Answer]:
    labels = ["red", "spot", "whole caption"]
    columns = ["image", "red", "spot"]
    caption = Answer(
        LOG_PROBABILITY,
        [(0, 3), (4, 8), None],
        [attribution("gradeclip", labels), attribution("token_gradxinput", labels, [columns] * 3)],
        [{"layer": -1}, {}],
        ("a note",),
    )
    text = ["a photo of a red spot"]
    similarity = Answer(
        "cosine",
        [None],
        [attribution("gradeclip", text), attribution("token_gradxinput", text, [text[0].split()])],
        [{"layer": -1}, {}],
    )
    return [caption, similarity]


def test_targets_follow_one_another_and_keep_their_rows():
    picture = Image.new("RGB", (40, 30))
    image = assemble(picture, Preprocess(24).geometry(40, 30), answers(), name="x", caption="red spot")
    assert [item.label for item in image.items] == ["red", "spot", "whole caption", "a photo of a red spot"]
    assert [item.score_name for item in image.items] == [LOG_PROBABILITY] * 3 + ["cosine"]
    heat, text = image.explanations
    assert heat.items == (0, 1, 2, 3) and heat.values.shape == (4, 2, 3)
    assert heat.row(3).tolist() == [[0, 1, 2], [3, 4, 5]] and heat.row(2)[0, 0] == 12
    assert heat.all_notes == ("a note",) and heat.settings_text == "layer = -1"
    assert text.kind == "text" and text.tokens[0] == ("[image]", "red", "spot")


def test_a_word_is_not_explained_by_itself_or_by_what_follows():
    picture = Image.new("RGB", (40, 30))
    text = assemble(picture, Preprocess(24).geometry(40, 30), answers(), name="x").explanations[1]
    assert np.isnan(text.values[0]).tolist()[:3] == [False, True, True]
    assert np.isnan(text.values[1]).tolist()[:3] == [False, False, True]
    assert not np.isnan(text.values[2]).any() and not np.isnan(text.values[3]).any()


def test_large_photographs_are_shown_smaller_with_all_that_is_registered_to_them():
    picture = Image.new("RGB", (3000, 2000))
    mask = np.zeros((2000, 3000), bool)
    mask[500:1000, 1500:3000] = True
    image = assemble(picture, Preprocess(24).geometry(3000, 2000), answers(), name="x", mask=mask)
    assert image.photograph.size == (LONGEST_SIDE, 800)
    assert (image.geometry.left, image.geometry.right) == pytest.approx((200.0, 1000.0))
    assert image.mask is not None and image.mask.shape == (800, LONGEST_SIDE)
    assert image.mask.mean() == pytest.approx(mask.mean(), abs=0.005)


def test_rows_and_items_must_agree():
    with pytest.raises(ValueError, match="rows of values"):
        Explanation("gradcam", {}, np.zeros((2, 3, 3)), (0,))


def test_the_table_of_explanations_has_a_row_for_every_map(tmp_path):
    picture = Image.new("RGB", (40, 30))
    picture.save(tmp_path / "card.png")
    image = assemble(picture, Preprocess(24).geometry(40, 30), answers(), name="x", caption="red spot")
    rows = explanation_rows(image, tmp_path / "card.png")
    assert len(rows) == 8 and all(len(row) == len(EXPLANATION_COLUMNS) for row in rows)
    assert [row[0] is not None for row in rows] == [True] + [False] * 7
    assert rows[3][3] == "cosine with “a photo of a red spot”" and rows[3][6:8] == ["0", "5"]


def test_every_method_has_its_name_and_says_what_it_is() -> None:
    titles = [method.title for method in explainers.values()]
    assert all(titles) and len(set(titles)) == len(titles)
    for method in explainers:
        said = Explanation(method, {}, np.zeros((1, 2, 2)), (0,)).reading
        assert said.endswith(".") and len(said) > 20
    assert Explanation("my own", {}, np.zeros((1, 2, 2)), (0,)).reading == ""
