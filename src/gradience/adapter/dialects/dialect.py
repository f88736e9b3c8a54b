"""The interface of a dialect: the key names and the scale rule of one file format."""

from collections.abc import Callable, Collection, Mapping

import msgspec

from gradience.adapter.config import AdapterConfig
from gradience.adapter.parts import Parts
from gradience.tensors.stored import StoredTensor

Recognise = Callable[[Collection[str]], bool]
Read = Callable[[Mapping[str, StoredTensor], AdapterConfig | None, Mapping[str, str]], Parts]


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One file format.

    Attributes
    ----------
    name : str
        Its name in the registry.
    description : str
        One line for `--help` and the reference page.
    recognises : callable
        Whether these tensor names are of this dialect; decided by the names alone.
    read : callable
        (tensors by name, config or None, the file's metadata) to `Parts`.
    """

    name: str
    description: str
    recognises: Recognise
    read: Read
