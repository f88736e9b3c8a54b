"""A base model on the Hugging Face Hub: what its cache holds first, the rest by range.

Opening asks for one listing, the index, the config and the headers of shards; a tensor comes when
it is asked for. Nothing is written, but for torch checkpoints and GGUF files, which cannot be read
by range: they are downloaded whole, through huggingface_hub and into its cache, after somebody
said yes.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gradience import __version__
from gradience.audit.base import local
from gradience.audit.base.config import CONFIG, MAX_CONFIG_BYTES, QUANTIZE_CONFIG, read_config
from gradience.audit.base.layout import WeightsFile, split_names, weights_files, why_none
from gradience.audit.base.remote import RemoteFile
from gradience.audit.base.shards import Found, LocalFile, Progress, Shard, ShardFile, by_shard
from gradience.audit.base.terms import Terms, WholeFiles, hf_download
from gradience.errors import BaseModelError
from gradience.hub_ids import COMMIT, is_repo_id
from gradience.tensors.index import MAX_INDEX_BYTES, parse_index
from gradience.tensors.regular import read_regular
from gradience.tensors.remote.http import REFUSALS, HttpFile
from gradience.tensors.remote.hub_listing import hub_listing
from gradience.tensors.remote.lookahead import LookAhead
from gradience.tensors.remote.session import (
    is_of_disk,
    said,
    transport_errors,
    unwritable_cache,
)

_INDEX = ".bin.index.json"
# A path that exists never comes here; one that was mistyped looks like the id of a model.
_NO_PATH = "there is no such file or directory here"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repo:
    """A model repository at one commit, seen through the cache and, if allowed, the network."""

    repo: str
    revision: str
    commit: str
    names: Collection[str]
    online: bool

    def cached(self, name: str) -> Path | None:
        """The file in the cache, or None."""
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - only for a Hub id

        found = try_to_load_from_cache(self.repo, name, revision=self.commit)
        return Path(found) if isinstance(found, str) else None

    def remote(self, name: str) -> HttpFile:
        """The file on the Hub, with this user's login; of this commit, so it cannot change."""
        from huggingface_hub import hf_hub_url  # noqa: PLC0415 - only for a Hub id
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # noqa: PLC0415

        return HttpFile(
            url=hf_hub_url(self.repo, name, revision=self.commit),
            name=f"{self.repo}@{self.commit[:7]}/{name}",
            headers=build_hf_headers(library_name="gradience", library_version=__version__),
        )

    def small(self, name: str, limit: int) -> bytes:
        """All of a small file: from the cache, else from the Hub and into memory.

        Raises
        ------
        BaseModelError
            If it is not cached and may not be fetched.
        TensorFileError
            If it cannot be had.
        """
        here = self.cached(name)
        if here is not None:
            return read_regular(here, limit=limit)
        if not self.online:
            what = f"{self.repo}@{self.commit[:7]}: {name} is not in the cache"
            raise _offline(what, self.repo, self.revision)
        return self.remote(name).whole(limit)

    def download(self, name: str) -> Path:
        """The file in the cache, downloaded when it is not there.

        Raises
        ------
        BaseModelError
            If it cannot be had.
        """
        here = self.cached(name)
        if here is not None:
            return here
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - only for a Hub id

        download = partial(hf_hub_download, self.repo, name)
        # Asked for by the name that was given: only then does the cache note which commit that
        # name stands for, without which the next run could not be offline.
        path = Path(_asked(partial(download, revision=self.revision), self.repo, self.revision))
        if self.commit not in path.parts:
            path = Path(_asked(partial(download, revision=self.commit), self.repo, self.commit))
        return path


