"""Which settings were typed: a default that a task does not read is nobody's mistake, one that was typed is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from typing import get_type_hints

from clip_xai.config.schemas import SCHEMAS, dataclasses_in
from clip_xai.errors import UserError

_TYPED: ContextVar[tuple[str, tuple[str, ...]] | None] = ContextVar("typed", default=None)


@contextmanager
def settings_typed(job: str, overrides: Sequence[str]) -> Iterator[None]:
    """Let what runs inside ``with`` know which settings were typed; what is set to null asks for nothing.

    Args:
        job: ``train``, ``evaluate`` or ``explain``.
        overrides: As typed, or those of one run of a sweep.
    """
    pairs = [override.partition("=") for override in overrides if not override.startswith("~")]
    names = tuple(key.lstrip("+").partition("@")[0] for key, _, value in pairs if value != "null")
    token = _TYPED.set((job, names))
    try:
        yield
    finally:
        _TYPED.reset(token)


def refuse_unused(task: str, unused: Sequence[str]) -> None:
    """Refuse a typed setting that a task does not read; outside of a command nothing was typed.

    Args:
        task: Its name.
        unused: Settings and groups that it does not read.

    Raises:
        UserError: One was typed; the line says which groups the task reads.
    """
    job, typed = _TYPED.get() or ("", ())
    for name in typed:
        if not any(name == one or name.startswith((f"{one}.", f"{one}/")) for one in unused):
            continue
        kinds = get_type_hints(SCHEMAS[job])
        read = [one.name for one in fields(SCHEMAS[job]) if dataclasses_in(kinds[one.name]) and one.name not in unused]
        raise UserError(f"{name}: task={task} does not use it, but {', '.join(read)}; leave it out")
