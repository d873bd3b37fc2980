"""Files that are not weights, and weights that somebody wrapped."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from clip_xai import load_backbone
from clip_xai.errors import UserError
from clip_xai.models.assets import TINY_CLIP
from clip_xai.models.backbones.weight_files import load_exactly
from clip_xai.models.reading import read_json, read_state

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harm",)


def written(name: str, folder: Path) -> Path:
    """A file of each kind that people bring."""
    weights, file = {"a": torch.arange(4.0), "b": torch.ones(2)}, folder / name
    save_file(weights, folder / "whole")
    torch.save(weights, folder / "whole.pickle")
    whole, pickled = (folder / "whole").read_bytes(), (folder / "whole.pickle").read_bytes()
    content = {
        "pointer.safetensors": POINTER,
        "pointer.bin": POINTER,
        "cut.safetensors": whole[:-3],
        "headless.safetensors": whole[:20],
        "cut.pt": pickled[: len(pickled) // 2],
        "empty.pt": b"",
        "zeros.safetensors": bytes(100),
        "page.bin": b"<!DOCTYPE html><html><body>please log in</body></html>",
        "pickled.safetensors": pickled,
        "text.pt": b"not weights at all",
        "plain.pt": pickle.dumps({"a": Harm()}),
        "damaged.index.json": b'{"weight_map": {"a": ',
        "list.index.json": b"[]",
        "lost.index.json": b'{"weight_map": {"a": "nowhere.safetensors"}}',
    }
    if name in content:
        file.write_bytes(content[name])
    elif name == "harm.pt":
        torch.save({"a": Harm()}, file)
    elif name == "module.pt":
        torch.save(nn.Linear(2, 2), file)
    elif name == "nothing.pt":
        torch.save({"epoch": 3}, file)
    elif name == "before_archives.pt":
        torch.save(nn.Linear(2, 2), file, _use_new_zipfile_serialization=False)
    elif name == "program.pt":
        torch.jit.script(nn.Linear(2, 2)).save(str(file))
    return file


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pointer.safetensors", "is a pointer of Git LFS"),
        ("pointer.bin", "is a pointer of Git LFS"),
        ("cut.safetensors", "is cut off after"),
        ("headless.safetensors", "is cut off after"),
        ("cut.pt", "is damaged, cut off"),
        ("empty.pt", "is empty"),
        ("zeros.safetensors", "is empty or holds only zeros"),
        ("page.bin", "is a web page"),
        ("pickled.safetensors", "is not a safetensors file"),
        ("text.pt", "is not a file of weights, whatever"),
        ("plain.pt", "never executed"),
        ("harm.pt", "more than tensors .*system"),
        ("module.pt", "more than tensors .*Linear"),
        ("before_archives.pt", "more than tensors .*Linear"),
        ("program.pt", "is a TorchScript program"),
        ("nothing.pt", "does not hold a state dict"),
        ("damaged.index.json", "is not JSON"),
        ("list.index.json", "holds no settings but a list"),
        ("lost.index.json", "names nowhere.safetensors, which is not beside it"),
        ("absent.pt", "cannot be read"),
    ],
)
def test_what_is_no_weights_is_one_line(name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(name, tmp_path)
    with pytest.raises(UserError, match=said) as caught:
        read_state(file)
    line = str(caught.value)
    assert "\n" not in line and str(tmp_path) in line and "weights_only" not in line
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.model."])
@pytest.mark.parametrize("holder", [(), ("state_dict",), ("model",), ("model", "state_dict")])
def test_weights_are_found_behind_wrappers(prefix: str, holder: tuple[str, ...], tmp_path: Path) -> None:
    held: dict = {f"{prefix}visual.a": torch.ones(2), f"{prefix}b": torch.zeros(1)}
    for name in reversed(holder):
        held = {name: held, "epoch": 3}
    torch.save(held, tmp_path / "x.pt")
    assert set(read_state(tmp_path / "x.pt")) == {"visual.a", "b"}


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    module = nn.Linear(2, 1)
    state = {"weight": torch.tensor([[1.0, float("nan")]]), "bias": torch.ones(1)}
    with pytest.raises(UserError, match=r"NaN or infinite values in 1 of 2 tensors, such as weight"):
        load_exactly(module, state, tmp_path / "x.pt")


def test_settings_of_a_spreadsheet_program_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    assert read_json(tmp_path / "x.json") == {"a": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensor: (tensor * 100).to(torch.int8), "as int8: quantised weights are not read"),
        (lambda tensor: tensor.to(torch.complex64), "as complex64: quantised"),
        (torch.zeros_like, "holds zeros alone in 1 of .* download it again"),
    ],
)
def test_weights_that_load_and_mean_nothing_are_refused(change: Any, said: str, tmp_path: Path) -> None:
    state = load_file(TINY_CLIP / "model.safetensors")
    save_file({**state, "text_projection": change(state["text_projection"])}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=said):
        load_backbone("tiny", tmp_path / "w.safetensors")


def test_a_file_under_the_other_formats_name_is_told_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes((TINY_CLIP / "model.safetensors").read_bytes())
    torch.save(load_file(TINY_CLIP / "model.safetensors"), tmp_path / "b.safetensors")
    for name, said in (("a.pt", r"rename it to a\.safetensors"), ("b.safetensors", r"rename it to b\.pt")):
        with pytest.raises(UserError, match=said):
            load_backbone("tiny", tmp_path / name)


def test_a_missing_part_of_an_index_is_named(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    for held, said in (({"a": "part-1.safetensors"}, r"names part-1\.safetensors, which is not beside it"),
                       ([1, 2], "does not name any file of weights")):  # fmt: skip
        index.write_text(json.dumps({"weight_map": held}))
        with pytest.raises(UserError, match=said):
            read_state(index)
