"""An open file of tensors, whatever its format."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from gradience.tensors.stored import StoredTensor

Format = Literal["safetensors", "torch", "gguf"]


def _nothing() -> None:
    """Closing of a file that holds nothing open."""


class TensorFile(msgspec.Struct, frozen=True, kw_only=True):
    """The tensors of one file; a context manager, although nothing leaks without `close`.

    Attributes
    ----------
    path : Path
    format : str
        By its content: `safetensors`, `torch` or `gguf`.
    nbytes : int
        Size of the file.
    tensors : mapping of name to StoredTensor
        In the order of their data in a safetensors file, of its mapping in a torch checkpoint.
    metadata : mapping of str to str
        `__metadata__` of a safetensors file; architecture and number of blocks of a GGUF file;
        empty for a torch checkpoint.
    skipped : mapping of name to str
        What a torch checkpoint holds beside tensors that can be read, and why it was left out.
    data_start : int or None
        Offset of the first tensor's data; None for a torch checkpoint, which has no such place.
    status : os.stat_result
        Of the very file that is open, whatever its name has come to mean since.
    sampled : str or None
        `sampled_digest` of it; None where that was not asked for.
    header_digest : str or None
        `blake3:...` of a safetensors header: names, types, shapes and places of all tensors.
        None for a torch checkpoint.
    """

    path: Path
    format: Format
    nbytes: int
    tensors: Mapping[str, StoredTensor]
    status: os.stat_result
    sampled: str | None = None
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)
    skipped: Mapping[str, str] = msgspec.field(default_factory=dict)
    data_start: int | None = None
    header_digest: str | None = None
    _close: Callable[[], None] = _nothing

    def close(self) -> None:
        """Unmap the file. Arrays that were read stay valid; no more can be read."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
