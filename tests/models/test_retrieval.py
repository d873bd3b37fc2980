from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from clip_xai.errors import UserError
from clip_xai.models.retrieval import CaptionIndex


def slow_nearest(index: CaptionIndex, embedding: torch.Tensor, count: int, group: str | None) -> list[str]:
    rows = sorted(
        range(len(index.captions)),
        key=lambda row: -float(torch.cosine_similarity(embedding, index.embeddings[row], dim=0)),
    )
    found: list[tuple[str, str]] = []
    for row in rows:
        caption, owner = index.captions[row], index.groups[row]
        if owner != group and caption not in [c for c, _ in found] and owner not in [g for _, g in found]:
            found.append((caption, owner))
    return [caption for caption, _ in found[:count]]


def index_of(seed: int, rows: int = 20) -> CaptionIndex:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(rows, 5, generator=generator) * 3
    captions = [f"caption {int(i)}." for i in torch.randint(0, rows, (rows,), generator=generator)]
    return CaptionIndex(embeddings, captions, [f"group {row // 2}" for row in range(rows)])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 4))
def test_the_nearest_captions_are_those_of_a_loop_without_ones_own_group(seed: int, count: int) -> None:
    index = index_of(seed)
    queries = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed + 1))
    groups = ["group 0", None, "a new patient"]
    found = index.nearest(queries, count, groups)
    for query, group, captions in zip(queries, groups, found, strict=True):
        assert captions == slow_nearest(index, query, count, group)


def test_as_many_captions_as_there_are_come_all_and_equally_near_ones_too() -> None:
    captions = ["far.", "near.", "nearest.", "as far."]
    index = CaptionIndex(torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 1]]), captions, ["a", "b", "c", "d"])
    asking = torch.tensor([[1.0, 0.1]])
    assert index.nearest(asking, 4) == [["nearest.", "near.", "far.", "as far."]]
    assert index.nearest(asking, 3, ["c"]) == [["near.", "far.", "as far."]]


def test_a_photograph_never_gets_the_captions_of_its_own_group() -> None:
    index = index_of(0)
    index.captions = [f"{caption} {group}" for caption, group in zip(index.captions, index.groups, strict=True)]
    for captions, group in zip(index.nearest(index.embeddings, 4, index.groups), index.groups, strict=True):
        assert not any(caption.endswith(group) for caption in captions)
    # Without being told its group, its own caption comes first: the leak that the exclusion closes.
    assert [captions[0] for captions in index.nearest(index.embeddings, 1)] == index.captions


def test_a_whole_neighbourhood_of_copies_is_passed_over() -> None:
    # Sixty rows of one's own group and sixty with the same words lie nearer than what is wanted; ties keep their order.
    count = 60
    embeddings = torch.tensor([[1.0, 0.0]] * (2 * count) + [[0.9, 0.1], [0.5, 0.5], [0.5, 0.5], [0.0, 1.0]])
    captions = [f"own {row}" for row in range(count)] + ["same"] * count + ["near", "first", "second", "far"]
    groups = ["me"] * count + [f"g{row}" for row in range(count + 4)]
    index = CaptionIndex(embeddings, captions, groups)
    assert index.nearest(embeddings[:1], 4, ["me"]) == [["same", "near", "first", "second"]]
    assert index.nearest(embeddings[:1], 5, ["me"])[0][-1] == "far"
    with pytest.raises(UserError, match="only 5 other"):
        index.nearest(embeddings[:1], 6, ["me"])


def test_as_many_as_one_likes_may_ask_at_a_time() -> None:
    index = index_of(3)
    queries = torch.randn(2100, 5, generator=torch.Generator().manual_seed(4))
    together = index.nearest(queries, 2)
    assert together == [found for part in queries.split(700) for found in index.nearest(part, 2)]


def test_prompts_hold_the_captions_in_the_template() -> None:
    index = CaptionIndex(torch.eye(3), ["a nevus.", "a wart.", "a burn."], ["1", "2", "3"])
    query = torch.tensor([[0.0, 1.0, 0.5]])
    assert index.prompts(query, 2, template="Like: {captions} So:") == ["Like: a wart. a burn. So:"]
    with pytest.raises(UserError, match=r"has no \{captions\}"):
        index.prompts(query, 2, template="So:")
    with pytest.raises(UserError, match="ask for fewer than 3"):
        index.nearest(query, 3, ["2"])


def test_an_index_is_saved_and_read_again(tmp_path: Path) -> None:
    index = CaptionIndex(torch.eye(2), ["a 2 µm scale, “dry”.", ""], ["p|1", "p 2"])
    index.save(tmp_path / "index.safetensors")
    again = CaptionIndex.load(tmp_path / "index.safetensors")
    assert (again.captions, again.groups) == (index.captions, index.groups)
    assert torch.equal(again.embeddings, index.embeddings)
    with pytest.raises(UserError, match="there is no index"):
        CaptionIndex.load(tmp_path / "nothing")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="is not an index"):
        CaptionIndex.load(tmp_path / "other.safetensors")


def test_records_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="make no index"):
        CaptionIndex(torch.eye(2), ["a"], ["g"])
