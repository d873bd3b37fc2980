"""Backbones out of folders, files and the hub: the loading code is real, the models are small."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    BertConfig,
    BertTokenizerFast,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
)

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones import open_clip_models, transformers_models
from clip_xai.models.backbones.backbone_builder import BackboneSource, build_backbone
from clip_xai.models.backbones.catalogue import CATALOGUE
from clip_xai.models.backbones.processor import read_processor
from clip_xai.models.backbones.stand_ins import stand_in_unigram, stand_in_wordpiece
from clip_xai.models.backbones.text_tokenizers import PublishedTokenizer, canonical
from clip_xai.models.backbones.weight_files import load_exactly, read_tokenizer
from clip_xai.models.reading import read_state
from tests.support.hub import LoopbackHub
from tests.support.tower_families import CLIP_CONFIG, embedding_of
from tests.support.towers import TEXTS, assert_close, pixels_for, shaken

BERT = {
    "vocab_size": 400, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 40,
}  # fmt: skip
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
PUBMED = {
    "hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
    "hf_model_cfg": BERT, "context_length": 32,
}  # fmt: skip
VIT = {"image_size": 24, "patch_size": 6, "width": 32, "layers": 3, "head_width": 8}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
CONFIGS: dict[str, dict[str, Any]] = {
    "dermlip": {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT},
    "openai_b32": {"embed_dim": 16, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "openai_rn50": {"embed_dim": 16, "quick_gelu": True, "vision_cfg": RESNET, "text_cfg": TEXT},
    "dermlip_panderm": {
        "embed_dim": 16,
        "vision_cfg": {**VIT, "pretrain_path": "somewhere/panderm.pth"},
        "text_cfg": {**PUBMED, "hf_pooler_type": "mean_pooler"},
    },
    "biomedclip": {
        "embed_dim": 16,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160},
        "text_cfg": {**PUBMED, "hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler"},
    },
}
SMALL_SIGLIP = {
    "vision_config": CLIP_CONFIG["vision_config"],
    "text_config": {**CLIP_CONFIG["text_config"], "vocab_size": 400, "projection_size": 32, "eos_token_id": 1},  # type: ignore[dict-item]
}
SMALL_CLIP = {
    **CLIP_CONFIG,
    "text_config": {
        **CLIP_CONFIG["text_config"], "vocab_size": 49408, "max_position_embeddings": 77,  # type: ignore[dict-item]
    },
}  # fmt: skip
SMALL_MEDCLIP = {
    "projection_dim": 16,
    "vision_config": {"image_size": 64, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4},
    "text_config": {**BERT, "context_length": 32},
}
TRANSFORMERS = {"pubmedclip": SMALL_CLIP, "monet": SMALL_CLIP, "medsiglip": SMALL_SIGLIP, "medclip": SMALL_MEDCLIP}


def publish(name: str, folder: Path, pickled: bool = False) -> nn.Module:
    """Write a small model of an entry's classes as its publisher writes the large one; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in CONFIGS:
        torch.manual_seed(0)
        model = shaken(open_clip_models.build_model(CONFIGS[name], True, name))
        config: dict[str, Any] = {"model_cfg": CONFIGS[name], "preprocess_cfg": {"mean": [0.4] * 3, "std": [0.2] * 3}}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        stem = "open_clip_model" if not pickled else "open_clip_pytorch_model"
    else:
        torch.manual_seed(0)
        model = shaken(transformers_models.KINDS[CATALOGUE[name].architecture].build(TRANSFORMERS[name], True))
        (folder / "config.json").write_text(json.dumps(TRANSFORMERS[name]))
        stem = "model" if not pickled else "pytorch_model"
    state = {key: value.clone().contiguous() for key, value in model.state_dict().items()}
    if pickled:
        torch.save(state, folder / f"{stem}.bin")
    else:
        save_file(state, folder / f"{stem}.safetensors")
    if name in ("biomedclip", "dermlip_panderm", "medclip"):
        stand_in_wordpiece(400).save(str(folder / "tokenizer.json"))
    if name == "medsiglip":
        stand_in_unigram(400).save(str(folder / "tokenizer.json"))
    return model


def own_embeddings(model: Any, name: str, pixels: torch.Tensor) -> torch.Tensor:
    if name in CONFIGS:
        return model.visual(pixels)
    if name == "medclip":
        vision = model.vision_model
        return vision.projection_head(vision.model(pixels).pooler_output)
    return embedding_of(model.get_image_features(pixels))


