"""Fetch an adapter from the Hub: its config and its weights, and nothing else.

The Hub is asked for one thing, which commit a branch or tag is now; what the cache of
huggingface_hub has of that commit is not asked for again. A full commit that is in the cache
needs no network at all, and neither does anything under `HF_HUB_OFFLINE`.
"""

import re
from pathlib import Path, PurePosixPath

import msgspec

from gradience.adapter.layout import (
    CONFIG,
    AdapterLocation,
    Listing,
    Notice,
    full_model_files,
    listing_of,
    locate,
    no_weights,
)
from gradience.errors import AdapterNotFoundError
from gradience.hub_ids import COMMIT, is_repo_id
from gradience.tensors.remote.hub_listing import HubListing, NotTheHubError, hub_listing
from gradience.tensors.remote.session import (
    is_of_disk,
    told_if_slow,
    transport_errors,
    unwritable_cache,
)

_HUB_ID = re.compile(r"(?P<repo>[^\s:@]+)(?:@(?P<revision>[^\s:@]+))?(?::(?P<inside>[^\s:@]+))?")
_FILE_SUFFIXES = (".safetensors", ".bin", ".json", ".pt", ".pth", ".ckpt", ".gguf")


class HubId(msgspec.Struct, frozen=True, kw_only=True):
    """`org/name[@revision][:inside]`, where `inside` is a folder or a weights file.

    Attributes
    ----------
    repo : str
    revision : str
        A branch, a tag or a commit; `main` when none was named.
    inside : str
        Path in the repository; empty for its root.
    """

    repo: str
    revision: str = "main"
    inside: str = ""

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" + (f":{self.inside}" if self.inside else "")

    @property
    def folder(self) -> str:
        """The folder of the adapter: `inside`, or the folder of the file it names."""
        return str(PurePosixPath(self.inside).parent) if self.file else self.inside or "."

    @property
    def file(self) -> str:
        """The name of the weights file that `inside` names; empty when it names a folder."""
        return PurePosixPath(self.inside).name if self.inside.endswith(_FILE_SUFFIXES) else ""


def parse_hub_id(text: str) -> HubId | None:
    """The Hub id that a text spells, or None when it can only be a path.

    Examples
    --------
    >>> parse_hub_id("org/name@v2:checkpoint-500")
    HubId(repo='org/name', revision='v2', inside='checkpoint-500')
    >>> parse_hub_id("./org/name") is None, parse_hub_id("a/b/c") is None
    (True, True)
    """
    match = _HUB_ID.fullmatch(text)
    if match is None or not is_repo_id(match["repo"], namespace=True):
        return None
    inside = (match["inside"] or "").strip("/")
    if match["repo"].endswith(_FILE_SUFFIXES) or ".." in PurePosixPath(inside).parts:
        return None
    return HubId(repo=match["repo"], revision=match["revision"] or "main", inside=inside)


def fetch_from_hub(hub_id: HubId, *, notice: Notice) -> tuple[AdapterLocation, ...]:
    """Download what is missing of an adapter and say where it lies.

    Raises
    ------
    AdapterNotFoundError
        If the repository, the revision or an adapter in it does not exist, cannot be reached,
        or may not be read; names id, revision, reason and remedy.
    StorageError
        If the cache cannot be written.
    """
    if COMMIT.fullmatch(hub_id.revision):
        cached = _from_cache(hub_id)
        if cached:
            return cached
    try:
        with told_if_slow(notice, f"waiting for the Hub to say what {hub_id} is"):
            found = _ask(hub_id)
    except _Unreachable as error:
        cached = _from_cache(hub_id)
        if not cached:
            raise _not_cached(hub_id, error.reason) from error
        notice(f"{error.reason}; reading {cached[0].source} from the cache")
        return cached
    listing = _listing(hub_id, list(found.sizes))
    folder = None
    for name in (*listing.weights, *([CONFIG] if listing.config else [])):
        folder = _download(hub_id, found.commit, name).parent
    assert folder is not None  # a listing without weights was refused
    return tuple(locate(folder, listing, name=hub_id.repo, source=f"{hub_id.repo}@{found.commit}"))


class _Unreachable(Exception):  # noqa: N818 - never leaves this module
    """The Hub gave no answer: offline, no network, or it is down."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _ask(hub_id: HubId) -> HubListing:
    """The commit that a revision is now, and the files of the repository there."""
    with _HubErrors(hub_id):
        return hub_listing(hub_id.repo, hub_id.revision, enough=lambda: bool(_from_cache(hub_id)))


def _download(hub_id: HubId, commit: str, name: str) -> Path:
    """A file of the repository, from the cache when it is there."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache  # noqa: PLC0415

    inside = name if hub_id.folder == "." else f"{hub_id.folder}/{name}"
    cached = try_to_load_from_cache(hub_id.repo, inside, revision=commit)
    if isinstance(cached, str):
        return Path(cached)
    try:
        with _HubErrors(hub_id):
            # By the name the user gave, so that the cache learns which commit that name is.
            return Path(hf_hub_download(hub_id.repo, inside, revision=hub_id.revision))
    except _Unreachable as error:
        raise _not_cached(hub_id, error.reason) from error


