from __future__ import annotations

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_xai.data.preprocess import Preprocess
from clip_xai.report import comparison, fonts, tiles
from clip_xai.report.canvas import ACCENT, PAPER, Canvas, Run, contrast, ellipsis, line_height, mix, readable_on, wrap
from clip_xai.report.cards import (
    MARGIN,
    METHODS_PER_CARD,
    PHOTOGRAPH,
    WIDTH,
    chosen_items,
    draw_card,
    shared_notes,
    write_card,
)
from clip_xai.report.evidence import Evidence, Localised, Measured
from clip_xai.report.explained import Explanation, short_label, slug
from clip_xai.report.figures import DIVERGING, OPACITY, SEQUENTIAL, fitted, lookup_table
from clip_xai.report.fonts import font
from clip_xai.report.tiles import draw_tile, label_lines
from clip_xai.xai.explainer import explainers
from tests.report.planted import HOSTILE, by_every_method, explained


def test_the_photograph_stands_on_the_card_whole():
    image = explained(width=640, height=240)
    image = replace(image, mask=None)
    # A frame of one colour round the photograph: it survives only if nothing is cropped.
    framed = Image.new("RGB", (640, 240), (0, 0, 255))
    framed.paste(image.photograph.crop((20, 20, 620, 220)), (20, 20))
    image = replace(image, photograph=framed)
    shown = fitted(framed, *PHOTOGRAPH)
    card = np.asarray(draw_card(image)).astype(int)
    expected = np.asarray(shown).astype(int)
    left = card[:, MARGIN : MARGIN + shown.width]
    tops = [y for y in range(200) if (left[y : y + shown.height] == expected).all()]
    assert len(tops) == 1
    blue = np.abs(expected - [0, 0, 255]).sum(axis=2) < 60
    assert all(edge.mean() > 0.95 for edge in (blue[1], blue[-2], blue[:, 1], blue[:, -2]))