@pytest.fixture()
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub, hub.reachable(tmp_path / "cache"):
        yield hub


@pytest.mark.parametrize("name", [*CONFIGS, *TRANSFORMERS])
@torch.no_grad()
def test_published_models_load_from_the_hub_and_then_without_it(name: str, hub: LoopbackHub, tmp_path: Path) -> None:
    model = publish(name, tmp_path / "published", pickled=name in ("biomedclip", "medclip", "pubmedclip"))
    hub.add("publisher/model", tmp_path / "published")
    entry = CATALOGUE[name]
    backbone = build_backbone(name, entry.architecture, "hf-hub:publisher/model")
    pixels = pixels_for(backbone)
    assert_close(backbone.encode_image(pixels), own_embeddings(model, name, pixels))
    assert_close(backbone.logit_scale, model.logit_scale.exp().reshape(()))  # type: ignore[operator, union-attr]
    assert backbone.encode_text(TEXTS).shape == (3, backbone.embed_dim)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    hub.requests.clear()
    again = build_backbone(name, entry.architecture, "hf-hub:publisher/model")
    assert again.fingerprint == backbone.fingerprint
    assert hub.requests == []
    without_text = build_backbone(name, entry.architecture, "hf-hub:publisher/model", text=False)
    assert_close(without_text.encode_image(pixels), backbone.encode_image(pixels))
    assert "text_trace" not in without_text.supports
    assert sum(p.numel() for p in without_text.parameters()) < sum(p.numel() for p in backbone.parameters())
    with pytest.raises(UserError, match="text=true"):
        without_text.encode_text(TEXTS)


def test_a_revision_is_held_on_to(hub: LoopbackHub, tmp_path: Path) -> None:
    publish("dermlip", tmp_path / "first")
    first = hub.add("publisher/model", tmp_path / "first")
    old = build_backbone("dermlip", "ViT-B-16", "hf-hub:publisher/model")
    changed = {key: value + 1 for key, value in read_state(tmp_path / "first/open_clip_model.safetensors").items()}
    save_file(changed, tmp_path / "first/open_clip_model.safetensors")
    second = hub.add("publisher/model", tmp_path / "first")
    assert build_backbone("dermlip", "ViT-B-16", "publisher/model", second).fingerprint != old.fingerprint
    assert build_backbone("dermlip", "ViT-B-16", "publisher/model", first).fingerprint == old.fingerprint
    with pytest.raises(UserError, match="at nowhere are missing"):
        build_backbone("dermlip", "ViT-B-16", "hf-hub:publisher/model", "nowhere")


def test_a_tag_of_open_clip_leads_to_its_repository(hub: LoopbackHub, tmp_path: Path) -> None:
    publish("openai_b32", tmp_path / "published")
    (tmp_path / "published" / "open_clip_config.json").unlink()  # then the architecture's own sizes count
    hub.add("timm/vit_base_patch32_clip_224.openai", tmp_path / "published")
    with pytest.raises(UserError, match="does not fit"):
        build_backbone("openai_b32", "ViT-B-32-quickgelu", "openai")
    assert any("timm/vit_base_patch32_clip_224.openai" in request for request in hub.requests)


@pytest.mark.parametrize("name", ["dermlip", "pubmedclip", "medclip", "openai_b32"])
def test_without_network_one_line_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    entry = CATALOGUE[name]
    with pytest.raises(UserError) as error:
        build_backbone(name, entry.architecture, entry.pretrained)
    line = str(error.value)
    assert "\n" not in line
    for part in ("backbone.pretrained=FOLDER", "backbone.pretrained=null"):
        assert part in line
    named = {"openai": "timm/vit_base_patch32_clip_224.openai"}.get(str(entry.pretrained), str(entry.pretrained))
    assert named.removeprefix("hf-hub:") in line


