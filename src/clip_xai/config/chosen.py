"""Which settings were typed: a default that a task does not read is nobody's mistake, one that was typed is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from clip_xai.errors import UserError

_TYPED: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())
_NOTHING = ("null", "[]")


@contextmanager
def settings_typed(overrides: Sequence[str]) -> Iterator[None]:
    """Let what runs inside ``with`` know which settings were typed; an empty value asks for nothing.

    Args:
        overrides: As typed, or those of one run of a sweep.
    """
    pairs = [override.partition("=") for override in overrides if not override.startswith("~")]
    names = tuple(key.lstrip("+").partition("@")[0] for key, _, value in pairs if value not in _NOTHING)
    token = _TYPED.set(names)
    try:
        yield
    finally:
        _TYPED.reset(token)


def refuse_unused(reader: str, unused: Sequence[str]) -> None:
    """Refuse a typed setting that nothing would read; outside of a command nothing was typed.

    Args:
        reader: What does not read it, for the message: ``task=classify``.
        unused: Settings, or whole groups of them.

    Raises:
        UserError: One was typed.
    """
    for name in _TYPED.get():
        if any(name == one or name.startswith((f"{one}.", f"{one}/")) for one in unused):
            raise UserError(f"{reader} does not use {name}; leave it out")
