from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from clip_xai.data.preprocess import Preprocess
from clip_xai.report.assemble import Answer, assemble
from clip_xai.report.explained import CERTAIN_NOTE, ExplainedImage, Explanation
from clip_xai.report.html import write_explanations
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.explainer import groups
from clip_xai.xai.target import ContrastTarget
from tests.report.browser import needs_browser, run_browser
from tests.report.planted import CAPTION, HOSTILE, by_every_method, explained


class Page(HTMLParser):
    """The elements and the texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id")

    def handle_data(self, data):
        if self.inside == "data":
            self.data += data


def write(tmp_path, *images: ExplainedImage, **settings):
    path = write_explanations(list(images), tmp_path / "index.html", title="Explanations", **settings)
    return path, path.read_text(encoding="utf-8")


def test_the_page_has_everything_inside_itself(tmp_path, planted):
    _, text = write(tmp_path, planted)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert not re.search(r"(https?:)?//[a-z0-9]+\.[a-z]", text.replace("http://www.w3.org/2000/svg", ""))
    for tag, attributes in Page(text).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "data"):
            assert name not in attributes, f"{tag} loads {attributes}"
    (policy,) = [a["content"] or "" for tag, a in Page(text).tags if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:;") and "script-src 'sha256-" in policy


def test_hostile_names_and_texts_are_data_only(tmp_path):
    image = explained(HOSTILE)
    image = replace(image, references=("</script><img src=x onerror=alert(1)>", "<!-- {{ 7 * 7 }}"))
    image = replace(image, facts={"<b>": "</style><script>alert(2)</script>"})
    _, text = write(tmp_path, image, subtitle=HOSTILE, problems=[HOSTILE])
    page = Page(text)
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert not any(tag in ("img",) and attributes.get("src") for tag, attributes in page.tags)
    data = json.loads(page.data)
    assert data["images"][0]["name"] == HOSTILE
    assert data["images"][0]["references"][0].startswith("</script>")
    assert "<script>alert" not in text and "49" not in data["images"][0]["references"][1]


def test_the_page_carries_the_raw_values(tmp_path, planted):
    _, text = write(tmp_path, planted)
    (image,) = json.loads(Page(text).data)["images"]
    for explanation, stored in zip(planted.explanations, image["explanations"], strict=True):
        for row, (packed, peak) in enumerate(zip(stored["data"], stored["peaks"], strict=True)):
            steps = np.frombuffer(base64.b64decode(packed), "<i2").astype(float)
            values = np.where(steps == -32768, np.nan, steps / 32767 * peak)
            expected = explanation.values[row].ravel()
            assert np.allclose(values, expected, atol=peak / 32767, equal_nan=True)
    assert image["box"] == [0.125, 0.0, 0.875, 1.0]
    assert "".join(image["letters"]) == CAPTION
    for item in image["items"]:
        if item["span"]:
            assert CAPTION[slice(*item["span"])] == item["label"]


def test_what_is_class_agnostic_and_what_is_no_device_is_said(tmp_path, planted):
    _, text = write(tmp_path, planted)
    assert "not a medical device" in text
    (image,) = json.loads(Page(text).data)["images"]
    rollout = next(part for part in image["explanations"] if part["method"] == "attention_rollout")
    assert rollout["agnostic"] and "does not depend on the word" in rollout["notes"][0]


def test_letters_beyond_the_basic_plane_keep_their_place(tmp_path):
    image = explained()
    image = replace(image, caption="𝒜 " + CAPTION[2:])
    _, text = write(tmp_path, image)
    assert json.loads(Page(text).data)["images"][0]["letters"][:2] == ["𝒜", " "]


@needs_browser
@pytest.mark.parametrize(("word", "method"), [(3, "gradeclip"), (12, "occlusion")])
def test_a_deep_link_opens_a_word_and_a_method(tmp_path, word, method):
    path, _ = write(tmp_path, explained(HOSTILE), explained("second.jpg", 150, 300))
    dom = run_browser(f"{path.as_uri()}#image=2&word={word}&method={method}", tmp_path / "profile", "--dump-dom")
    label = explained().items[word - 1].label
    assert re.search(rf'class="word shown kept"[^>]*>{re.escape(label)}<', dom)
    title = {"gradeclip": "Grad-ECLIP", "occlusion": "Occlusion"}[method]
    assert re.search(rf'aria-checked="true"[^>]*>{title}<', dom)
    assert re.search(r'<h2 id="name">second.jpg<', dom)
    assert "<script>alert(1)" not in dom


@needs_browser
def test_many_methods_are_grouped_and_every_text_method_is_shown(tmp_path):
    image = by_every_method()
    path, _ = write(tmp_path, image)
    whole = next(index for index, item in enumerate(image.items, start=1) if item.span is None)
    dom = run_browser(f"{path.as_uri()}#image=1&word={whole}&method=rise", tmp_path / "profile", "--dump-dom")
    buttons = re.search(r'id="methods".*?(?=<div class="stage")', dom, re.S).group()
    shown = {
        group: re.findall(r"<button[^>]*>([^<]+)<", block)
        for group, block in re.findall(r'class="group"><span>([^<]+)</span><div>(.*?)</div>', buttons, re.S)
    }
    expected = {
        group: [method.title for method in methods if method.modality != "text"] for group, methods in groups().items()
    }
    assert shown == {group: titles for group, titles in expected.items() if titles}
    pairs = re.search(r'id="pair".*?</section>', dom, re.S).group()
    assert re.findall("<b>([^<]+)</b>", pairs) == ["brown", "melanoma", "upper"]
    assert "Too faint to draw: of<" in pairs
    texts = re.search(r'id="texts".*?</section>', dom, re.S).group()
    assert re.findall("<h4>([^<]+)</h4>", texts) == [method.title for method in groups()["words"]]


def test_each_word_of_a_text_has_its_own_map(tmp_path):
    _, text = write(tmp_path, by_every_method())
    (image,) = json.loads(Page(text).data)["images"]
    (fixlip,) = (one for one in image["explanations"] if one["interactions"])
    for found in fixlip["interactions"]:
        assert found["words"] == ["brown", "melanoma", "upper", "of"]
        for word, (cell, value) in enumerate([(1, 0.3), (3 * 8 + 4, -0.2), (6 * 8 + 7, 0.1), (7 * 8, 0.01)]):
            raw = np.frombuffer(base64.b64decode(found["data"][word]), "<i2") / 32767 * found["peaks"][word]
            assert raw[cell] == pytest.approx(value, abs=1e-4) and np.count_nonzero(raw) == 1
        assert found["own"][0] == found["own"][2]  # one scale, so that a faint word is faint


@needs_browser
def test_a_certain_score_says_that_it_hardly_moves(tmp_path):
    image = explained()
    items = (replace(image.items[0], score=-0.001), replace(image.items[1], score=-0.5), *image.items[2:])
    path, _ = write(tmp_path, replace(image, items=items))
    for word, said in ((1, True), (2, False)):
        dom = run_browser(f"{path.as_uri()}#image=1&word={word}", tmp_path / str(word), "--dump-dom")
        assert (re.search(r'id="certain">([^<]*)<', dom).group(1) == CERTAIN_NOTE) is said


def first_run(marks):
    """Start and end of the first stretch of marks."""
    start = int(np.argmax(marks))
    return start, start + int(np.argmin(marks[start:]))


@needs_browser
def test_the_browser_draws_the_heat_where_python_places_it(tmp_path):
    """The page colours the raw values itself; its picture must be that of the cards."""
    image = explained(width=400, height=300)
    image = replace(image, photograph=Image.new("RGB", (400, 300), (214, 168, 142)))
    image = replace(image, mask=None)
    path, _ = write(tmp_path, image)
    shot = tmp_path / "shot.png"
    run_browser(f"{path.as_uri()}#image=1&word=9&method=gradeclip", tmp_path / "profile", f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    pixels = pixels[:, 832:]  # the map stands to the right of the photograph
    skin = np.abs(pixels - [214, 168, 142]).sum(axis=2) < 12
    # It is the one large area of skin there; its seen square lies between the hatched margins.
    top, bottom = first_run(skin.sum(axis=1) > 250)
    left, right = first_run(skin[top:bottom].sum(axis=0) > 250)
    assert abs((right - left) - (bottom - top)) < 0.05 * (bottom - top), "the model saw a square"
    yellow = (np.abs(pixels - [240, 220, 60]).sum(axis=2) < 90)[top:bottom, left:right]
    y, x = (axis.mean() / yellow.shape[0] for axis in np.nonzero(yellow))
    cell = int(image.explanations[0].values[8].argmax())
    assert abs(x - (cell % 8 + 0.5) / 8) < 0.04 and abs(y - (cell // 8 + 0.5) / 8) < 0.04


def test_a_method_that_knows_evidence_against_is_signed_on_all_its_maps(tmp_path):
    image = explained()
    values = np.stack([np.linspace(0.2, 1, 9).reshape(3, 3), np.linspace(-2, 1, 9).reshape(3, 3)])
    both = Explanation("occlusion", {}, values, (0, 1))
    positive = Explanation("gradcam", {}, np.abs(values), (0, 1))
    _, text = write(tmp_path, replace(image, explanations=(both, positive)))
    signed, unsigned = json.loads(Page(text).data)["images"][0]["explanations"]
    for scale in (*signed["own"], *signed["shared"]):
        assert scale["signed"] and scale["low"] == -scale["high"]
    assert not any(scale["signed"] for scale in (*unsigned["own"], *unsigned["shared"]))


def test_a_margin_is_no_similarity_and_names_what_it_is_over(tmp_path):
    texts = ["a nevus", "melanoma", "a wart", "a burn", "psoriasis"]

    def page(names: list[str]) -> dict:
        found = Attribution(
            torch.ones(1, len(names), 3, 3), "gradcam", {}, torch.full((1, len(names)), 0.1), names, True
        )
        target = ContrastTarget(torch.eye(len(names)), names)
        answer = Answer(target.score_name, [None] * len(names), [found], [{}])
        image = assemble(
            Image.new("RGB", (30, 30)), Preprocess(24).geometry(30, 30), [answer], name="x", caption="melanoma"
        )
        _, text = write(tmp_path, image)
        return json.loads(Page(text).data)["images"][0]["items"][0]

    assert page(texts[:2])["short"] == "cosine margin of “a nevus” over “melanoma”"
    item = page(texts)
    assert item["short"] == "cosine margin of “a nevus” over the mean of “melanoma”, “a wart”, “a burn” and 1 more"
    assert item["score_text"] == "cosine margin 0.1" and all(f"“{other}”" in item["note"] for other in texts[1:])


def test_what_a_reader_must_know_is_one_short_line_and_loses_nothing(tmp_path, planted):
    notes = ("Other data: root <a> (there b): all of it", "Plain.")
    _, page = write(tmp_path, planted, subtitle="A run", notes=notes)
    head = page[page.index("<header") : page.index("</header>")]
    assert "<summary>Other data</summary>root &lt;a&gt; (there b): all of it</details>" in head
    assert '<p class="subtitle">Plain.</p>' in head and head.count("<details") == 1
