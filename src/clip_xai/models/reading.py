"""Files of weights and settings that a person brings: read, or refused in one line that says what each seems to be."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clip_xai.errors import UserError

# What training code puts in front of every key: torch.compile, DistributedDataParallel, wrappers.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "clip.", "clip_model.", "student.")
# Under which names checkpoints hold their state dict.
HOLDERS = ("state_dict", "model_state_dict", "model", "module")
_PICKLES = 5  # one behind the other in torch's format before archives, bare numbers behind them
# What a pickle of plain weights names: how tensors and the containers around them are made.
_PLAIN = re.compile(r"collections\.OrderedDict|_codecs\.encode|torch\.(\w+|(_utils|_tensor|storage|nn\.parameter)\..*)")
_LONGEST = 100_000_000  # bytes of a safetensors header, the format's own limit


def read_state(file: Path) -> dict[str, Tensor]:
    """Read a file of weights, or all that an index names; nothing in it is executed.

    A checkpoint's own state dict is found in it, and what wrappers put in front of every key is taken off.

    Raises:
        UserError: The file is missing, damaged, something else, or a pickle that holds more than tensors.
    """
    if file.name.endswith(".index.json"):
        listed = read_json(file).get("weight_map")
        names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
        if not names:
            raise UserError(f"{file} does not name any file of weights: download it again")
        for name in names:
            if not (file.parent / Path(name).name).is_file():
                raise UserError(f"{file} names {name}, which is not beside it: download that file, too")
        parts = [read_state(file.parent / Path(name).name) for name in names]
        return {key: value for part in parts for key, value in part.items()}
    if file.suffix == ".safetensors":
        refuse_impostor(file)
        _refuse_cut(file)
        try:
            return without_prefixes(load_file(file))
        except (SafetensorError, OSError, ValueError) as error:
            raise _damaged(file, error) from error
    return without_prefixes(state_of(read_pickle(file), file))


def read_pickle(file: Path) -> Any:
    """Read a ``.pt``, ``.bin`` or ``.ckpt`` file of tensors and plain containers.

    Raises:
        UserError: The file is missing, damaged, or holds more than that.
    """
    refuse_impostor(file)
    with file.open("rb") as opened:
        start = opened.read(9)
        if start[8:] == b"{":
            raise UserError(f"{file} is a safetensors file by its content: rename it to {file.stem}.safetensors")
        if start[:1] not in (b"\x80", b"P"):  # neither a pickle nor an archive that holds one
            raise UserError(f"{file} is not a file of weights, whatever its name says: download it again")
    if zipfile.is_zipfile(file) and any(name.endswith("/constants.pkl") for name in zipfile.ZipFile(file).namelist()):
        raise UserError(
            f"{file} is a TorchScript program, which is never executed: save its model's state_dict() where you trust "
            "it, best as .safetensors"
        )
    try:
        # Settings of a training program, which many checkpoints hold, are names and values and nothing that runs.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = _names_in_pickle(file)
        if named is None:
            raise _damaged(file, error) from error
        held = next((f" ({name})" for name in named if not _PLAIN.fullmatch(name)), "")
        raise UserError(
            f"{file} is not a file of plain weights but a pickle that holds more than tensors{held}, which is never "
            "executed: save model.state_dict() where you trust the file, best as .safetensors"
        ) from error
    except (RuntimeError, OSError, ValueError, EOFError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(file, error) from error


def state_of(content: Any, file: Path) -> dict[str, Tensor]:
    """Return the state dict in what a pickle holds.

    Raises:
        UserError: There is none.
    """
    for _ in range(2):
        if isinstance(content, dict) and not any(isinstance(value, Tensor) for value in content.values()):
            content = next((content[key] for key in HOLDERS if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"{file} does not hold a state dict of tensors: save model.state_dict()")
    return {str(key): value for key, value in content.items()}


def without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what stands in front of every key.

    Example:
        >>> list(without_prefixes({"module._orig_mod.a": torch.ones(1), "module._orig_mod.b": torch.ones(1)}))
        ['a', 'b']
    """
    while state:
        prefix = next((one for one in PREFIXES if all(key.startswith(one) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file of settings.

    Raises:
        UserError: It is missing, damaged, or holds no object.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        found = json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({_first_line(error)}): download it again") from error
    except json.JSONDecodeError as error:
        what = _impostor(text.encode()) or f"is not JSON (line {error.lineno}: {error.msg}): download it again"
        raise UserError(f"{file} {what}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} holds no settings but a {type(found).__name__}: download it again")
    return found


def refuse_impostor(file: Path) -> None:
    """Refuse what stands in the place of weights: nothing, a pointer of Git LFS, a web page.

    Raises:
        UserError: It is one of these, or cannot be read.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(256)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror or error})") from error
    what = _impostor(start)
    if what is not None:
        raise UserError(f"{file} {what}")


def _impostor(start: bytes) -> str | None:
    if not start.strip(b"\0 \t\r\n"):
        return "is empty or holds only zeros: download it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself: run `git lfs pull` in its folder, or download it alone"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, such as one that asks to log in, not the file itself: download it again"
    return None


def _refuse_cut(file: Path) -> None:
    """Compare a safetensors file's size with what its header announces."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        begins = length.to_bytes(8, "little")
        if begins.startswith(b"PK\x03\x04") or (begins.startswith(b"\x80") and length > _LONGEST):
            raise UserError(
                f"{file} is not a safetensors file but one that torch.save wrote: rename it to {file.stem}.pt"
            )
        if not 2 <= length <= _LONGEST:
            raise UserError(
                f"{file} is not a safetensors file, whatever its name says: convert it, or give it its own suffix"
            )
        header = opened.read(length)
    if len(header) == length:
        try:
            held = [entry["data_offsets"][1] for key, entry in json.loads(header).items() if key != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise UserError(f"{file} is damaged (its header is not JSON): download it again") from None
        if size >= 8 + length + max(held, default=0):
            return
        whole = f" of {8 + length + max(held, default=0):,}"
    else:
        whole = ""
    raise UserError(f"{file} is cut off after {size:,}{whole} bytes: download it again")


def _names_in_pickle(file: Path) -> list[str] | None:
    """The classes and functions that a pickle names, in order and without running it; None where it is damaged."""
    names: list[str] = []
    texts: list[str] = []
    try:
        with _pickles(file) as stream:
            for _ in range(_PICKLES):
                if stream.peek(1)[:1] != b"\x80":
                    break
                for operation, argument, _ in pickletools.genops(stream):
                    if operation.name == "GLOBAL":
                        names.append(str(argument).replace(" ", "."))
                    elif operation.name == "STACK_GLOBAL":
                        names.append(".".join(texts[-2:]))
                    elif isinstance(argument, str):
                        texts.append(argument)
    except (ValueError, LookupError, OSError, zipfile.BadZipFile):
        return None
    return names


def _pickles(file: Path) -> io.BufferedReader:
    if not zipfile.is_zipfile(file):
        return file.open("rb")
    with zipfile.ZipFile(file) as archive:
        name = next((name for name in archive.namelist() if name.endswith("data.pkl")), "data.pkl")
        return io.BufferedReader(io.BytesIO(archive.read(name)))  # type: ignore[arg-type]


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(f"{file} is damaged, cut off or no file of weights ({_first_line(error)}): download it again")


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [""])[0]
    # Torch's own advice, where a pickle is refused, is to load unsafely: nobody should follow it.
    told = line and not line.isdigit() and not isinstance(error, pickle.UnpicklingError)
    return line.split(". ")[0][:100] if told else type(error).__name__
