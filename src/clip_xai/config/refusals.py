"""What is wrong with a command, in one line: which setting, and what to type in its place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import yaml
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from clip_xai.config.aliases import parse
from clip_xai.config.schemas import dataclasses_in
from clip_xai.config.typed import open_settings, unreadable
from clip_xai.errors import UserError


def is_the_users(error: BaseException) -> bool:
    """Whether an error is one of the command or its settings."""
    return isinstance(error, (HydraException, OmegaConfBaseException, UserError))


def one_line(
    error: BaseException, schema: type, arguments: Mapping[str, str] | None = None, job: Path | None = None
) -> str:
    """What went wrong and what to do next, in one line.

    Args:
        error: One that :func:`is_the_users`.
        schema: The job's dataclass, for the near matches of a mistyped key.
        arguments: What was typed, each with what Hydra reads in its place.
        job: The job's YAML file, which names its groups.
    """
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    if isinstance(error, MissingConfigException):
        return _unknown_option(error)
    chain = _chain(error)
    for part in chain:
        if isinstance(part, OverrideParseException):
            return unreadable(part.override)
        if isinstance(part, (ConfigKeyError, ConfigAttributeError)) and part.full_key:
            return no_such_setting(part.full_key, schema)
        if isinstance(part, UserError):
            return one_line(part, schema)
    if type(chain[-1]) is ConfigCompositionException:  # Hydra's own, which says what it is about in its text alone
        line = _refused_argument(schema, arguments or {}, job)
        if line is not None:
            return line
    reason = str(chain[-1]).strip().splitlines() or [type(error).__name__]
    full_key = getattr(chain[-1], "full_key", None)
    return f"{full_key}: {reason[0]}" if full_key else " ".join(" ".join(reason).split())


def no_such_setting(name: str, schema: type, prefix: str = "") -> str:
    """The line for a mistyped setting or group, with near matches."""
    return f"{name}: there is no such setting or group{_near(name, setting_names(schema, prefix))}"


def refuse_unknown(arguments: Iterable[str], schema: type) -> None:
    """Refuse settings that a group does not have, one that is null included: there Hydra would fail on an assertion.

    Args:
        arguments: ``SETTING=VALUE``; groups, additions and Hydra's own settings are left to Hydra.
        schema: The job's dataclass.

    Raises:
        UserError: The line has the setting and its near matches.
    """
    hints = get_type_hints(schema)
    known = frozenset(setting_names(schema))
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        top = key.partition(".")[0]
        if not equals or top == key or not dataclasses_in(hints.get(top)):
            continue
        if key not in known and not any(key.startswith(f"{name}.") for name in open_settings()):
            raise UserError(no_such_setting(key, schema))


def setting_names(schema: type, prefix: str = "") -> list[str]:
    """The dotted names of all settings under a dataclass."""
    names: list[str] = []
    hints = get_type_hints(schema)
    for item in fields(schema):
        names.append(prefix + item.name)
        for kind in dataclasses_in(hints[item.name]):
            names += setting_names(kind, f"{prefix}{item.name}.")
    return names


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def _refused_argument(schema: type, arguments: Mapping[str, str], job: Path | None) -> str | None:
    """The line for the argument that is a group of another job, or holds several values."""
    known = {item.name for item in fields(schema)} | (groups_of(job) if job is not None else set())
    for argument in arguments:
        group = argument.lstrip("+~").partition("=")[0].partition("@")[0]
        if job is not None and group and (job.parent / group).is_dir() and group.partition("/")[0] not in known:
            return no_such_setting(group, schema)
    single = not {"-m", "--multirun"} & set(arguments)
    for argument, read in arguments.items():
        parsed = parse(read) if single and "=" in read else None
        if parsed is not None and parsed.is_sweep_override():
            return f"{argument} holds several values: add -m to run one after the other, or quote the value"
    return None


def groups_of(job: Path) -> set[str]:
    """The groups that a job's YAML file chooses from, such as ``experiment``, and Hydra's own."""
    items = yaml.safe_load(job.read_text(encoding="utf-8"))["defaults"]
    keys = [str(key) for item in items if isinstance(item, dict) for key in item]
    return {"hydra"} | {key.split(" ")[-1].partition("@")[0].lstrip("/").partition("/")[0] for key in keys}


def _unknown_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    options = sorted(error.options or [])
    return f"{group}={option}: there is no such option{_near(option, options)}; {group} can be {', '.join(options)}"


def _near(name: str, candidates: list[str]) -> str:
    leaf = name.rpartition(".")[2]
    matches = difflib.get_close_matches(name, candidates, cutoff=0.7)
    leaves = difflib.get_close_matches(leaf, {known.rpartition(".")[2] for known in candidates}, cutoff=0.75)
    matches += [known for known in candidates if known.rpartition(".")[2] in leaves]
    unique = list(dict.fromkeys(matches))[:3]
    return f" (near: {', '.join(unique)})" if unique else ""
