"""Measures of a CLIP and of a classifier by themselves, on photographs with and without masks."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from clip_xai.config.protocol_settings import ProtocolConfig
from clip_xai.data.images import read_image, read_mask
from clip_xai.errors import UserError
from clip_xai.explanations.measures.protocol import measures_of
from clip_xai.metrics.localisation import average_precision, lay_over
from clip_xai.models.backbones.backbone_builder import EMBEDDED, build_backbone
from clip_xai.studies.measures import measured_photographs, protocol_named, write_measures
from clip_xai.xai.methods import GradEclip
from clip_xai.xai.target import SimilarityTarget
from tests.support.small_classes import VIT
from tests.support.small_runs import draw, of_data, settings

TEXT = "a brown lesion"
PROTOCOL = ProtocolConfig(
    measures=["relevance_gain/token_drop", "relevance_gain/road", "auprc"], curve_shares=[0.5], again=1,
    again_measures=["randomised", "random_text"],
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory):
    return draw(tmp_path_factory.mktemp("data"), count=12)


def test_a_clip_by_itself_on_photographs_with_masks(root, tmp_path) -> None:
    config = settings("explain", tmp_path, tmp_path / "run", "backbone=tiny", *of_data(root), "samples=3", "split=all",
                      f"text={TEXT}", "xai=[gradeclip,attention_rollout]")  # fmt: skip
    rows, tables = measured_photographs(config, PROTOCOL)
    write_measures(rows, tables, config, PROTOCOL)
    table = pd.read_parquet(tmp_path / "run" / "measured.parquet")
    assert len(table) == len(rows) and table["picture"].nunique() == 3 and set(table["target"]) == {"similarity"}
    assert set(table["measure"]) == {*PROTOCOL.measures, *PROTOCOL.again_measures}
    again = table[table["measure"] == "random_text"]
    assert again["picture"].nunique() == 1 and set(again["weights"]) == {"trained"}
    blind = again[again["method"] == "attention_rollout"]["value"]
    assert blind.to_list() == pytest.approx([1.0])  # it hears no text
    own = table[(table["measure"] == "auprc") & (table["method"] == "gradeclip") & (table["weights"] == "trained")]
    backbone = build_backbone("tiny", "tiny", EMBEDDED)
    target = SimilarityTarget.from_texts(backbone, [TEXT])
    for _, row in own.iterrows():
        picture = read_image(row["picture"])
        heat = GradEclip().explain(backbone, backbone.preprocess.read(row["picture"])[None], target).values[0]
        geometry, size = backbone.preprocess.geometry(picture.width, picture.height), backbone.preprocess.image_size
        mask = read_mask(row["picture"].replace(".jpg", ".png"), ())
        region = geometry.locate(torch.from_numpy(mask), size) >= 0.5
        expected = average_precision(lay_over(heat, size), region[None])
        assert row["value"] == pytest.approx(float(expected), abs=1e-5)
    assert {"control: Sobel edges", "control: colour contrast"} <= set(table[table["weights"] == "none"]["method"])
    summary = pd.read_csv(tmp_path / "run" / "measures.csv")
    assert {"value", "rank", "above_random_surely", "above_control_value"} <= set(summary.columns)
    said = (tmp_path / "run" / "measures.md").read_text()
    assert "Does the score follow the heat?" in said and "too few for a ranking" in said


def test_a_classifier_by_itself_on_a_folder_of_pictures(root, tmp_path, caplog) -> None:
    config = settings("explain", tmp_path, tmp_path / "run", *VIT, f"image={root / 'mine'}", "xai=[saliency]")
    rows, tables = measured_photographs(config, PROTOCOL)
    found = pd.DataFrame(rows)
    assert set(found["target"]) == {"logit"} and set(found["measure"]) == {
        "relevance_gain/token_drop", "relevance_gain/road", "randomised", "random_text",
    }  # fmt: skip
    assert "auprc of the logit is not measured: no region is known" in caplog.text
    assert tables[0].title == "Does the score follow the heat?" and len(tables) == 2


def test_protocols_are_named_and_mistakes_refused(tmp_path) -> None:
    full = protocol_named(["protocol=full", "protocol.again=2"], tmp_path)
    assert (full.name, full.again) == ("full", 2) and "f_fidelity" in full.again_measures
    with pytest.raises(UserError, match="'srg' is not a measure of maps"):
        measures_of(protocol_named(["protocol.measures=[srg]"], tmp_path))
    config = settings("explain", tmp_path, tmp_path / "run", "backbone=tiny", f"image={tmp_path}", "text=a")
    with pytest.raises(UserError):
        measured_photographs(config, PROTOCOL)