def test_a_pickle_that_holds_more_than_tensors_is_never_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harm"),)

    publish("dermlip", tmp_path / "model")
    (tmp_path / "model/open_clip_model.safetensors").unlink()
    torch.save({"weight": torch.ones(1), "harm": Harm()}, tmp_path / "model/open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match="not a file of plain weights"):
        build_backbone("dermlip", "ViT-B-16", str(tmp_path / "model"))
    assert not (tmp_path / "harm").exists()


def test_every_key_is_accounted_for(tmp_path: Path) -> None:
    module = nn.Linear(2, 3)
    good = {"weight": torch.ones(3, 2), "bias": torch.ones(3), "text.embeddings.position_ids": torch.ones(1)}
    load_exactly(module, good, tmp_path)
    assert torch.equal(module.weight, torch.ones(3, 2))
    with pytest.raises(UserError, match=r"missing \['bias'\], unexpected \['extra'\]"):
        load_exactly(module, {"weight": torch.ones(3, 2), "extra": torch.ones(1)}, tmp_path)
    with pytest.raises(UserError, match=r"another shape \['weight'\]"):
        load_exactly(module, {**good, "weight": torch.ones(2, 2)}, tmp_path)
    load_exactly(module, {**good, "text.extra": torch.ones(1)}, tmp_path, unused=("text.",))


def test_weights_in_several_files_are_joined(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(2)}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "../model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(read_state(tmp_path / "model.safetensors.index.json")) == {"a", "b"}


def test_an_older_swin_and_bert_file_of_medclip_fits(tmp_path: Path) -> None:
    model = publish("medclip", tmp_path)
    old = {}
    for key, value in model.state_dict().items():
        if key.startswith("vision_model.model.encoder"):
            for before, after in reversed(transformers_models.SWIN_NAMES):
                key = key.replace(after, before) if after in key else key
        old[key] = value.clone()
    old["text_model.model.embeddings.position_ids"] = torch.arange(40)[None]
    assert set(old) - set(model.state_dict())
    (tmp_path / "model.safetensors").unlink()
    torch.save(old, tmp_path / "pytorch_model.bin")
    backbone = build_backbone("medclip", "medclip-swin-tiny", str(tmp_path))
    pixels = pixels_for(backbone)
    assert_close(backbone.encode_image(pixels), own_embeddings(model, "medclip", pixels))


def test_published_preprocessing_comes_first_and_the_catalogue_fills_the_rest(tmp_path: Path) -> None:
    publish("dermlip", tmp_path)
    backbone = build_backbone("dermlip", "ViT-B-16", str(tmp_path))
    assert backbone.preprocess == Preprocess(image_size=24, mean=(0.4,) * 3, std=(0.2,) * 3)
    publish("monet", tmp_path / "monet")
    monet = build_backbone("monet", CATALOGUE["monet"].architecture, str(tmp_path / "monet"))
    assert monet.preprocess.mean == (0.485, 0.456, 0.406)


def test_quick_gelu_changes_the_numbers_and_the_fingerprint(tmp_path: Path) -> None:
    publish("dermlip", tmp_path)
    plain = build_backbone("dermlip", "ViT-B-16", str(tmp_path))
    quick = build_backbone("dermlip", "ViT-B-16", str(tmp_path), quick_gelu=True)
    assert isinstance(quick.model.visual.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    assert quick.fingerprint != plain.fingerprint
    assert not torch.allclose(quick.encode_image(pixels_for(quick)), plain.encode_image(pixels_for(plain)))
    with pytest.raises(UserError, match="quick_gelu"):
        build_backbone("pubmedclip", "hf-clip-vit-base-patch32", None, quick_gelu=True)


@pytest.mark.parametrize("name", ["dermlip", "dermlip_panderm", "pubmedclip", "medsiglip"])
def test_a_larger_input_is_one_setting(name: str, tmp_path: Path) -> None:
    publish(name, tmp_path)
    entry = CATALOGUE[name]
    small, large = (build_backbone(name, entry.architecture, str(tmp_path), image_size=size) for size in (None, 48))
    assert large.grid == (8, 8) and large.preprocess.image_size == 48
    assert large.fingerprint == small.fingerprint
    assert large.preprocess.fingerprint != small.preprocess.fingerprint
    assert large.preprocess(Image.new("RGB", (60, 50))).shape == (3, 48, 48)
    with pytest.raises(UserError, match="multiple of 6"):
        build_backbone(name, entry.architecture, str(tmp_path), image_size=50)


def test_medclip_sees_grey() -> None:
    preprocess = CATALOGUE["medclip"].preprocess
    picture = Image.new("RGB", (40, 20), (200, 30, 90))
    pixels = preprocess(picture)
    grey = picture.convert("L").getpixel((0, 0))
    assert torch.allclose(pixels[0], pixels[1]) and torch.allclose(pixels[1], pixels[2])
    assert torch.allclose(pixels[0, 112, 112], torch.tensor((grey / 255 - 0.5862785803) / 0.2795009))  # type: ignore[operator]
    assert torch.allclose(pixels[0, 10, 112], torch.tensor(-0.5862785803 / 0.2795009))  # padded with black


def test_a_wordpiece_file_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    tokenizer = stand_in_wordpiece(400)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n")
    expected = BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))(
        TEXTS, padding="max_length", truncation=True, max_length=12, return_tensors="pt"
    )["input_ids"]
    found = read_tokenizer([None, tmp_path])
    assert found is not None
    ours = PublishedTokenizer(found[0], 12, 0, 1, found[1])
    assert torch.equal(ours(TEXTS), expected)
    text = "A photo of  Melanoma."
    spelled = "".join(text[start:end] for start, end in ours.spans(text))
    assert "Aphotoof Melanoma.".replace(" ", "").startswith(spelled)
    assert len(ours.spans("melanoma " * 40)) == 10