def find(
    text: str,
    *,
    allow_download: bool,
    ahead: LookAhead,
    terms: Terms,
    progress: Progress | None,
) -> Found:
    """The weights files of `org/name[@revision]`.

    Raises
    ------
    BaseModelError
        If it is no Hub id, is not there, is gated, has no weights, or is not cached and may not
        be downloaded.
    DownloadRefusedError
        If files would have to be downloaded whole, and may not.
    TensorFileError
        If its index is damaged or cannot be had.
    """
    from huggingface_hub import constants  # noqa: PLC0415 - only for a Hub id

    repo, _, revision = text.partition("@")
    if not is_repo_id(repo):
        raise BaseModelError(
            f"base model {text}: there is no such file or directory, and it is no Hub id",
            remedy="Name a model directory, a weights file, or a Hub id such as org/name.",
        )
    online = allow_download and not constants.HF_HUB_OFFLINE
    tell = progress or (lambda stage, done, total: None)
    tell(f"asking for {repo}", 0, 1)
    opened = _repo(repo, revision, online)
    tell(f"asking for {repo}", 1, 1)
    files = weights_files(opened.names)
    if not files:
        raise _nothing_in(opened)
    listed = {name: (file, only) for file in files for name, only in _shards(opened, file).items()}
    here = {name for name in listed if opened.cached(name) is not None}
    if opened.online:
        _download_whole(opened, sorted(listed.keys() - here), terms, progress)
    shards = tuple(
        Shard(name=name, file=_file(opened, name, ahead), prefix=file.prefix, only=only)
        for name, (file, only) in listed.items()
        if opened.online or name in here
    )
    absent = {
        tensor: name
        for name, (_, only) in listed.items()
        if not opened.online and name not in here
        for tensor in only or ()
    }
    config = read_config(partial(_config, opened))
    return Found(
        model=repo,
        name=repo,
        revision=opened.commit,
        shards=shards,
        tied=config.tied,
        quantisation=config.quantisation,
        absent=absent,
    )


def _config(opened: _Repo, name: str) -> bytes | None:
    return opened.small(name, MAX_CONFIG_BYTES) if name in opened.names else None


def _file(opened: _Repo, name: str, ahead: LookAhead) -> ShardFile:
    """Where the bytes of a shard come from: the cache, else the Hub."""
    here = opened.cached(name)
    if here is not None:
        return LocalFile(fetch=partial(Path, here))
    return RemoteFile(file=opened.remote(name), ahead=ahead)


def _download_whole(
    opened: _Repo, missing: list[str], terms: Terms, progress: Progress | None
) -> None:
    """Ask for and fetch what cannot be read by range."""
    whole = [name for name in missing if not name.endswith(".safetensors")]
    if not whole:
        return
    from huggingface_hub import constants  # noqa: PLC0415 - only for a Hub id

    ask = partial(hub_listing, opened.repo, opened.commit, sizes=True)
    sizes = _asked(ask, opened.repo, opened.commit).sizes
    nbytes = sum(_size(opened, name, sizes.get(name)) for name in whole)
    files = WholeFiles(
        model=opened.repo,
        revision=opened.revision,
        names=tuple(whole),
        nbytes=nbytes,
        into=Path(constants.HF_HUB_CACHE),
    )
    terms.take(nbytes, f"base model {opened.repo}, {len(whole)} files that are only had whole")
    terms.approve(files)
    # The index and the config too: with them the next run can be offline.
    beside = [n for n in opened.names if n in (CONFIG, QUANTIZE_CONFIG) or n.endswith(_INDEX)]
    for done, name in enumerate(wanted := [*beside, *whole]):
        if progress:
            progress(f"download {opened.repo}", done, len(wanted))
        opened.download(name)
    if progress:
        progress(f"download {opened.repo}", len(wanted), len(wanted))


def _size(opened: _Repo, name: str, told: int | None) -> int:
    """Bytes of a file that would be downloaded: what nobody knows cannot be agreed to."""
    if told is not None:
        return told
    raise BaseModelError(
        f"base model {opened.repo}: {name} can only be had whole, and its server does not say how "
        "large it is",
        remedy=f"Download it: {hf_download(opened.repo, opened.revision, name)}",
    )


def _repo(repo: str, revision: str, online: bool) -> _Repo:
    """Resolve the revision to a commit: from the cache where that is certain, else by asking."""
    pinned = COMMIT.fullmatch(revision) is not None
    named = f"revision {revision} of {repo}" if revision else repo
    revision = revision or "main"
    cached = _cached_repo(repo, revision)
    if cached is not None and (not online or (pinned and _is_certainly_all(cached))):
        return cached
    if not online:
        raise _offline(f"{named} is not in the cache", repo, revision)

    def is_here() -> bool:
        return cached is not None and _is_complete(cached)

    try:
        found = _asked(partial(hub_listing, repo, revision, enough=is_here), repo, revision)
    except BaseModelError:
        # A server that is down, or a login that is gone, is no reason to refuse what is here.
        if cached is not None and is_here():
            return cached
        raise
    return _Repo(
        repo=repo,
        revision=revision,
        commit=found.commit,
        names=found.sizes.keys(),
        online=True,
    )


