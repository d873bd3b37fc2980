"""What was typed: texts and paths are taken as they are, and what Hydra cannot read is shown with its quotes.

Hydra's grammar has commas, colons, brackets, quotes, ``=`` and ``${...}`` of its own. In a text or a path they mean
nothing, so that such a value reaches Hydra in quotes.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Any, get_type_hints

from clip_xai.config.schemas import SCHEMAS, dataclasses_in
from clip_xai.ranges import FREE_TEXT, PATH

_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_TEXTS = re.compile(rf"\[\s*{_QUOTED}(?:\s*,\s*{_QUOTED})*\s*\]", re.DOTALL)
_AS_TYPED = ("", "null")


@functools.cache
def free_text_settings() -> frozenset[str]:
    """The settings whose values are texts or paths."""
    return frozenset(name for name, item, _ in _settings() if item.metadata.get(FREE_TEXT))


@functools.cache
def path_settings() -> frozenset[str]:
    """Those of them whose values may be files or directories."""
    return frozenset(name for name, item, _ in _settings() if item.metadata.get(PATH))


@functools.cache
def open_settings() -> frozenset[str]:
    """The settings that are a mapping with any keys, which Hydra would have one add with ``++``."""
    return frozenset(name for name, _, kind in _settings() if kind == dict[str, Any])


def _settings() -> Iterator[tuple[str, Field[Any], Any]]:
    for schema in SCHEMAS.values():
        yield from _settings_of(schema)


def _settings_of(schema: type, prefix: str = "") -> Iterator[tuple[str, Field[Any], Any]]:
    hints = get_type_hints(schema)
    for item in fields(schema):
        yield prefix + item.name, item, hints[item.name]
        for kind in dataclasses_in(hints[item.name]):
            yield from _settings_of(kind, f"{prefix}{item.name}.")


def quote_free_text(argument: str) -> str:
    """Quote the value of a setting that is a text or a path, so that nothing in it has a meaning for Hydra.

    A list of quoted texts stays a list; a value that is empty or ``null`` stays what it is. A setting that takes any
    keys, as the options of another method, is told to Hydra as one. ``~/`` before a path is the user's home, which a
    shell does not see behind a dotted setting: a directory of the name ``~`` would be made.

    >>> quote_free_text("text=a photo of melanoma, upper left")
    "text='a photo of melanoma, upper left'"
    >>> quote_free_text("text=['one, with a comma','another']")
    "text=['one, with a comma','another']"
    """
    key, equals, value = argument.partition("=")
    if equals and any(key == name or key.startswith(f"{name}.") for name in open_settings()):
        return f"++{argument}"
    if key.lstrip("+") not in free_text_settings() or not equals or value in _AS_TYPED:
        return argument
    meant = _at_home if key.lstrip("+") in path_settings() else str
    if _TEXTS.fullmatch(value):
        return f"{key}=[{','.join(hydra_quoted(meant(text)) for text in _texts(value))}]"
    return f"{key}={hydra_quoted(meant(value))}"


def hydra_quoted(text: str) -> str:
    """A text as Hydra reads it back letter by letter."""
    # OmegaConf's rule: a backslash before ${ makes it text, and backslashes before that are doubled.
    plain = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", text)
    # Hydra's rule: a backslash is an escape only before a quote or at the end of the text.
    return "'" + re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), plain) + "'"


def unreadable(argument: str) -> str:
    """The line for an argument that Hydra cannot read: the setting, and how it is quoted in a shell."""
    key, equals, value = argument.partition("=")
    if not equals:
        return f"{argument}: an argument is SETTING=VALUE"
    if value.startswith("[") and value.endswith("]"):
        parts = [part.strip().strip("'\"") for part in value[1:-1].split(",")]
        quoted = f"[{','.join(map(hydra_quoted, parts))}]"
    else:
        quoted = hydra_quoted(value.strip("'\""))
    return f"{key}: {value} cannot be read; put what is in it in quotes, {_in_shell(f'{key}={quoted}')}"


def _at_home(path: str) -> str:
    return os.path.expanduser(path) if path == "~" or path.startswith("~/") else path


def _texts(listed: str) -> list[str]:
    """The texts of a list of quoted texts: a backslash makes the quote, or the backslash, behind it a letter."""
    return [re.sub(r"\\(['\"\\])", r"\1", quoted[1:-1]) for quoted in re.findall(_QUOTED, listed, re.DOTALL)]


def _in_shell(argument: str) -> str:
    return '"' + re.sub(r'([\\"$`])', r"\\\1", argument) + '"'
