"""A weights file of a base model that stays where it is, read by range."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gradience.audit.base.terms import kind_of
from gradience.errors import TensorFileError
from gradience.tensors.remote.lookahead import LookAhead, Span
from gradience.tensors.remote.range_file import RangeFile
from gradience.tensors.remote.safetensors import (
    RemoteSafetensors,
    entry_span,
    open_remote_safetensors,
)
from gradience.tensors.stored import StoredTensor


@dataclass(eq=False, slots=True, kw_only=True)
class RemoteFile:
    """A safetensors file elsewhere; a `ShardFile`."""

    file: RangeFile
    ahead: LookAhead
    _opened: RemoteSafetensors | None = field(default=None, init=False)
    _tensors: Mapping[str, StoredTensor] = field(default_factory=dict, init=False)
    _spans: Mapping[str, Span] = field(default_factory=dict, init=False)

    @property
    def path(self) -> Path | None:
        """There is none."""
        return None

    def tensors(self) -> Mapping[str, StoredTensor]:
        """Every tensor, fetched when read."""
        self._header()
        return self._tensors

    def metadata(self) -> Mapping[str, str]:
        """What the header says of the file."""
        return self._header().header.metadata

    def span(self, name: str, index: int | None) -> Span:
        """The bytes of a tensor, or of one entry along its first dimension."""
        shape = self.tensors()[name].shape
        return self._spans[name] if index is None else entry_span(self._spans[name], shape, index)

    def identity(self) -> str:
        """Address, version, size and header.

        The version is a strong validator of the server (ETag), or fsspec's key of what the store
        says of the file. A server that gives neither says too little to tell one content from
        another, so blocks of the data are looked at too.
        """
        opened = self._header()
        told = f"{self.file.name} {self.file.size} {opened.digest} {self.file.validator}"
        return told if self.file.names_version else f"{told} {opened.samples()}"

    def known_by(self) -> Literal["version", "sample"]:
        """See `ShardFile`."""
        self._header()
        return "version" if self.file.names_version else "sample"

    def check_same(self) -> None:
        """Every answer was held against the first already."""

    def close(self) -> None:
        """Nothing is open; what is on its way is stopped by the one who looks ahead."""

    def _header(self) -> RemoteSafetensors:
        if self._opened is None:
            self._opened = open_remote_safetensors(self.file)
            self._tensors = self._opened.tensors(self.ahead)
            self._spans = self._opened.spans()
        return self._opened


def refuse_whole(name: str) -> TensorFileError:
    """The error of a file at an address that can only be had whole."""
    return TensorFileError(
        f"{name} is {kind_of(name)}, which cannot be read by range",
        remedy="Download it and name the file, or name a model that has safetensors.",
    )