def _cached_repo(repo: str, revision: str) -> _Repo | None:
    """The snapshot of a revision in the cache, whatever it holds; None when there is none."""
    from huggingface_hub import constants  # noqa: PLC0415 - only for a Hub id

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    ref = folder / "refs" / revision
    try:
        commit = ref.read_text().strip()
    except (OSError, ValueError):  # no such branch or tag, no leave to read it, or no text
        commit = revision
    snapshot = folder / "snapshots" / commit
    if not COMMIT.fullmatch(commit) or not snapshot.is_dir():
        return None
    names = local.listing(snapshot)
    return _Repo(
        repo=repo,
        revision=revision,
        commit=commit,
        names=names,
        online=False,
    )


def _is_complete(cached: _Repo) -> bool:
    """Whether every weights file of a snapshot is in the cache."""
    files = weights_files(cached.names)
    return bool(files) and all(
        cached.cached(name) for file in files for name in _shards(cached, file)
    )


def _is_certainly_all(cached: _Repo) -> bool:
    """Whether no weights file can be missing; of a pipeline a whole folder may be."""
    pipeline = any(file.prefix for file in weights_files(cached.names))
    return not pipeline and _is_complete(cached)


def _shards(opened: _Repo, file: WeightsFile) -> dict[str, frozenset[str] | None]:
    """The one file, or those that the index lists with their tensors, by name in the repository."""
    if not file.is_index:
        return dict.fromkeys(split_names(file.name) or (file.name,))
    index, _ = parse_index(file.name, opened.small(file.name, MAX_INDEX_BYTES))
    folder = file.name.rpartition("/")[0]
    return {f"{folder}/{n}" if folder else n: only for n, only in by_shard(index).items()}


def _asked(ask: Callable[[], Any], repo: str, revision: str) -> Any:
    """Ask the Hub, and say in one sentence why it did not answer."""
    from huggingface_hub import errors  # noqa: PLC0415 - only for a Hub id

    expected: tuple[type[Exception], ...] = (*transport_errors(), errors.EntryNotFoundError)
    try:
        return ask()
    except expected as error:
        if is_of_disk(error):
            raise unwritable_cache(repo, error) from error
        reason, remedy = _why(error, revision)
        raise BaseModelError(f"base model {repo}: {reason}", remedy=remedy) from error


def _why(error: BaseException, revision: str) -> tuple[str, str]:
    from huggingface_hub import errors  # noqa: PLC0415 - only for a Hub id

    if isinstance(error, errors.GatedRepoError):
        return REFUSALS["GatedRepo"]
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision}", REFUSALS["RevisionNotFound"][1]
    if isinstance(error, errors.RepositoryNotFoundError):
        reason, remedy = REFUSALS["RepoNotFound"]
        return f"{_NO_PATH}, and {reason}", remedy
    return (
        f"{_NO_PATH}, and the Hub did not answer: {said(error)}",
        "Check the path, if one was meant; else try again when the Hub is reached.",
    )


def _offline(what: str, repo: str, revision: str) -> BaseModelError:
    return BaseModelError(
        f"base model {what}, and nothing may be downloaded ({_NO_PATH})",
        remedy=f"Go online (unset HF_HUB_OFFLINE), or run where the Hub is reached: "
        f"{hf_download(repo, revision)}",
    )


def _nothing_in(opened: _Repo) -> BaseModelError:
    """The error of a repository without weights that can be told."""
    from huggingface_hub import hf_hub_url  # noqa: PLC0415 - only for a Hub id

    none = why_none(opened.names)
    remedy = none.remedy
    if none.file.endswith((".safetensors", ".safetensors.index.json")):
        address = hf_hub_url(opened.repo, none.file, revision=opened.commit)
        remedy = f"Name the file by its address, such as {address}"
    elif none.file:
        command = hf_download(opened.repo, opened.revision, none.file)
        remedy = f"Download one and name the file: {command}"
    here = "" if opened.online else " in the cache, and nothing may be downloaded"
    return BaseModelError(
        f"base model {opened.repo}@{opened.commit[:7]}: {none.reason}{here}", remedy=remedy
    )