def test_every_card_is_as_wide_and_as_long_as_its_content(tmp_path):
    path = write_card(explained(HOSTILE), tmp_path / "card.png")
    with Image.open(path) as card:
        assert card.width == WIDTH and card.height > 1500
        assert not card.info.get("exif")
        pixels = np.asarray(card.convert("RGB"))
    assert (pixels[:, : MARGIN // 2] == 255).all() and (pixels[:, -MARGIN // 2 :] == 255).all()
    assert (pixels[-MARGIN // 2 :] == 255).all()


def test_a_card_has_the_content_words_and_everything_that_is_no_single_word(planted):
    labels = [short_label(planted, index) for index in chosen_items(planted)]
    assert "melanoma" in labels and "with" not in labels and "." not in labels
    assert labels[-2:] == ["whole caption", "cosine with “a photo of melanoma”"]


def test_many_methods_stand_side_by_side(monkeypatch):
    """Every map is drawn once for each item that is not a single word, where its method put the heat."""
    drawn: list[tuple[str, str, tuple[int, int]]] = []
    titles = {method.title for method in explainers.values()}
    real = tiles.draw_tile

    def watched(canvas, x, y, across, picture, image, explanation, index, label, score, lines=1):
        bottom = real(canvas, x, y, across, picture, image, explanation, index, label, score, lines)
        drawn.append((explanation.method, short_label(image, index) if label in titles else label, (x, y)))
        return bottom

    for module in (comparison, tiles):
        monkeypatch.setattr(module, "draw_tile", watched)
    image = by_every_method()
    card = draw_card(image)
    maps = [name for name, method in explainers.items() if method.modality != "text"]
    wholes = ("whole caption", "cosine with “a photo of melanoma”")
    for label in wholes:
        assert [method for method, about, _ in drawn if about == label] == maps
    words = [(method, about) for method, about, _ in drawn if about not in wholes]
    assert words == [("fixlip", about) for about in ("brown", "melanoma", "upper", "of")] * 2
    assert len({place for *_, place in drawn}) == len(drawn) == 2 * (len(maps) + 4)
    single = draw_card(replace(image, explanations=image.explanations[:1])).height
    assert card.height < 8 * single  # one card below the other would be 33 times as long
    pixels = np.asarray(card)
    assert (pixels[:, -MARGIN // 2 :] == 255).all()


def test_the_words_of_a_text_have_maps_on_any_card():
    image = by_every_method()
    (fixlip,) = (one for one in image.explanations if one.interactions)
    alone, without = (replace(image, explanations=(one,)) for one in (fixlip, replace(fixlip, interactions=())))
    assert draw_card(alone).height > draw_card(without).height + 200


def test_long_words_and_long_captions_do_not_run_off_the_card():
    image = explained()
    image = replace(image, references=("x" * 400 + " and " + "word " * 200,))
    pixels = np.asarray(draw_card(image))
    assert (pixels[:, -MARGIN // 2 :] == 255).all()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=120), st.integers(40, 300))
def test_wrapped_lines_fit_and_lose_no_letter(text, width):
    lines = wrap(text, width, 16)
    assert all(font(16).getlength(line) <= width or len(line) == 1 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_an_ellipsis_marks_what_was_cut():
    assert ellipsis("short", 400, 16) == "short"
    cut = ellipsis("a very long label that has no room", 90, 16)
    assert cut.endswith("…") and font(16).getlength(cut) <= 90


def test_pieces_on_grounds_never_overlap():
    canvas = Canvas(300)
    end = canvas.runs(10, 10, [Run(f"word{index}", (200, 230, 230)) for index in range(30)], 280, size=16)
    pixels = np.asarray(canvas.finished(end))
    # Along every line of text, ground is broken by paper between words.
    row = (pixels[20] == [200, 230, 230]).all(axis=1)
    assert np.flatnonzero(np.diff(row.astype(int)) == 1).size + row[0] >= 2


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_no_file_name_can_leave_its_folder(name):
    safe = slug(name)
    assert safe and "/" not in safe and "\\" not in safe and not safe.startswith(".") and len(safe) <= 80


def square_font(path, letters: str) -> str:
    """A font in which every letter is a full black square."""
    names = [".notdef", *(f"u{ord(letter):04X}" for letter in letters)]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"u{ord(letter):04X}" for letter in letters})
    pen = TTGlyphPen(None)
    for number, corner in enumerate(((0, 0), (0, 800), (800, 800), (800, 0))):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    square = pen.glyph()
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture()
def machine_fonts(monkeypatch):
    """Choose which fonts this machine has beside DejaVu Sans."""

    def have(*paths: str) -> None:
        fonts.font_of.cache_clear()
        monkeypatch.setattr(fonts, "fonts_here", lambda: paths)

    yield have
    fonts.font_of.cache_clear()


def test_chinese_is_drawn_with_a_font_that_has_it(tmp_path, machine_fonts):
    machine_fonts(square_font(tmp_path / "squares.ttf", "左臂"))
    canvas = Canvas(300, 60)
    canvas.text(10, 10, "a左b臂", 280, size=20)
    pixels = np.asarray(canvas.picture.convert("L"))
    black = [x for x in range(300) if (pixels[:, x] < 60).sum() >= 14]
    # Two squares of 16 pixels (800 of 1,000 units at size 20), each behind its Latin letter.
    first = 10 + font(20).getlength("a")
    second = first + 20 + font(20).getlength("b")
    expected = {x for start in (first, second) for x in range(round(start) + 1, round(start) + 15)}
    assert expected <= set(black) and len(black) <= len(expected) + 6
    assert canvas.missing == ""
    assert fonts.text_width("a左b臂", 20) == pytest.approx(font(20).getlength("a") + font(20).getlength("b") + 40)


def test_cyrillic_and_arabic_need_no_other_font(machine_fonts):
    machine_fonts()
    canvas = Canvas(400, 60)
    for number, text in enumerate(("красная бляшка", "لويحة حمراء", "größer, Behçet")):
        canvas.text(10, 10 + 20 * number, text, 380)
    assert canvas.missing == ""
    box = font(17).getmask("\U000fffff").getbbox()
    assert box is not None and font(17).getmask("б").getbbox() != box


def test_a_card_names_the_letters_that_no_font_has(machine_fonts, planted):
    machine_fonts()
    written: list[str] = []
    real = fonts.write
    image = replace(planted, references=("左臂有斑块",))
    plain = draw_card(planted).height
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clip_xai.report.canvas.write", lambda *a, **k: (written.append(a[2]), real(*a, **k)))
        card = draw_card(image)
    text = " ".join(written)
    assert "No font of this machine has 5 of the letters here (Cjk: U+5757" in text and "U+5DE6" in text
    assert card.height > plain


def test_without_a_layout_engine_joined_scripts_are_named(monkeypatch):
    monkeypatch.setattr(fonts.features, "check", lambda name: False)
    assert fonts.missing("لوحة red").startswith("Arabic letters are unjoined") and fonts.missing("red") == ""


@pytest.mark.parametrize("count", [1, METHODS_PER_CARD + 1])
def test_evidence_against_is_drawn_in_the_other_colour(count):
    """A map of both signs on a grey photograph: the ends of matplotlib's diverging colours, zero clear between them."""
    image = replace(explained(), photograph=Image.new("RGB", (400, 400), (128, 128, 128)), mask=None)
    image = replace(image, geometry=Preprocess(24).geometry(400, 400))
    values = np.zeros((1, 5, 5))
    values[0, 0, 0], values[0, 4, 4] = 1.0, -1.0
    signed = Explanation("occlusion", {}, values, (len(image.items) - 1,))
    others = [replace(signed, method=f"method_{number}") for number in range(count - 1)]
    pixels = np.asarray(draw_card(replace(image, explanations=(signed, *others)))).reshape(-1, 3).astype(int)
    low, high = (np.array(matplotlib.colormaps[DIVERGING](end)[:3]) * 255 for end in (0.0, 1.0))
    for end in (low, high):
        drawn = OPACITY * end + (1 - OPACITY) * 128
        assert (np.abs(pixels - drawn).max(axis=1) <= 3).sum() > 50


def test_few_texts_have_larger_maps_and_their_whole_titles():
    image = explained()
    text = "a dermoscopic photograph of " + "a large irregular dark brown lesion, " * 8
    items = (*image.items[:-1], replace(image.items[-1], label=text))
    short, long = replace(image, items=image.items), replace(image, items=items)
    assert draw_card(long).height > draw_card(short).height + 8 * line_height(15)  # nothing of it is cut
    label = short_label(long, len(items) - 1)
    assert 8 < label_lines([label], 220) == len(wrap(label, 220, 15, bold=True))


def test_a_card_says_what_was_left_out_what_is_known_and_what_holds_for_all(planted):
    plain = draw_card(planted).height
    assert draw_card(replace(planted, left_out=("Grad-CAM: every score is 0.",))).height > plain
    note = "Only the beginning of this text was read."
    noted = [replace(one, notes=(note,)) for one in planted.explanations]
    assert shared_notes(replace(planted, explanations=tuple(noted))) == (note,)
    assert shared_notes(replace(planted, explanations=(noted[0], *planted.explanations[1:]))) == ()
    evidence = Evidence("16 photographs", {"occlusion": Localised(Measured(0.3, 0.2, 0.4), Measured(0.1, 0.0, 0.2))})
    assert draw_card(planted, evidence).height > plain


@pytest.mark.parametrize("name", [SEQUENTIAL, DIVERGING])
def test_letters_stand_out_from_every_colour(name):
    grounds = [*lookup_table(name), *(mix(PAPER, ACCENT, share / 100) for share in range(101))]
    assert min(contrast(readable_on(ground), ground) for ground in grounds) >= 4.5
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((118, 118, 118), (255, 255, 255)) == pytest.approx(4.54, abs=0.01)  # the standard's own example


def test_the_score_stands_below_the_value_of_a_constant_map():
    image = explained()
    flat = replace(image.explanations[0], values=np.zeros_like(image.explanations[0].values))
    canvas = Canvas(400)
    drawn = [
        draw_tile(canvas, 0, 0, 200, fitted(image.photograph, 200, 200), image, one, 0, "", "log p 0")
        for one in (image.explanations[0], flat)
    ]
    assert drawn[0] == drawn[1]
