from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clip_xai.models.captioner import IGNORED, Captioner, Decoding
from clip_xai.models.mappers import BottleneckMLP, build_mapper

from .conftest import TEXTS


def read_of(captioner: Captioner, batch: int = 3) -> torch.Tensor:
    torch.manual_seed(2)
    with torch.no_grad():
        return captioner.read(torch.randn(batch, 3, 24, 24))


@torch.no_grad()
def next_logits(captioner: Captioner, read: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """The slow obvious way: one image, the whole sequence again for each token, no cache."""
    embeddings = captioner.language_model.transformer.wte(torch.tensor(ids, dtype=torch.long))
    inputs = torch.cat([captioner.prefix(read[None])[0], embeddings])[None]
    return captioner.language_model(inputs_embeds=inputs, use_cache=False).logits[0, -1]


def test_the_originals_mapper_has_the_originals_parameters() -> None:
    assert sum(p.numel() for p in BottleneckMLP(512, 1024).parameters()) == 68_194_305


def test_an_unknown_mapper_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of bottleneck_mlp, resampler"):
        build_mapper("transformer", embed_dim=1, width=1, embedding_dim=1)


@torch.no_grad()
def test_token_log_probs_equal_the_loop(captioner: Captioner) -> None:
    read, ids = read_of(captioner), captioner.encode_captions(TEXTS)
    log_probs = captioner.token_log_probs(read, ids)
    for row, (image, tokens) in enumerate(zip(read, ids, strict=True)):
        kept = tokens[tokens != IGNORED].tolist()
        for position, token in enumerate(kept):
            expected = next_logits(captioner, image, kept[:position]).log_softmax(-1)[token]
            torch.testing.assert_close(log_probs[row, position], expected, rtol=1e-4, atol=1e-5)
        assert not log_probs[row, len(kept) :].any()


@torch.no_grad()
def test_the_loss_supervises_caption_and_end_alone(captioner: Captioner) -> None:
    read, ids = read_of(captioner), captioner.encode_captions(TEXTS)
    supervised = ids != IGNORED
    expected = -captioner.token_log_probs(read, ids)[supervised].mean()
    torch.testing.assert_close(captioner.loss(read, ids), expected)
    longer = F.pad(ids, (0, 7), value=IGNORED)
    torch.testing.assert_close(captioner.loss(read, longer), expected)
    assert all(row[row != IGNORED][-1] == captioner.tokenizer.eos_id for row in ids)


@torch.no_grad()
def test_batched_greedy_decoding_equals_the_loop_without_cache(captioner: Captioner) -> None:
    read = read_of(captioner)
    captions = captioner.generate(read, Decoding(max_new_tokens=12))
    for image, caption in zip(read, captions, strict=True):
        ids: list[int] = []
        while len(ids) < 12:
            token = int(next_logits(captioner, image, ids).argmax())
            if token == captioner.tokenizer.eos_id:
                break
            ids.append(token)
        assert caption.token_ids == tuple(ids)
        assert caption.text == captioner.tokenizer.decode(ids)


def test_training_learns_to_stop_and_leaves_the_tower_alone(captioner: Captioner) -> None:
    read, ids = read_of(captioner), captioner.encode_captions(TEXTS)
    tower = captioner.backbone.fingerprint
    optimizer = torch.optim.AdamW([p for p in captioner.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(80):
        loss = captioner.loss(read, ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sorted(caption.text for caption in captioner.generate(read)) == sorted(TEXTS)
    del captioner.backbone.__dict__["fingerprint"]
    assert captioner.backbone.fingerprint == tower


def test_a_prompt_changes_the_distribution(captioner: Captioner) -> None:
    read, ids = read_of(captioner), captioner.encode_captions(TEXTS)
    with_prompt = captioner.loss(read, ids)
    captioner.prompt_ids = captioner.prompt_ids[:0]
    assert not torch.isclose(with_prompt, captioner.loss(read, ids))


def test_saved_and_loaded_captioners_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clip_xai.errors import UserError
    from clip_xai.models.backbones.build import BackboneSource
    from clip_xai.models.weights import CaptionerSettings, build_captioner, load_captioner, save_captioner

    settings = CaptionerSettings(
        backbone=BackboneSource("tiny", "tiny", None),
        mapper="resampler",
        mapper_settings={"prefix_length": 3},
        language_model_pretrained=None,
    )
    captioner = build_captioner(settings)
    save_captioner(captioner, settings, tmp_path)
    loaded = load_captioner(tmp_path)
    size = captioner.backbone.preprocess.image_size
    read = captioner.read(torch.randn(1, 3, size, size))
    ids = captioner.encode_captions(["a brown lesion"])
    torch.testing.assert_close(loaded.log_prob(read, ids), captioner.log_prob(read, ids), rtol=0, atol=0)
    assert loaded.backbone.fingerprint == captioner.backbone.fingerprint
    with pytest.raises(UserError, match="train one first"):
        load_captioner(tmp_path / "nothing")
