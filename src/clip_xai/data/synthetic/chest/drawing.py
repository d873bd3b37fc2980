"""A folder that is drawn whole or not at all: in a hidden folder below it first, moved into place at the end."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clip_xai.data.locking import one_at_a_time
from clip_xai.data.synthetic.chest.parts import FOLDER
from clip_xai.errors import UserError

log = logging.getLogger(__name__)
SETTINGS = f"{FOLDER}/settings.json"

#: Folder below the root in which a drawing is made; what it holds moves out once it is whole.
STAGE = ".drawing"
_UNFINISHED = "unfinished-"


def draw_once(root: Path, settings: dict[str, Any], draw: Callable[[Path], None]) -> None:
    """Draw into a new or empty folder, or return at once if the same drawing is there already.

    Args:
        root: The folder.
        settings: What decides the drawing; kept in ``synthetic/settings.json`` with a digest of the renderer's code.
        draw: Writes everything below the folder that it is given.

    Raises:
        UserError: The folder holds something else, which is left as it is.
    """
    settings = {**settings, "code": _code()}
    if _is_there(root, settings):
        return
    # Two runs may want the same drawing: the second one waits and finds it there.
    with one_at_a_time(root / STAGE):
        if _is_there(root, settings):
            return
        for left in (root / STAGE).glob(f"{_UNFINISHED}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        stage = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root / STAGE))
        try:
            draw(stage)
            (stage / FOLDER).mkdir(exist_ok=True)
            (stage / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
            # The folder with the settings comes last: where it is, everything is.
            for path in sorted(stage.iterdir(), key=lambda path: (path.name == FOLDER, path.name)):
                path.rename(root / path.name)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def read_settings(root: Path) -> dict[str, Any] | None:
    """Return the settings of the drawing in a folder, or None where there is none."""
    try:
        settings = json.loads((root / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return settings if isinstance(settings, dict) else None


def _is_there(root: Path, settings: dict[str, Any]) -> bool:
    if not os.path.lexists(root):
        return False
    if not root.is_dir():
        raise UserError(f"{root} is not a directory; give a new or empty one.")
    names = [name for name in os.listdir(root) if not name.startswith(".")]
    if not names:
        return False
    held = read_settings(root)
    if held == settings:
        return True
    if held is None:
        raise UserError(f"{root} holds something else ({min(names)}); give a new or empty directory.")
    changed = sorted(name for name in {*held, *settings} if held.get(name) != settings.get(name))
    if changed == ["code"]:  # a run's own pictures stay what they were when it is judged later
        log.warning("%s was drawn by another version of the renderer and is used as it is", root)
        return True
    told = ", ".join(f"another {name}" for name in changed if name != "code")
    raise UserError(f"{root} was drawn with {told}; give a new directory, or remove this one to draw it anew.")


def _code() -> str:
    """Digest of the renderer's own code, which a drawing depends on."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in (*sorted(here.glob("*.py")), here.parent / "fields.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
