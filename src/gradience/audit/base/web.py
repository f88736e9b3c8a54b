"""A base model at an address: `https://...`, or any store that fsspec knows (`s3://`, `gs://`).

The address is that of a safetensors file, of an index, or of the directory that holds them. There
is no commit to go by, so what the server says of each file decides whether it is the same one.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from gradience import __version__
from gradience.audit.base.config import MAX_CONFIG_BYTES, read_config
from gradience.audit.base.layout import PLAIN_NAMES, WeightsFile, weights_files, why_none
from gradience.audit.base.remote import RemoteFile, refuse_whole
from gradience.audit.base.shards import Found, Shard, by_shard
from gradience.errors import BaseModelError, RefusedError
from gradience.tensors.index import MAX_INDEX_BYTES, parse_index
from gradience.tensors.remote.filesystem import FilesystemFile, filesystem, translated
from gradience.tensors.remote.http import HttpFile
from gradience.tensors.remote.lookahead import LookAhead
from gradience.tensors.remote.range_file import Interrupted
from gradience.tensors.remote.session import is_http_url, origin, shown_url

_WHOLE = (".gguf", ".bin", ".pt", ".pth", ".ckpt")
# Any other suffix is a directory's: model names have dots.
_FILES = frozenset({".safetensors", ".json", *_WHOLE})


class _Folder(Protocol):
    """A directory elsewhere."""

    def names(self) -> Collection[str]:
        """The files that are known to be in it, as far as they matter."""
        ...

    def file(self, name: str) -> HttpFile | FilesystemFile:
        """One file of it."""
        ...


def find(address: str, *, ahead: LookAhead) -> Found:
    """The weights files of a model at an address.

    Raises
    ------
    BaseModelError
        If there are none, or only such as cannot be read by range.
    TensorFileError
        If they cannot be had, or an index is damaged.
    MissingExtraError
        If the package of that protocol is not installed.
    """
    shown = shown_url(address)
    is_web = address.startswith(("https://", "http://"))
    if is_web and not is_http_url(address):
        raise BaseModelError(
            f"base model {shown}: that is no address",
            remedy="Write it as https://host/path/model.safetensors.",
        )
    if is_web:
        folder, name = _web_folder(address)
    else:
        folder, name = _store_folder(address)
    files: tuple[WeightsFile, ...] = (WeightsFile(name=name),) if name else ()
    if not name:
        names = folder.names()
        files = weights_files(names)
        if not files:
            raise _nothing_at(shown, names, listed=not is_web)
    shards = tuple(shard for file in files for shard in _shards(folder, file, ahead))
    config = read_config(partial(_small, folder))
    return Found(
        model=shown,
        name=_short(shown),
        revision=None,
        shards=shards,
        tied=config.tied,
        quantisation=config.quantisation,
    )


def _nothing_at(shown: str, names: Collection[str], *, listed: bool) -> BaseModelError:
    """The error of an address without weights that can be told."""
    if not listed:
        return BaseModelError(
            f"base model {shown}: no file there has a usual name, such as {PLAIN_NAMES[0]}",
            remedy="Name the file or its index itself: a web server lists nothing.",
        )
    none = why_none(names)
    file = f"{shown.rstrip('/')}/{none.file}"
    return BaseModelError(
        f"base model {shown}: {none.reason}",
        remedy=f"Name the file itself, such as {file}" if none.file else none.remedy,
    )


def _short(shown: str) -> str:
    """The last part of an address; where that is a usual name, the directory's says more."""
    path = PurePosixPath(urlsplit(shown).path)
    return (path.parent.name if path.name in PLAIN_NAMES else path.name) or shown


def _shards(folder: _Folder, file: WeightsFile, ahead: LookAhead) -> list[Shard]:
    """The one file, or those that the index lists."""
    listed: dict[str, frozenset[str] | None] = {file.name: None}
    if file.name.endswith(".json"):
        index = folder.file(file.name)
        weight_map, _ = parse_index(index.name, index.whole(MAX_INDEX_BYTES))
        inside = file.name.rpartition("/")[0]
        listed = {
            f"{inside}/{name}" if inside else name: only
            for name, only in by_shard(weight_map).items()
        }
    for name in listed:
        if name.endswith(_WHOLE):
            raise refuse_whole(folder.file(name).name)
    return [
        Shard(
            name=name,
            file=RemoteFile(file=folder.file(name), ahead=ahead),
            prefix=file.prefix,
            only=only,
        )
        for name, only in listed.items()
    ]


def _small(folder: _Folder, name: str) -> bytes | None:
    """A config of a directory; None where there is none that may be read."""
    try:
        return folder.file(name).whole(MAX_CONFIG_BYTES)
    except RefusedError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _WebFolder:
    """A directory of a web server, which cannot be listed: the usual names are tried."""

    url: str

    def names(self) -> Collection[str]:
        """The first of the usual names that is there."""
        for name in PLAIN_NAMES:
            try:
                self.file(name).head(1)
            except RefusedError:
                continue
            return (name,)
        return ()

    def file(self, name: str) -> HttpFile:
        """A file below the address; what stands behind its `?` goes with each."""
        parts = urlsplit(self.url)
        path = f"{parts.path.removesuffix('/')}/{quote(name)}"
        return web_file(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")))


def web_file(url: str) -> HttpFile:
    """A file of a web server; the Hub's own gets this user's login, no other does."""
    from huggingface_hub import constants  # noqa: PLC0415 - only for an address
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # noqa: PLC0415

    ours = origin(url) == origin(constants.ENDPOINT)
    headers = build_hf_headers(
        token=None if ours else False, library_name="gradience", library_version=__version__
    )
    return HttpFile(url=url, name=shown_url(url), headers=headers)


def _web_folder(url: str) -> tuple[_Folder, str]:
    """The directory of an address, and the file that it names; empty for the directory itself."""
    parts = urlsplit(url)
    path = PurePosixPath(parts.path or "/")
    if path.suffix not in _FILES or parts.path.endswith("/"):
        return _WebFolder(url=url), ""
    above = str(path.parent)
    folder = urlunsplit((parts.scheme, parts.netloc, above, parts.query, ""))
    return _WebFolder(url=folder), unquote(path.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoreFolder:
    """A directory of a file system of fsspec."""

    fs: Any
    path: str
    shown: str

    def names(self) -> Collection[str]:
        """Files in it and one level below."""
        find_below = partial(self.fs.find, self.path, maxdepth=2)
        try:
            found = translated(find_below, self.shown)
        except Interrupted as trouble:
            raise BaseModelError(
                f"base model {self.shown}: {trouble.reason}",
                remedy="Check the address and the login of the store.",
            ) from trouble
        start = f"{self.path.rstrip('/')}/"
        return [name.removeprefix(start) for name in found]

    def file(self, name: str) -> FilesystemFile:
        """A file below the directory."""
        return FilesystemFile(
            fs=self.fs,
            path=f"{self.path.rstrip('/')}/{name}",
            name=f"{self.shown.rstrip('/')}/{name}",
        )


def _store_folder(address: str) -> tuple[_Folder, str]:
    """As `_web_folder`, of a store."""
    shown = shown_url(address)
    fs, path = filesystem(address, shown)
    pure = PurePosixPath(path)
    if pure.suffix not in _FILES:
        return _StoreFolder(fs=fs, path=path, shown=shown), ""
    above = _StoreFolder(fs=fs, path=str(pure.parent), shown=shown.rpartition("/")[0])
    return above, pure.name