def _from_cache(hub_id: HubId) -> tuple[AdapterLocation, ...]:
    """The adapter as the cache has it, without asking the Hub; empty when it has none."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    wanted = CONFIG if hub_id.folder == "." else f"{hub_id.folder}/{CONFIG}"
    try:
        root = snapshot_download(
            hub_id.repo,
            revision=hub_id.revision,
            local_files_only=True,
            allow_patterns=[hub_id.inside if hub_id.file else wanted],
        )
    except LocalEntryNotFoundError:
        return ()
    folder = Path(root) / hub_id.folder
    if not folder.is_dir():
        return ()
    listing = listing_of([entry.name for entry in folder.iterdir() if entry.is_file()])
    if hub_id.file:
        listing = _only(listing, hub_id.file, [entry.name for entry in folder.iterdir()])
    source = f"{hub_id.repo}@{Path(root).name}"
    return tuple(locate(folder, listing, name=hub_id.repo, source=source))


def _listing(hub_id: HubId, names: list[str]) -> Listing:
    """What the repository holds in the folder that was named: exactly one adapter."""
    here = [p.name for p in map(PurePosixPath, names) if str(p.parent) == hub_id.folder]
    listing = listing_of(here)
    if hub_id.file:
        listing = _only(listing, hub_id.file, here)
    if len(listing.weights) == 1:
        return listing
    if len(listing.weights) > 1:
        raise AdapterNotFoundError(
            f"{hub_id} holds {len(listing.weights)} weights files: {_some(listing.weights)}",
            remedy=f"Name one: {hub_id.repo}@{hub_id.revision}:{listing.weights[0]}",
        )
    if listing.has_config:
        raise no_weights(str(hub_id))
    raise _nothing(hub_id, here, names)


def _only(listing: Listing, file: str, here: list[str]) -> Listing:
    """The listing when a file was named: that one, with the config only if it is its own."""
    if file in listing.weights and not listing.named_files:
        return listing
    own = listing.config and file in listing.alternatives
    return Listing(weights=(file,) if file in here else (), config=own)


def _nothing(hub_id: HubId, here: list[str], names: list[str]) -> AdapterNotFoundError:
    """Say what is there instead, and where an adapter would be."""
    below = sorted({str(p.parent) for p in map(PurePosixPath, names) if p.name == CONFIG})
    if below:
        where = ["its root" if folder == "." else folder for folder in below]
        inside = "" if below[0] == "." else f":{below[0]}"
        return AdapterNotFoundError(
            f"{hub_id} has no adapter there, but in {_some(where)}",
            remedy=f"Name one: {hub_id.repo}@{hub_id.revision}{inside}",
        )
    model = full_model_files(here)
    if model:
        return AdapterNotFoundError(
            f"{hub_id} is a full model ({model[0]}), not an adapter",
            remedy="Name the adapter's repository, and give the model with --base-model.",
        )
    return AdapterNotFoundError(
        f"there is no adapter in {hub_id}; it has {_some(sorted(here)) or 'no such folder'}",
        remedy="Name a repository with adapter_config.json, or with one .safetensors file.",
    )


def _some(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _not_cached(hub_id: HubId, reason: str) -> AdapterNotFoundError:
    return AdapterNotFoundError(
        f"{hub_id} is not in the cache of huggingface_hub, and {reason}",
        remedy="Connect and run again, unset HF_HUB_OFFLINE, or name a local directory.",
    )


class _HubErrors:
    """Turns what huggingface_hub raises into one sentence; never quotes it.

    Its messages carry request ids and addresses, and are not ours to promise anything about.
    """

    def __init__(self, hub_id: HubId) -> None:
        self.hub_id = hub_id

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            translated = _translate(self.hub_id, error)
            if translated is not None:
                raise translated from error


def _translate(hub_id: HubId, error: BaseException) -> Exception | None:
    """Our error for one of huggingface_hub's; None when it is none of its."""
    from huggingface_hub import errors  # noqa: PLC0415

    for kind, reason, remedy in (
        (errors.GatedRepoError, "is gated: its owner must grant you access", "gated"),
        (errors.RepositoryNotFoundError, "is not on the Hub, or is private", "repo"),
        (errors.RevisionNotFoundError, f"has no revision {hub_id.revision!r}", "revision"),
        (errors.HFValidationError, "is not a valid Hub id", "repo"),
    ):
        if isinstance(error, kind):
            return _refused(hub_id, reason, remedy)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return _of_status(hub_id, int(status))
    if isinstance(error, errors.OfflineModeIsEnabled):
        return _Unreachable("the Hub may not be asked (HF_HUB_OFFLINE)")
    if is_of_disk(error):
        return unwritable_cache(hub_id.repo, error)
    if isinstance(error, transport_errors()):
        why = str(error) if isinstance(error, NotTheHubError) else type(error).__name__
        return _Unreachable(f"the Hub cannot be reached ({why})")
    return None


def _of_status(hub_id: HubId, status: int) -> Exception:
    """An answer that is none of the refusals the Hub has a name for."""
    if status in (401, 403):
        return _refused(hub_id, f"may not be read with your token ({status})", "gated")
    if status < 500 and status != 429:
        return _refused(hub_id, f"was refused by the Hub ({status})", "repo")
    return _Unreachable(f"the Hub answers {status}")


def _refused(hub_id: HubId, reason: str, remedy: str) -> AdapterNotFoundError:
    remedies = {
        "gated": f"Ask for access on the page of {hub_id.repo}, then run `hf auth login`.",
        "repo": "Check the spelling; for a private repository run `hf auth login`.",
        "revision": f"Name a branch, tag or commit of {hub_id.repo}, or leave @revision out.",
    }
    return AdapterNotFoundError(
        f"{hub_id.repo} at {hub_id.revision}: {reason}", remedy=remedies[remedy]
    )
