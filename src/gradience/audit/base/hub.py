"""A base model on the Hugging Face Hub: what its cache holds first, then as little as is needed.

Opening asks for one listing, the index, the config and the headers of shards by range requests. A
shard is downloaded, through huggingface_hub and into its cache, when a tensor of it is asked for.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from gradience.audit.base import local
from gradience.audit.base.layout import WeightsFile, weights_files, why_none
from gradience.audit.base.shards import Found, Progress, Shard
from gradience.audit.base.weights import TensorFacts
from gradience.errors import BaseModelError
from gradience.tensors.index import open_index

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repo:
    """A model repository at one commit, seen through the cache and, if allowed, the network."""

    repo: str
    revision: str
    commit: str
    names: Collection[str]
    online: bool
    progress: Progress | None

    def cached(self, name: str) -> Path | None:
        """The file in the cache, or None."""
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - only for a Hub id

        found = try_to_load_from_cache(self.repo, name, revision=self.commit)
        return Path(found) if isinstance(found, str) else None

    def fetch(self, name: str) -> Path:
        """The file, downloaded when it is not cached.

        Raises
        ------
        BaseModelError
            If it cannot be had.
        """
        here = self.cached(name)
        if here is not None:
            return here
        if not self.online:
            raise _offline(f"{self.repo}@{self.commit[:7]}: {name} is not in the cache", self.repo)
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - only for a Hub id

        self._tell(f"download {name}", 0)
        download = partial(hf_hub_download, self.repo, name)
        # Asked for by the name that was given: only then does the cache note which commit that
        # name stands for, without which the next run could not be offline.
        path = Path(_asked(partial(download, revision=self.revision), self.repo, self.revision))
        if self.commit not in path.parts:
            path = Path(_asked(partial(download, revision=self.commit), self.repo, self.commit))
        self._tell(f"download {name}", 1)
        return path

    def header(self, name: str) -> Mapping[str, TensorFacts] | None:
        """The header of a shard that is not here, by a range request; None where it need not be."""
        if self.cached(name) is not None or not name.endswith(".safetensors"):
            return None
        from huggingface_hub import HfApi  # noqa: PLC0415 - only for a Hub id

        self._tell(f"header of {name}", 0)
        ask = partial(HfApi().parse_safetensors_file_metadata, self.repo, name)
        found = _asked(partial(ask, revision=self.commit), self.repo, self.commit)
        self._tell(f"header of {name}", 1)
        return {
            tensor: TensorFacts(shape=tuple(info.shape), dtype=info.dtype)
            for tensor, info in found.tensors.items()
        }

    def _tell(self, stage: str, done: int) -> None:
        if self.progress:
            self.progress(stage, done, 1)


def find(text: str, *, allow_download: bool, progress: Progress | None) -> Found:
    """The weights files of `org/name[@revision]`.

    Raises
    ------
    BaseModelError
        If it is no Hub id, is not there, is gated, has no weights, or is not cached and may not
        be downloaded.
    TensorFileError
        If its index is damaged.
    """
    from huggingface_hub import constants  # noqa: PLC0415 - only for a Hub id

    repo, _, revision = text.partition("@")
    _check_id(text, repo)
    online = allow_download and not constants.HF_HUB_OFFLINE
    opened = _repo(repo, revision, online, progress)
    files = weights_files(opened.names)
    if not files:
        reason, remedy = why_none(opened.names)
        if not opened.online:
            reason += " in the cache, and nothing may be downloaded"
        raise BaseModelError(f"base model {repo}@{opened.commit[:7]}: {reason}", remedy=remedy)
    shards: list[Shard] = []
    absent: dict[str, str] = {}
    for file in files:
        for shard in _shards(opened, file):
            if opened.online or opened.cached(shard.name):
                shards.append(shard)
            else:
                absent |= dict.fromkeys(shard.only or (), shard.name)
    config = opened.fetch("config.json") if "config.json" in opened.names else None
    return Found(
        model=repo,
        name=repo,
        revision=opened.commit,
        shards=tuple(shards),
        tied=local.tied(config) if config else None,
        absent=absent,
    )


def _check_id(text: str, repo: str) -> None:
    """Tell a path that is not there from a Hub id."""
    from huggingface_hub import errors, utils  # noqa: PLC0415 - only for a Hub id

    try:
        utils.validate_repo_id(repo)  # type: ignore[attr-defined]
    except errors.HFValidationError as error:
        raise BaseModelError(
            f"base model {text}: there is no such file or directory, and it is no Hub id",
            remedy="Name a model directory, a weights file, or a Hub id such as org/name.",
        ) from error


def _repo(repo: str, revision: str, online: bool, progress: Progress | None) -> _Repo:
    """Resolve the revision to a commit: from the cache where that is certain, else by asking."""
    pinned = _COMMIT.fullmatch(revision) is not None
    named = f"revision {revision} of {repo}" if revision else repo
    revision = revision or "main"
    cached = _cached_repo(repo, revision, progress)
    if cached is not None and (not online or (pinned and _is_complete(cached))):
        return cached
    if not online:
        raise _offline(f"{named} is not in the cache", repo)
    from huggingface_hub import HfApi  # noqa: PLC0415 - only for a Hub id

    try:
        info = _asked(partial(HfApi().model_info, repo, revision=revision), repo, revision)
    except BaseModelError:
        # A server that is down, or a login that is gone, is no reason to refuse what is here.
        if cached is not None and _is_complete(cached):
            return cached
        raise
    names = [sibling.rfilename for sibling in info.siblings or ()]
    return _Repo(
        repo=repo,
        revision=revision,
        commit=info.sha or "",
        names=names,
        online=True,
        progress=progress,
    )


def _cached_repo(repo: str, revision: str, progress: Progress | None) -> _Repo | None:
    """The snapshot of a revision in the cache, whatever it holds; None when there is none."""
    from huggingface_hub import constants  # noqa: PLC0415 - only for a Hub id

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    ref = folder / "refs" / revision
    commit = ref.read_text().strip() if ref.is_file() else revision
    snapshot = folder / "snapshots" / commit
    if not _COMMIT.fullmatch(commit) or not snapshot.is_dir():
        return None
    names = local.listing(snapshot)
    return _Repo(
        repo=repo,
        revision=revision,
        commit=commit,
        names=names,
        online=False,
        progress=progress,
    )


def _is_complete(cached: _Repo) -> bool:
    """Whether every weights file of a snapshot is in the cache."""
    files = weights_files(cached.names)
    return bool(files) and all(
        cached.cached(shard.name) for file in files for shard in _shards(cached, file)
    )


def _shards(opened: _Repo, file: WeightsFile) -> tuple[Shard, ...]:
    """The one file, or those that the index lists; names are relative to the repository."""
    if not file.is_index:
        weight_map: dict[str, list[str]] = {file.name: []}
    else:
        index = open_index(opened.fetch(file.name))
        folder = file.name.rpartition("/")[0]
        weight_map = {f"{folder}/{s}" if folder else s: [] for s in sorted(index.shards)}
        for tensor, shard in index.weight_map.items():
            weight_map[f"{folder}/{shard}" if folder else shard].append(tensor)
    return tuple(
        Shard(
            name=name,
            fetch=partial(opened.fetch, name),
            prefix=file.prefix,
            header=partial(opened.header, name) if opened.online else None,
            only=frozenset(tensors) or None,
        )
        for name, tensors in weight_map.items()
    )


def _asked(ask: Callable[[], Any], repo: str, revision: str) -> Any:
    """Ask the Hub, and say in one sentence why it did not answer."""
    from huggingface_hub import errors  # noqa: PLC0415 - only for a Hub id

    # The transport's own base class: httpx since huggingface_hub 1.0, requests before.
    transport = cast("type[Exception]", errors.HfHubHTTPError.__mro__[1])
    try:
        return ask()
    except (OSError, transport, errors.EntryNotFoundError, errors.SafetensorsParsingError) as error:
        reason, remedy = _why(error, revision)
        raise BaseModelError(f"base model {repo}: {reason}", remedy=remedy) from error


def _why(error: BaseException, revision: str) -> tuple[str, str]:
    from huggingface_hub import errors  # noqa: PLC0415 - only for a Hub id

    if isinstance(error, errors.GatedRepoError):
        return (
            "it is gated, and this login may not read it",
            "Ask for access on its page, then run: hf auth login",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision}", "Name a branch, a tag or a commit that it has."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            "the Hub has no model of that name, or it is private",
            "Check the spelling; for a private model run: hf auth login",
        )
    return (
        f"the Hub did not answer: {' '.join(str(error).split())[:200]}",
        "Try again, or name a local directory of the model.",
    )


def _offline(what: str, repo: str) -> BaseModelError:
    return BaseModelError(
        f"base model {what}, and nothing may be downloaded",
        remedy=f"Go online (unset HF_HUB_OFFLINE), or run where the Hub is reached: "
        f"hf download {repo}",
    )