def test_stand_ins_have_the_published_sizes_and_say_what_they_are() -> None:
    assert stand_in_wordpiece(30_522).get_vocab_size() == 30_522
    assert stand_in_unigram(32_000).get_vocab_size() == 32_000
    ids = PublishedTokenizer(stand_in_unigram(32_000), 8, 1, 0, "x")(["a photo", "a " * 20])
    assert ids[0].tolist()[-5:] == [1] * 5 and ids[1, -1] == 1 and ids[1, 0] != 1


def test_a_source_goes_through_plain_containers() -> None:
    source = BackboneSource("mine", "ViT-B-16", None, image_size=384)
    assert BackboneSource(**json.loads(json.dumps(vars(source)))) == source
    assert BackboneSource(name="old", architecture="tiny", pretrained=None).text


def test_a_bert_that_nobody_knows_is_refused() -> None:
    config = {"embed_dim": 8, "vision_cfg": VIT, "text_cfg": {"hf_model_name": "someone/roberta"}}
    with pytest.raises(UserError, match="text=false"):
        open_clip_models.build_model(config, True, "mine")
    assert open_clip_models.build_model(config, False, "mine").text is None  # type: ignore[union-attr]


def test_vocabularies_follow_the_encoder() -> None:
    assert BertConfig(**transformers_models.MEDCLIP["text_config"]).vocab_size == 28_996
    with torch.device("meta"):
        backbone = build_backbone("biomedclip", "BiomedCLIP", None)
    assert backbone.text_tower is not None and backbone.text_tower.vocabulary_size == 30_522


def test_siglip_texts_are_read_without_case_and_punctuation_at_their_own_places() -> None:
    tokenizer = stand_in_unigram(32_000)
    tokenizer.normalizer = canonical(None)
    published = PublishedTokenizer(tokenizer, 12, 1, 0, "x")
    assert torch.equal(published(["A photo,  of (Melanoma)!"]), published(["a photo of melanoma"]))
    text = "A photo,  of (Melanoma)!"
    assert [text[start:end] for start, end in published.spans(text)][-1].strip(" (") == "Melanoma"


