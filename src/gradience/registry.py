"""Names that map to one object each, imported on first use.

A registry is a plain table of `"name": "module:attribute"` strings, so that listing names costs
no import, and adding one thing is one module plus one line.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar, cast

from gradience.errors import UnknownNameError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping from name to object; the object's module is imported when asked for.

    Parameters
    ----------
    kind : str
        What is listed, for messages: "metric", "dialect".
    table : mapping of str to str
        `"name": "module:attribute"`; the order is the order of listing.
    """

    def __init__(self, kind: str, table: Mapping[str, str]) -> None:
        self.kind = kind
        self._table = dict(table)
        self._loaded: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._loaded:
            module, _, attribute = self._target(name).partition(":")
            self._loaded[name] = cast("T", getattr(import_module(module), attribute))
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, name: object) -> bool:
        return name in self._table

    def _target(self, name: str) -> str:
        if name in self._table:
            return self._table[name]
        from difflib import get_close_matches  # noqa: PLC0415 - only for a message

        close = get_close_matches(name, self._table, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(self._table)}."
        raise UnknownNameError(f"there is no {self.kind} named {name!r}", remedy=hint)
