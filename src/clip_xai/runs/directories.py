"""Run directories: one rule for every command that writes into one.

A directory that is new or empty is taken, and what is asked of it is noted in ``asked.json``. The same command with the
same settings goes on in it. Anything else is refused, so that nothing in it is overwritten and no two things are mixed.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import clip_xai
from clip_xai.config.traces import HYDRAS
from clip_xai.errors import UserError
from clip_xai.files import whole_files, write_json

ASKED = "asked.json"
NOTED = "noted"  # what is written down and not compared
_LONGEST = 80


def claim(
    run_dir: Path,
    job: str,
    asked: Mapping[str, Any],
    noted: Mapping[str, Any] | None = None,
    *,
    setting: str = "run_dir",
    may_change: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Take a directory for a job, or go on in it.

    Args:
        run_dir: The directory; made where it is missing.
        job: What writes into it.
        asked: What decides its results, nested.
        noted: What is written down beside it and may differ; where a name in it is that of a setting, as in
            ``model.captioner``, it is shown with the setting's value.
        setting: By which setting the user names the directory.
        may_change: Settings and groups of settings that may be other than they were.

    Returns:
        What was asked of it before; None where it is new.

    Raises:
        UserError: Something else is in it, it is a file, or it cannot be made.
    """
    before = look(run_dir, job, asked, noted, setting=setting, may_change=may_change)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{setting}={run_dir} cannot be made: a part of its path is a file") from error
    note(run_dir, job, asked, noted, before)
    return before


def note(
    run_dir: Path,
    job: str,
    asked: Mapping[str, Any],
    noted: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
) -> None:
    """Write down what was asked of a directory; :func:`claim` does so, and what moves a whole directory into place."""
    now = _plain({"job": job, **asked, NOTED: dict(noted or {})})
    if before != now:
        write_json(run_dir / ASKED, now)


def look(
    run_dir: Path,
    job: str,
    asked: Mapping[str, Any],
    noted: Mapping[str, Any] | None = None,
    *,
    setting: str = "run_dir",
    may_change: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Find out whether a job may take a directory, as :func:`claim` does, and leave it as it is.

    Returns:
        What was asked of it before; None where it is new.

    Raises:
        UserError: Something else is in it, or it is a file.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise UserError(f"{setting}={run_dir} is a file, not a directory; name another, {_such_as(run_dir, setting)}")
    held = occupants(run_dir)
    if held == [ASKED]:  # a command that ended before it wrote anything
        return None
    before = asked_of(run_dir)
    if before is not None:
        now = _plain({"job": job, **asked, NOTED: dict(noted or {})})
        _refuse_difference(before, now, run_dir, setting, may_change)
    elif ASKED in held:
        raise UserError(
            f"{run_dir / ASKED} is empty or damaged: nobody can say what made the rest of {setting}={run_dir}; name "
            f"another directory, {_such_as(run_dir, setting)}"
        )
    elif held:
        raise UserError(
            f"{setting}={run_dir} holds {held[0]}{' and more' if len(held) > 1 else ''}, which is not of this "
            f"command; name a directory that is new or empty, {_such_as(run_dir, setting)}"
        )
    return before


def is_under(name: str, groups: Sequence[str]) -> bool:
    """Whether a setting is one of some settings, or belongs to one of some groups."""
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def _refuse_difference(
    before: Mapping[str, Any], now: Mapping[str, Any], run_dir: Path, setting: str, may_change: Sequence[str]
) -> None:
    if before["job"] != now["job"]:
        raise UserError(
            f"{setting}={run_dir} belongs to {before['job']}, and this is {now['job']}; name another directory, "
            f"{_such_as(run_dir, setting)}"
        )
    for name, old, new in differences(before, now):
        if is_under(name, may_change):
            continue
        raise UserError(
            f"{setting}={run_dir} was made with {name}={old}, and now {name}={new} is requested; name another "
            f"directory, {_such_as(run_dir, setting)}, or give the same settings to continue it"
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield each setting that differs, with both values as text; ``settings.`` is left out of its name."""
    old, new = (dict(_leaves(_plain(one))) for one in (before, now))
    beside = [one.get(NOTED, {}) for one in (before, now)]
    for name in dict.fromkeys((*new, *old)):
        if not is_under(name, [NOTED]) and old.get(name) != new.get(name):
            was, now_is = (_text(one.get(name), note.get(name)) for one, note in zip((old, new), beside, strict=True))
            yield name.removeprefix("settings."), was, now_is


def asked_of(run_dir: Path) -> dict[str, Any] | None:
    """Return what was asked of a directory; None where nothing was, or where its note cannot be read."""
    try:
        found = json.loads((run_dir / ASKED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("job"), str) else None


def occupants(run_dir: Path) -> list[str]:
    """Return the names of what a directory holds besides what Hydra puts there before any job runs."""
    if not run_dir.is_dir():
        return []
    return [path.name for path in whole_files(run_dir, "*") if path.name not in HYDRAS]


def free_directory(run_dir: Path) -> Path:
    """Return a directory beside another that does not exist yet."""
    number = 2
    while (found := run_dir.with_name(f"{run_dir.name}_{number}")).exists():
        number += 1
    return found


@functools.cache
def code_digest(*packages: str) -> str:
    """Return a digest of this package's own sources, and of the vocabularies among them, that compute a result.

    Args:
        packages: Names of its subpackages, such as ``xai``.
    """
    root = Path(clip_xai.__file__).parent
    digest = hashlib.sha256()
    kinds = ("**/*.py", "vocabularies/*.yaml")
    for file in sorted(path for package in packages for kind in kinds for path in (root / package).glob(kind)):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def plugin_digest(things: Iterable[object]) -> str:
    """Return a digest of the files that define those things that a user brings; empty where there are none.

    Args:
        things: What computes a result, such as explainers. What their files import does not count.
    """
    kinds = {type(thing) for thing in things if type(thing).__module__.partition(".")[0] != clip_xai.__name__}
    digest = hashlib.sha256()
    for file in sorted({Path(inspect.getfile(kind)) for kind in kinds}):
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16] if kinds else ""


def _such_as(run_dir: Path, setting: str) -> str:
    return f"such as {setting}={free_directory(run_dir)}"


def _plain(values: Any) -> Any:
    return json.loads(json.dumps(values, default=str))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any, note: str | None) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return (text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…") + (f" ({note})" if note else "")
