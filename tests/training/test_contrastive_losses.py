from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from clip_xai.data.lexicon import read_attribute, read_diagnosis
from clip_xai.data.synthetic.composition import POSITIONS
from clip_xai.data.synthetic.describe import facets
from clip_xai.data.synthetic.rendered import RenderedScenes, short_captions, turned, turned_position
from clip_xai.data.synthetic.scene import render, sample_scene
from clip_xai.training.contrastive_losses import multi_positive_loss, paraphrase_loss


def test_one_positive_each_is_clips_loss() -> None:
    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(6, 8), dim=-1) for _ in range(2))
    scale = torch.tensor(14.0)
    ours = multi_positive_loss(scale * images @ texts.T, torch.eye(6, dtype=torch.bool))
    torch.testing.assert_close(ours, ClipLoss()(images, texts, scale))


def test_many_positives_equal_the_loop() -> None:
    torch.manual_seed(1)
    similarities = torch.randn(5, 4) * 3
    positives = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    halves = []
    for table, truth in ((similarities, positives), (similarities.T, positives.T)):
        rows = []
        for row, fits in zip(table, truth, strict=True):
            if fits.any():
                losses = [torch.logsumexp(row, 0) - row[index] for index in range(len(row)) if fits[index]]
                rows.append(sum(losses) / len(losses))
        halves.append(sum(rows) / len(rows))
    torch.testing.assert_close(multi_positive_loss(similarities, positives), (halves[0] + halves[1]) / 2)


def test_paraphrases_equal_the_loop_and_lone_texts_are_left_out() -> None:
    torch.manual_seed(2)
    texts = F.normalize(torch.randn(5, 8), dim=-1)
    similarities, facts = 9 * texts @ texts.T, [0, 0, 1, 0, 2]
    rows = []
    for one in range(5):
        others = [other for other in range(5) if other != one]
        total = torch.logsumexp(similarities[one, others], 0)
        losses = [total - similarities[one, other] for other in others if facts[other] == facts[one]]
        rows += [sum(losses) / len(losses)] if losses else []
    same = torch.tensor(facts)[:, None] == torch.tensor(facts)
    torch.testing.assert_close(paraphrase_loss(similarities, same), sum(rows) / len(rows))
    assert paraphrase_loss(similarities, torch.eye(5, dtype=torch.bool)) == 0


def test_turned_pictures_keep_their_words_true() -> None:
    for seed in range(6):
        scene = sample_scene(seed)
        mask = render(scene, 96, 96).lesion_mask
        for turn in range(8):
            rows, columns = np.nonzero(turned(mask[None], turn)[0])
            cell = 3 * int(rows.mean() // 32) + int(columns.mean() // 32)
            assert turned_position(scene.position, turn) == POSITIONS[cell]


def test_short_captions_are_true_of_exactly_the_images_that_share_the_fact() -> None:
    scenes = [sample_scene(seed) for seed in range(40)]
    short = short_captions(scenes, np.random.default_rng(0))
    for kind, read in (("diagnosis", read_diagnosis), ("position", lambda text: read_attribute(text, "position"))):
        for column, text in enumerate(short[kind].texts):
            truth = [facets(scene)[kind] == read(text) for scene in scenes]
            assert short[kind].positives[:, column].tolist() == truth


def test_batches_are_seeded_and_cover_what_they_say() -> None:
    scenes = RenderedScenes([sample_scene(seed) for seed in range(8)], np.zeros((8, 3, 8, 8), np.uint8))
    first, again = (scenes.batch(np.random.default_rng(3), 6, 2)[1] for _ in range(2))
    assert first.whole == again.whole
    assert len(first.whole) == 2
    assert {kind: batch.texts for kind, batch in first.short.items()} == {
        kind: batch.texts for kind, batch in again.short.items()
    }
