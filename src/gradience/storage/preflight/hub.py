"""What a Hub repository holds, and which of it is in the cache already.

The Hub is asked for one listing. Where it may not be asked or does not answer, the cache says what
it knows: the listing of the commit (`trees/<commit>.json`), or the files of a snapshot, which may
not be all of them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from gradience.hub_ids import COMMIT
from gradience.storage.verify.expected import read_listing
from gradience.tensors.remote.session import no_answer, said

RepoType = Literal["model", "dataset"]
Source = Literal["listed", "measured"]
_ANSWER_SECONDS = 5.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of a repository.

    Attributes
    ----------
    name : str
    bytes : int
    path : Path or None
        In the cache; None where it must be fetched.
    """

    name: str
    bytes: int
    path: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRepo:
    """A repository at one revision.

    Attributes
    ----------
    id, revision : str
    files : mapping of str to HubFile
    source : str
        `listed`: by the Hub, now or when it was cached; `measured`: what a snapshot holds.
    doubt : str
        Why more may have to be fetched than is known; "" where all is known.
    card : mapping
        The metadata of its card: that of a dataset says sizes.
    """

    id: str
    revision: str
    files: Mapping[str, HubFile]
    source: Source
    doubt: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)


def look(kind: RepoType, text: str, *, cache: Path, online: bool) -> HubRepo:
    """A repository, by the Hub or by the cache.

    Parameters
    ----------
    text : str
        `org/name` or `org/name@revision`.
    cache : Path
        The hub cache.
    online : bool
        Whether the Hub may be asked.
    """
    name, _, revision = text.partition("@")
    revision = revision or "main"
    folder = cache / f"{kind}s--{name.replace('/', '--')}"
    snapshot = _snapshot(folder, revision)
    why = "the Hub may not be asked"
    if online:
        found, why = _asked(lambda: _listing(kind, name, revision))
        if found is not None:
            sizes, blobs, card = found
            files = {
                n: HubFile(name=n, bytes=b, path=_cached(n, b, blobs[n], folder, snapshot))
                for n, b in sizes.items()
            }
            return HubRepo(id=name, revision=revision, files=files, source="listed", card=card)
    return _from_cache(name, revision, folder, snapshot, why)


def headers(
    repo: HubRepo, names: Iterable[str]
) -> tuple[Mapping[str, tuple[tuple[int, ...], str]] | None, str]:
    """Shapes and types of the tensors in safetensors files that are not here, by range requests.

    Returns
    -------
    mapping of name to (shape, dtype), or None
    str
        Why there is none.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only for the Hub

    from huggingface_hub import HfApi  # noqa: PLC0415 - only for the Hub

    api = HfApi()

    def ask(name: str) -> dict[str, tuple[tuple[int, ...], str]]:
        found = api.parse_safetensors_file_metadata(repo.id, name, revision=repo.revision)
        return {n: (tuple(t.shape), t.dtype) for n, t in found.tensors.items()}

    def all_of_them() -> dict[str, tuple[tuple[int, ...], str]]:
        with ThreadPoolExecutor(8) as pool:
            return {name: t for part in pool.map(ask, list(names)) for name, t in part.items()}

    return _asked(all_of_them)


def _listing(
    kind: RepoType, name: str, revision: str
) -> tuple[dict[str, int], dict[str, tuple[str, ...]], Mapping[str, Any]]:
    from huggingface_hub import HfApi  # noqa: PLC0415 - 0.2 s that a local model need not pay
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415 - as above

    api = HfApi()
    # Asked first, and once: where the Hub does not answer, the client asks for a listing six times.
    info = api.repo_info(
        name,
        revision=revision,
        repo_type=kind,
        timeout=_ANSWER_SECONDS,
        # Annotated as one name, and documented as a list.
        expand=["cardData"],  # type: ignore[arg-type]
    )
    sizes: dict[str, int] = {}
    blobs: dict[str, tuple[str, ...]] = {}
    for entry in api.list_repo_tree(name, recursive=True, revision=revision, repo_type=kind):
        if isinstance(entry, RepoFile):
            sizes[entry.path] = entry.lfs.size if entry.lfs else entry.size
            digest = entry.lfs.sha256 if entry.lfs else entry.blob_id
            blobs[entry.path] = (digest, entry.xet_hash or "")
    card = getattr(info, "card_data", None)
    return sizes, blobs, dict(card.to_dict()) if card else {}


def _asked(ask: Callable[[], T]) -> tuple[T | None, str]:
    """The Hub's answer, or one sentence on why there is none."""
    from huggingface_hub import errors  # noqa: PLC0415 - only for the Hub

    refused: tuple[type[Exception], ...] = (
        *no_answer(),
        errors.EntryNotFoundError,
        errors.SafetensorsParsingError,
    )
    try:
        return ask(), ""
    except errors.GatedRepoError:
        return None, "it is gated, and this login may not read it"
    except errors.RevisionNotFoundError:
        return None, "the Hub has no such revision of it"
    except errors.RepositoryNotFoundError:
        return None, "the Hub has nothing of that name, or it is private"
    except refused as error:
        return None, f"the Hub did not answer: {said(error)}"


def _snapshot(folder: Path, revision: str) -> Path | None:
    ref = folder / "refs" / revision
    try:
        commit = ref.read_text().strip() if ref.is_file() else revision
    except OSError:
        return None
    snapshot = folder / "snapshots" / commit
    return snapshot if COMMIT.fullmatch(commit) and snapshot.is_dir() else None


def _cached(
    name: str, size: int, blobs: tuple[str, ...], folder: Path, snapshot: Path | None
) -> Path | None:
    """The file in the cache, by its blob, the store of all repositories, or its snapshot."""
    digest, hashed = blobs
    places = [folder / "blobs" / digest]
    if hashed:
        places.append(folder.parent / "blobs" / hashed[:2] / hashed)
    if snapshot is not None:
        places.append(snapshot / name)
    for place in places:
        try:
            if place.stat().st_size == size:
                return place
        except OSError:
            continue
    return None


def _from_cache(name: str, revision: str, folder: Path, snapshot: Path | None, why: str) -> HubRepo:
    if snapshot is None:
        doubt = f"{name} is neither a path here nor in the cache, and {why}"
        return HubRepo(id=name, revision=revision, files={}, source="measured", doubt=doubt)
    listing = read_listing(str(folder / "trees" / f"{snapshot.name}.json"))
    if listing is not None:
        files = {}
        for n, listed in listing.items():
            size = listed.lfs_size if listed.lfs_size is not None else listed.size
            blobs = (listed.lfs_sha256 or listed.blob_id, "")
            cached = _cached(n, size, blobs, folder, snapshot)
            files[n] = HubFile(name=n, bytes=size, path=cached)
        return HubRepo(id=name, revision=revision, files=files, source="listed")
    here = {str(path.relative_to(snapshot)): path for path in snapshot.rglob("*") if path.is_file()}
    return HubRepo(
        id=name,
        revision=revision,
        files={n: HubFile(name=n, bytes=p.stat().st_size, path=p) for n, p in here.items()},
        source="measured",
        doubt=f"whether all files of {name} are cached is not known: {why}",
    )
