"""The Hugging Face Hub cache: repositories, their revisions, and the blobs these share.

    <hub>/models--org--name/blobs/<etag>              the bytes, or a link to the shared store
                           /snapshots/<commit>/...    links to blobs: what programs open
                           /refs/<branch>             a commit hash; written before the download
                           /trees/<commit>.json       what the commit holds, as the Hub said
                           /.no_exist/<commit>/...    files that were asked for and are not there
    <hub>/.locks/<repo>/<etag>.lock                   held while that blob is downloaded
    <hub>/blobs/<2 hex>/<xet hash>[.refs|.lock]       the shared store (huggingface_hub >= 1.32)

A blob is freed when the last snapshot that links to it goes; a shared blob, when the last repo's
blob does. That is counted here, link by link. Read from the source of huggingface_hub 2.4:
file_download.py, utils/_cache_manager.py, utils/_shared_blobs.py, _tree_cache.py.
"""

import re
from collections import Counter
from collections.abc import Iterator

from gradience.storage.inventory.caches.hub_repo import Repo, read_repo
from gradience.storage.inventory.caches.hub_store import Store, read_store, store_entry
from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, entry
from gradience.storage.inventory.caches.plain import other
from gradience.storage.inventory.records import Entry
from gradience.storage.inventory.tally import Tally

_REPO = re.compile(r"(model|dataset|space)s--(.+)")  # as utils/_shared_blobs.py and _cache_manager
_AGAIN = "Downloaded again on next use, if the repository is still there and open to you."


def entries(look: Look) -> Listing:
    """Repositories, the shared store, and what lies between."""
    found_repos, store = repos(look)
    users = Counter(name for repo in found_repos for name in repo.store_blobs)
    found = [repo.entry(look, users) for repo in found_repos]
    found += store_entry(look, store, users)
    found += _linked(look)
    found += _others(look, store, {repo.directory.name for repo in found_repos})
    return found, store.layout


def repos(look: Look) -> tuple[list[Repo], Store]:
    """The repositories of a hub cache, and the store they share."""
    store = read_store(look.tree)
    lock_dir = look.tree.child(".locks")
    locks = {d.name: d for d in lock_dir.dirs} if lock_dir else {}
    found = []
    for directory in look.tree.dirs:
        match = _REPO.fullmatch(directory.name)
        if match:
            found.append(
                read_repo(
                    look,
                    directory,
                    repo_type=match[1],
                    folder=match[2],
                    store=store,
                    locks=locks,
                )
            )
    return found, store


def _linked(look: Look) -> Iterator[Entry]:
    """Repositories that were moved to another disk and left a link, which programs follow."""
    for name, target, _ in look.tree.links:
        match = _REPO.fullmatch(name)
        if match:
            yield entry(
                look,
                Tally(),  # the link itself is counted with the directory it lies in
                what="link",
                name=match[2].replace("--", "/"),
                path=f"{look.tree.path}/{name}",
                recoverable="unknown",
                how=f"A link to {target}: what lies there is not counted here.",
                repo_type=match[1],
            )


def _others(look: Look, store: Store, known: set[str]) -> Iterator[Entry]:
    """Locks of repos that are gone, tags, and directories that are no repo."""
    rest = Tally()
    for directory in look.tree.dirs:
        if directory.name == ".locks":
            rest.add_dir(directory)
            for locks in directory.dirs:
                if locks.name not in known:
                    rest.add_tree(locks)
        elif directory.name not in known and directory is not store.directory:
            yield other(look, directory, "the Hub's client")
    rest.add_dir(look.tree)
    yield entry(
        look,
        rest,
        what="bookkeeping",
        name="locks and tags",
        path=look.tree.path,
        recoverable="rebuild",
        how="Made again as needed.",
    )


def _keep(relative: str) -> bool:
    """Names of locks and of absent files are not needed."""
    return not relative.startswith(".locks/") and "/.no_exist/" not in relative


HUB = CacheKind(
    title="Hugging Face Hub",
    holds="Models, datasets and spaces as downloaded from the Hub: blobs, and snapshots of links.",
    recoverable="download",
    how=_AGAIN,
    variable="hub",
    entries=entries,
    keep=_keep,
)