@torch.no_grad()
def test_coca_encodes_and_says_that_its_text_tower_stays_closed(tmp_path: Path) -> None:
    vision = {**VIT, "attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 5, "output_tokens": True}
    text = {**TEXT, "context_length": 12, "embed_cls": True, "output_tokens": True}
    config = {
        "embed_dim": 16, "vision_cfg": vision, "text_cfg": text,
        "multimodal_cfg": {
            "context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1, "attn_pooler_heads": 2,
        },
        "custom_text": True,
    }  # fmt: skip
    model = shaken(open_clip.CoCa(**{key: value for key, value in config.items() if key != "custom_text"}))
    save_file({k: v.clone().contiguous() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    backbone = build_backbone("mine", "coca_ViT-B-32", str(tmp_path))
    pixels = pixels_for(backbone)
    assert_close(backbone.encode_image(pixels), model.encode_image(pixels, normalize=False))
    ids = backbone.tokenize(TEXTS)
    assert_close(backbone.encode_tokens(ids), model.encode_text(ids, normalize=False))
    assert "text_trace" not in backbone.supports and "attention" in backbone.supports
    with pytest.raises(UserError, match="CoCa"):
        backbone.trace_text(ids)


PROCESSORS = {
    "clip": CLIPImageProcessor(size={"shortest_edge": 24}, crop_size=24),
    "squash": CLIPImageProcessor(
        size={"height": 24, "width": 24}, do_center_crop=False, resample=2, image_mean=[0.5] * 3, image_std=[0.25] * 3
    ),
    "crop": CLIPImageProcessor(size={"shortest_edge": 30}, crop_size=24, resample=2),
    "plain": CLIPImageProcessor(size={"shortest_edge": 24}, crop_size=24, do_normalize=False),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_processor_beside_the_weights_prepares_the_input(name: str, tmp_path: Path) -> None:
    publish("pubmedclip", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**SMALL_CLIP, "model_type": "clip"}))
    PROCESSORS[name].save_pretrained(tmp_path)
    backbone = build_backbone("hf", "hf", str(tmp_path))
    for size in ((90, 140), (141, 90), (24, 24), (31, 57)):  # odd differences: where the crop is rounded
        photograph = Image.effect_noise(size, 90).convert("RGB")
        expected = torch.as_tensor(PROCESSORS[name](photograph, return_tensors="pt")["pixel_values"][0])
        levels = (backbone.preprocess(photograph) - expected).abs().max() * min(backbone.preprocess.std) * 255
        assert levels <= 2.01  # the library resizes in another order of rounding


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": {"height": 24, "width": 30}}, "size"),
        ({"resample": 0}, "resample 0"),
        ({"do_resize": False}, "no do_resize"),
        ({"rescale_factor": 1.0}, "rescale_factor"),
        ({"size": {"shortest_edge": 24}, "do_center_crop": False}, "not square"),
    ],
)
def test_a_processor_that_cannot_be_followed_is_refused(changes: dict, said: str) -> None:
    values = {**json.loads(PROCESSORS["clip"].to_json_string()), **changes}
    with pytest.raises(UserError, match=said):
        read_processor(values, "mine")


def test_a_whole_processor_is_read_as_newer_releases_write_it(tmp_path: Path) -> None:
    publish("pubmedclip", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**SMALL_CLIP, "model_type": "clip"}))
    settings = json.loads(PROCESSORS["squash"].to_json_string())
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    backbone = build_backbone("hf", "hf", str(tmp_path))
    assert (backbone.preprocess.resize, backbone.preprocess.mean) == ("squash", (0.5,) * 3)


@pytest.mark.parametrize("kind", ["SiglipImageProcessor", "ViTImageProcessor", "CLIPImageProcessorFast"])
def test_what_a_processor_does_not_say_is_its_kinds_own(kind: str) -> None:
    found = read_processor({"image_processor_type": kind}, "mine")
    library = getattr(transformers, kind.removesuffix("Fast"))()
    assert (found.mean, found.std) == (tuple(library.image_mean), tuple(library.image_std))
    assert found.interpolation == {2: "bilinear", 3: "bicubic"}[int(library.resample)]
    assert found.resize == ("shortest" if "shortest_edge" in dict(library.size) else "squash")
    with pytest.raises(UserError, match="a DeiTImageProcessor, of which it does not say size"):
        read_processor({"image_processor_type": "DeiTImageProcessor"}, "mine")


@pytest.mark.parametrize("changes", [
    {"image_mean": [0.5] * 4}, {"image_mean": ["a"] * 3}, {"image_std": [0, 0, 0]}, {"image_std": [-0.5] * 3},
    {"image_std": [float("nan")] * 3}, {"image_mean": [123.7, 116.3, 103.5]}, {"rescale_factor": "x"},
    {"size": {"shortest_edge": 20}, "crop_size": 24},
])  # fmt: skip
def test_a_processor_of_no_sense_is_one_line(changes: dict) -> None:
    values = {**json.loads(PROCESSORS["plain"].to_json_string()), "do_normalize": True, **changes}
    with pytest.raises(UserError, match="cannot be followed"):
        read_processor(values, "mine")
    assert read_processor({"image_mean": 0.5, "image_std": [0.25]}, "mine").std == (0.25,) * 3


@pytest.mark.parametrize("vision", [None, {"hidden_act": "nosuch"}, {"num_attention_heads": 3}, {"patch_size": 0}])
def test_a_description_that_builds_nothing_is_one_line(vision: dict | None, tmp_path: Path) -> None:
    publish("pubmedclip", tmp_path)
    changed = vision if vision is None else {**SMALL_CLIP["vision_config"], **vision}
    (tmp_path / "config.json").write_text(json.dumps({**SMALL_CLIP, "model_type": "clip", "vision_config": changed}))
    with pytest.raises(UserError, match=r"config\.json describes no model that can be built"):
        build_backbone("hf", "hf", str(tmp_path))


