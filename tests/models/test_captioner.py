from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks.naive_decoding import next_logits
from clip_xai.errors import UserError
from clip_xai.models.captioner import IGNORED, Captioner
from clip_xai.models.settings import Decoding
from tests.models.conftest import TEXTS
from tests.support.captions import log_prob


def read_of(captioner: Captioner, batch: int = 3) -> torch.Tensor:
    torch.manual_seed(2)
    with torch.no_grad():
        return captioner.read(torch.randn(batch, 3, 24, 24))


@torch.no_grad()
def test_token_log_probs_equal_the_loop(captioner: Captioner) -> None:
    read, ids = read_of(captioner), captioner.encode_captions(TEXTS)
    log_probs = captioner.token_log_probs(read, ids)
    for row, (image, tokens) in enumerate(zip(read, ids, strict=True)):
        kept = tokens[tokens != IGNORED].tolist()
        mapped = captioner.mapper(image[None])
        for position, token in enumerate(kept):
            expected = next_logits(captioner, mapped, kept[:position]).log_softmax(-1)[token]
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


def test_training_learns_to_stop_and_leaves_the_tower_alone(captioner: Captioner) -> None:
    read, ids = read_of(captioner), captioner.encode_captions(TEXTS)
    tower = captioner.backbone.fingerprint
    optimizer = torch.optim.AdamW([p for p in captioner.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(300):
        loss = captioner.loss(read, ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.02:
            break
    assert sorted(caption.text for caption in captioner.generate(read)) == sorted(TEXTS)
    del captioner.backbone.__dict__["fingerprint"]
    assert captioner.backbone.fingerprint == tower


def test_a_prompt_changes_the_distribution(captioner: Captioner) -> None:
    read, ids = read_of(captioner), captioner.encode_captions(TEXTS)
    with_prompt = captioner.loss(read, ids)
    captioner.prompt_ids = captioner.prompt_ids[:0]
    assert not torch.isclose(with_prompt, captioner.loss(read, ids))


def test_another_prompt_holds_within_a_block_and_goes_with_it(captioner: Captioner) -> None:
    read, ids = read_of(captioner), captioner.encode_captions(TEXTS)
    own = log_prob(captioner, read, ids)
    wanted = log_prob(captioner, read, ids, ["a small lesion with"] * len(read))
    kept = captioner.prompt_ids
    with captioner.prompted("a small lesion with"):
        assert captioner.prompt == "a small lesion with"
        torch.testing.assert_close(log_prob(captioner, read, ids), wanted, rtol=1e-5, atol=1e-4)
        with captioner.prompted(""):
            assert captioner.prompt_ids.numel() == 0
        assert captioner.prompt == "a small lesion with"
    with pytest.raises(RuntimeError, match="in the middle"), captioner.prompted("a small"):
        raise RuntimeError("in the middle")
    assert captioner.prompt == "two" and captioner.prompt_ids is kept
    assert "prompt_ids" not in captioner.state_dict()
    assert torch.equal(log_prob(captioner, read, ids), own)


def test_room_is_what_generation_has(captioner: Captioner) -> None:
    read, prompts = read_of(captioner)[:2], ["a brown lesion", "a"]
    room = captioner.room(prompts)
    assert (
        room
        < captioner.room(["a"])
        == captioner.room() - (len(captioner.tokenizer.encode("a")) - captioner.prompt_ids.numel())
    )
    captioner.generate(read, Decoding(max_new_tokens=room), prompts)
    with pytest.raises(UserError, match=rf"set generation\.max_new_tokens={room} or less"):
        captioner.generate(read, Decoding(max_new_tokens=room + 1), prompts)
    # Nothing that generation can be told helps here.
    with pytest.raises(UserError, match=r"128 positions; put less before it") as caught:
        captioner.generate(read, Decoding(max_new_tokens=4), ["a brown lesion " * 40] * 2)
    assert "\n" not in str(caught.value)


def test_saved_and_loaded_captioners_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clip_xai.models.backbones.backbone_builder import BackboneSource
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
    torch.testing.assert_close(log_prob(loaded, read, ids), log_prob(captioner, read, ids), rtol=0, atol=0)
    assert loaded.backbone.fingerprint == captioner.backbone.fingerprint
    with pytest.raises(UserError, match="train one first"):
        load_captioner(tmp_path / "nothing")
