"""Values that many records state alike, kept once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NoReturn, TypeVar

Kept = TypeVar("Kept", bound=Hashable)

#: So many different values are kept; what comes later is its own.
MOST = 1 << 16


class SharedMapping(dict[str, Any]):
    """A dictionary that several records hold: it is replaced, never changed.

    Example:
        >>> SharedMapping(Edema=True)["Edema"]
        True
    """

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "other records hold this mapping, too: replace it, as in record.labels = {**record.labels, ...}"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = setdefault = pop = popitem = clear = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        """Return a hash that equal mappings share, whatever their order; a default of a dataclass must have one."""
        return hash(frozenset(self))

    def __reduce__(self) -> tuple[type[SharedMapping], tuple[dict[str, Any]]]:
        """Pickle as a plain dictionary that is made one of these again."""
        return SharedMapping, (dict(self),)


NOTHING = SharedMapping()


class OneOfEach:
    """Hands out one object for all equal ones."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Any] = {}

    def text(self, value: Kept) -> Kept:
        """Return the first value that was equal to this one."""
        return self._first(value, lambda: value)

    def mapping(self, value: Mapping[str, Any]) -> SharedMapping:
        """Return the first mapping that said the same in the same order; of values that are text, truth or None."""
        if not value:
            return NOTHING
        said = tuple(value.values())
        if not all(one is None or isinstance(one, (str, bool)) for one in said):
            return SharedMapping(value)
        return self._first((tuple(value), said), lambda: SharedMapping(value))

    def _first(self, key: Hashable, made: Callable[[], Any]) -> Any:
        found = self._kept.get(key)
        if found is None:
            found = made()
            if len(self._kept) < MOST:
                self._kept[key] = found
        return found