def own_words(folder: Path) -> PreTrainedTokenizerFast:
    """A CLIP tokenizer of a few hundred tokens whose end marker is not the last of them."""
    pieces = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<end>"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<start>", "<end>"], end_of_word_suffix="</w>")
    pieces.train_from_iterator(TEXTS * 3, trainer)
    ends = [("<start>", 0), ("<end>", 1)]
    pieces.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    pieces.save(str(folder / "tokenizer.json"))
    return PreTrainedTokenizerFast(tokenizer_object=pieces)


@torch.no_grad()
def test_a_vocabulary_of_ones_own_is_taken_from_the_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    words = own_words(tmp_path)
    sizes = {
        **SMALL_CLIP["text_config"],
        "vocab_size": words.vocab_size,
        "eos_token_id": 1,
        "max_position_embeddings": 20,
    }
    model = shaken(CLIPModel(CLIPConfig.from_dict({**SMALL_CLIP, "text_config": sizes})))
    model.save_pretrained(tmp_path)
    backbone = build_backbone("hf", "hf", str(tmp_path))
    for text in TEXTS:
        ids = torch.tensor([words(text)["input_ids"]])
        assert_close(backbone.encode_text([text]), embedding_of(model.get_text_features(ids)))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="has a vocabulary of its own"):
        build_backbone("hf", "hf", str(tmp_path))
    stand_in_unigram(5000).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="the text tower knows"):
        build_backbone("hf", "hf", str(tmp_path))
    assert build_backbone("hf", "hf", str(tmp_path), text=False).text_tower is None


def test_backbone_hf_builds_what_the_folder_holds(tmp_path: Path) -> None:
    for name, family in (("pubmedclip", "clip"), ("medsiglip", "siglip")):
        folder = tmp_path / name
        publish(name, folder)
        (folder / "config.json").write_text(json.dumps({**TRANSFORMERS[name], "model_type": family}))
        backbone = build_backbone("hf", "hf", str(folder))
        assert type(backbone.image_tower).__name__ == {"clip": "HuggingFaceClipTower", "siglip": "SiglipTower"}[family]
    with pytest.raises(UserError, match="holds a siglip, and this backbone is another"):
        build_backbone("pubmedclip", CATALOGUE["pubmedclip"].architecture, str(tmp_path / "medsiglip"))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="holds a bert"):
        build_backbone("hf", "hf", str(folder))


def test_what_nothing_beside_the_weights_says_is_said_to_be_assumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish("dermlip", tmp_path / "model")
    lone = tmp_path / "model" / "open_clip_model.safetensors"
    assert build_backbone("mine", "ViT-B-16", str(lone)).preprocess.mean == (0.4, 0.4, 0.4) and not caplog.records
    config = json.loads((tmp_path / "model" / "open_clip_config.json").read_text())
    (tmp_path / "model" / "open_clip_config.json").write_text(json.dumps({"model_cfg": config["model_cfg"]}))
    build_backbone("mine", "ViT-B-16", str(lone))
    [record] = caplog.records
    assert "assumed: shortest, bicubic, mean 0.481" in record.getMessage()
    (tmp_path / "model" / "open_clip_config.json").unlink()
    with pytest.raises(UserError, match=r"needs its open_clip_config\.json"):
        build_backbone("mine", "ViT-B-16", str(lone))
    with pytest.raises(UserError, match=r"set backbone\.pretrained=FOLDER"):
        build_backbone("mine", "MyViT", str(lone))


def test_a_tower_behind_a_convolutional_stem_is_not_opened() -> None:
    vision = {"timm_model_name": "vit_tiny_r_s16_p8_224", "timm_pool": "token", "timm_proj": None, "image_size": 224}
    model = open_clip_models.build_model(
        {"embed_dim": 192, "vision_cfg": vision, "text_cfg": TEXT, "custom_text": True}, False, "x"
    )
    tower, _ = open_clip_models.towers_of(model, None)
    assert tower.grid == (7, 7) and not tower.supports
    assert tower.features(torch.zeros(1, 3, 224, 224)).patches.shape[1] == 49
    with pytest.raises(UserError, match="cannot be traced"):
        tower.trace(torch.zeros(1, 3, 224, 224))
