"""Norms that travel: one small file per base model, in a repository, on a server, or on the Hub."""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from blake3 import blake3

from gradience import artifacts, files
from gradience.audit.base.norms_file import LARGEST, SCHEMA, NormsFile, believable, decode
from gradience.audit.base.norms_only import GivenNorms, given
from gradience.errors import ArtifactError, GradienceError, TransferError
from gradience.hub_ids import is_repo_id
from gradience.paths import exists, is_directory, is_file, nearest
from gradience.tensors.regular import read_regular
from gradience.tensors.remote.http import REFUSALS
from gradience.tensors.remote.session import (
    answer_seconds,
    is_nobody_there,
    is_of_disk,
    said,
    shown_url,
    transport_errors,
    unwritable_cache,
)
from gradience.units import format_size

Notice = Callable[[str], None]

HUB_FILE = "base_norms.json"
"""The name under which a Hub repository carries norms."""


def fetch(source: str | os.PathLike[str], *, notice: Notice = lambda sentence: None) -> GivenNorms:
    """Exported norms, from wherever they are.

    Parameters
    ----------
    source : path or str
        A file, a URL, or a Hub repository `org/name[@revision]` that holds `base_norms.json`, or a
        directory that does. A path that exists is always taken as a path.
    notice : callable
        Told in a sentence when the network is asked.

    Raises
    ------
    ArtifactError
        If it is not there, is no file of norms, or holds numbers that make no sense.
    GradienceError
        If the Hub, the server or the disk refuses.
    """
    text = os.fspath(source)
    if is_directory(text):
        # A repository that carries norms, checked out.
        text = _in_directory(text)
    if exists(text):
        data = read_regular(Path(text), limit=LARGEST)
    elif urlsplit(text).scheme in ("http", "https"):
        text = shown_url(text)
        notice(f"fetching {text}")
        data = _from_url(os.fspath(source), text)
    else:
        data = _from_hub(text, notice)
    content = decode(data, source=text)
    return given(content, source=text, digest=blake3(data).hexdigest())


def is_elsewhere(text: str) -> bool:
    """Whether a text may name norms that are not in the cache, by what it looks like alone."""
    web = urlsplit(text).scheme in ("http", "https")
    return web or is_directory(text) or _carries_norms(text.partition("@")[0])


def _carries_norms(repo: str) -> bool:
    """Whether a repository of the Hub can be meant: not a mistyped path of a file."""
    return is_repo_id(repo, namespace=True) and not repo.endswith(".json")


def export(path: Path, content: NormsFile, *, now: datetime) -> int:
    """Write norms to a file to carry away; gives its size in bytes.

    Where they came from stays here: who reads the file has its word alone, whatever it says.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    # One line per file: it is read by machines, and `gradience norms show` reads it to people.
    norms, _ = believable(content.norms)
    plain = {key: msgspec.structs.replace(norm, told_by="") for key, norm in norms.items()}
    content = msgspec.structs.replace(content, norms=plain)
    data = artifacts.encode(SCHEMA, content, now=now, indent=0) + b"\n"
    files.replace(path, data)
    return len(data)


def renamed(content: NormsFile, name: str) -> NormsFile:
    """The same norms under another name, `ID` or `ID@REVISION`: names are for the reader.

    A revision is one of its model: under the name of another there is none unless it is said.
    """
    model, _, said = name.partition("@")
    kept = content.revision if model == content.model else None
    return msgspec.structs.replace(content, model=model, revision=said or kept)


def _in_directory(directory: str) -> str:
    """The file of norms in a directory."""
    path = f"{directory.rstrip('/')}/{HUB_FILE}"
    if not is_file(path):
        raise ArtifactError(
            f"{directory} is a directory without {HUB_FILE}",
            remedy="Name the file of norms; a base model itself goes with --base-model.",
        )
    return path


def _from_url(url: str, shown: str) -> bytes:
    """The file at an address, through huggingface_hub's session: its proxies and certificates."""
    from gradience.audit.base.web import web_file  # noqa: PLC0415 - only for an address

    try:
        return web_file(url).whole(LARGEST)
    except TransferError as error:
        raise ArtifactError(
            f"norms at {shown} cannot be had: {str(error).removeprefix(f'{shown}: ')}",
            remedy="Check the address, or download the file and name its path.",
        ) from error


def _from_hub(text: str, notice: Notice) -> bytes:
    """`base_norms.json` of a Hub repository, through huggingface_hub and its cache."""
    from huggingface_hub import errors, hf_hub_download  # noqa: PLC0415 - only for a Hub id

    repo, _, revision = text.partition("@")
    if not _carries_norms(repo):
        close = nearest(Path(text)) if text else None
        raise ArtifactError(
            f"{text}: there is no such file, and it is no URL and no Hub id",
            remedy=f"Did you mean {close}?"
            if close
            else "Name a file, a URL, or a Hub id such as org/name.",
        )
    refused: tuple[type[Exception], ...] = (*transport_errors(), ValueError)
    notice(f"asking the Hub for {HUB_FILE} of {repo}")
    why = _why_unreachable(repo, revision)
    try:
        path = hf_hub_download(
            repo, HUB_FILE, revision=revision or None, local_files_only=bool(why)
        )
    except errors.LocalEntryNotFoundError as error:
        # Also an EntryNotFoundError, and of the cache alone: the Hub was not asked, or not reached.
        raise ArtifactError(
            f"the Hub cannot be reached{why}, and its cache holds no {HUB_FILE} of {text}",
            remedy="Go online (unset HF_HUB_OFFLINE), or name a local file.",
        ) from error
    except errors.EntryNotFoundError as error:
        raise ArtifactError(
            f"the Hub repository {text} holds no {HUB_FILE}",
            remedy=f"Upload one: gradience norms export MODEL --out {HUB_FILE}, then "
            f"hf upload {repo} {HUB_FILE}",
        ) from error
    except refused as error:
        if is_of_disk(error):
            raise unwritable_cache(repo, error) from error
        raise _refused(text, error) from error
    return read_regular(Path(path), limit=LARGEST)


def _why_unreachable(repo: str, revision: str) -> str:
    """Why the Hub cannot be reached at all; empty where it answers: the download says how.

    Asked for once beforehand: a download asks six times more, for half a minute where it is
    refused, and for minutes where nobody answers; and it writes whatever is there.

    Raises
    ------
    ArtifactError
        If the file is too large to be one of norms.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url  # noqa: PLC0415 - as above

    url = hf_hub_url(repo, HUB_FILE, revision=revision or None)
    try:
        nbytes = get_hf_file_metadata(url, timeout=answer_seconds()).size or 0
    except transport_errors() as error:
        return f" ({said(error)})" if is_nobody_there(error) else ""
    if nbytes > LARGEST:
        raise ArtifactError(
            f"{HUB_FILE} of {repo} has {format_size(nbytes)}, more than the {format_size(LARGEST)} "
            "of such a file",
            remedy="Check the repository: `gradience norms export` writes a few hundred KB.",
        )
    return ""


def _refused(text: str, error: Exception) -> GradienceError:
    code = getattr(getattr(error, "response", None), "headers", {}).get("X-Error-Code", "")
    default = "Check the name and your login (hf auth login), or name a local file."
    reason, remedy = REFUSALS.get(code, (said(error), default))
    return ArtifactError(
        f"norms of the Hub repository {text} cannot be had: {reason}", remedy=remedy
    )
