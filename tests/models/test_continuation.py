"""Going on with a caption from kept keys and values: against scoring every whole caption by itself."""

from __future__ import annotations

import pytest
import torch

from clip_xai.models.captioner import Captioner
from clip_xai.models.continuation import Continuation
from clip_xai.models.mappers import build_mapper
from tests.support.small_captioner import small_captioner


def looking_beside() -> Captioner:
    """A captioner whose language model looks at a memory beside the sequence."""
    captioner = small_captioner()
    told = {"heads": 2, "head_width": 16, "gated": False}
    mapper = build_mapper("cross_attention", embed_dim=16, width=32, embedding_dim=32, grid=(3, 3), blocks=3, **told)
    return Captioner(captioner.backbone, mapper, captioner.language_model, captioner.tokenizer).eval()


@pytest.mark.parametrize("make", [small_captioner, looking_beside])
@pytest.mark.parametrize("before", [(), (5, 9, 7)])
def test_each_way_has_the_chances_of_its_whole_caption(make, before) -> None:  # type: ignore[no-untyped-def]
    captioner = make()
    with torch.no_grad():
        read = captioner.read(torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0)))
        prefix = captioner.prefix(read)
        ways = [(0, (3,)), (2, ()), (1, (4, 8, 2)), (0, (4, 8)), (2, (6,))]
        continuation = Continuation(captioner, prefix, before)
        for _ in range(2):  # what is kept is not used up
            found = continuation.log_probs(ways)
        for (row, tokens), log_probs in zip(ways, found, strict=True):
            ids = torch.tensor([[*before, *tokens, 0]])
            length = torch.tensor([ids.shape[1] - 1])
            alone = captioner.next_log_probs(prefix[row : row + 1], ids, length)[0]
            torch.testing.assert_close(log_probs, alone, atol=1e-5, rtol=1e-5)
