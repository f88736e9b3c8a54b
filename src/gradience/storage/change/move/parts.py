"""What a name is when two caches become one: brought, already said by the other, or left out. Pure.

The layouts are those of huggingface_hub 2.4 (file_download.py, utils/_shared_blobs.py).
"""

import enum
import os
import re
from collections.abc import Iterable, Mapping

from gradience.paths import SET_ASIDE
from gradience.storage.change.move.tree import Node

HOPS = 8
BOOKKEEPING = frozenset({"version.txt", "CACHEDIR.TAG", "blobs", ".locks", SET_ASIDE})
"""Beside the repositories of a hub cache; none of them says what a directory is."""
_REPO = r"(?:model|dataset|space|kernel)s--[^/]+"
_IS_REPO = re.compile(_REPO)
_IN_REPO = re.compile(rf"(?:^|.*/){_REPO}/.+")
_POINTER = re.compile(rf"(?:^|.*/)(?:{_REPO}/(?:refs/.+|trees/[^/]+\.json)|CACHEDIR\.TAG)")
_LOCKS = re.compile(r"\.locks(?:/.*)?|(?:.*/)\.locks/(?:model|dataset|space|kernel)s--.*")
_LEFT_OUT = re.compile(
    rf"(?:^|.*/)(?:{_REPO}/blobs/[^/]+\.incomplete|blobs/[0-9a-f]{{2}}/[0-9a-f]{{64}}\.(?:refs|lock))"
)
_SHARED = re.compile(r"(?:(?P<hub>.*)/)?blobs/(?P<shelf>[0-9a-f]{2})/(?P=shelf)[0-9a-f]{62}")
_USER = re.compile(rf"(?:(?P<hub>.*)/)?(?P<line>{_REPO}/blobs/[^/]+)")


class Part(enum.Enum):
    """What becomes of a name."""

    CONTENT = "it is in both afterwards, with the same bytes"
    SHARED = "a shared blob: it comes with the first link to it, under its lock"
    POINTER = "a name of a commit, a list of its files, a tag: what is there already stands"
    LEFT_OUT = "nothing that is missed: locks of the Hub, half a download, a link to nothing"


def parts_of(nodes: Iterable[Node]) -> dict[str, Part]:
    """What becomes of each name below a directory."""
    by_name = {node.name: node for node in nodes}
    users = {store for node in by_name.values() if (store := shared_blob(node, by_name))}
    return {name: _part(node, by_name, users) for name, node in by_name.items()}


def _part(node: Node, by_name: Mapping[str, Node], users: set[str]) -> Part:
    if node.name.startswith(f"{SET_ASIDE}/"):
        return Part.CONTENT  # trash: a link there leads somewhere again when it is brought back
    if _LOCKS.fullmatch(node.name) or (not node.is_dir and _LEFT_OUT.fullmatch(node.name)):
        return Part.LEFT_OUT
    if node.is_file and _SHARED.fullmatch(node.name):
        return Part.SHARED if node.name in users else Part.LEFT_OUT
    if node.is_link:
        leads = node.target.startswith("/") or final(node, by_name) is not None
        return Part.CONTENT if leads or not _IN_REPO.fullmatch(node.name) else Part.LEFT_OUT
    empty_lock = node.is_file and node.name.endswith(".lock") and not node.status.st_size
    pointer = node.is_file and _POINTER.fullmatch(node.name)
    return Part.POINTER if pointer or empty_lock else Part.CONTENT


def shared_blob(node: Node, by_name: Mapping[str, Node]) -> str:
    """The shared blob that a repository's blob leads to; "" where it leads to none."""
    user = _USER.fullmatch(node.name)
    if user is None or not node.is_link:
        return ""
    name = leads_to(node)
    store = _SHARED.fullmatch(name)
    if store is None or store["hub"] != user["hub"] or name not in by_name:
        return ""
    return name


def line_of(user: str) -> str:
    """How the list of a shared blob's users names a repository's blob."""
    match = _USER.fullmatch(user)
    return match["line"] if match else user


def leads_to(node: Node) -> str:
    """The name, relative to the same directory, that a relative link says."""
    above = os.path.dirname(node.name)  # noqa: PTH120 - text, perhaps no UTF-8
    return os.path.normpath(os.path.join(above, node.target))  # noqa: PTH118


def final(node: Node, by_name: Mapping[str, Node]) -> Node | None:
    """The file or directory that links lead to inside of the directory; None where nothing is."""
    found: Node | None = node
    for _ in range(HOPS):
        if found is None or not found.is_link:
            return found
        found = by_name.get(leads_to(found))
    return None


def is_hub(names: Iterable[str]) -> bool:
    """Whether these names in a directory are those of a hub cache."""
    return any(_IS_REPO.fullmatch(name) for name in names)


def may_be_hub(names: Iterable[str]) -> bool:
    """Whether a hub cache may have these names: one from which all repositories went, too."""
    names = set(names)
    return is_hub(names) or names <= BOOKKEEPING


def order(node: Node, part: Part) -> tuple[int, list[str]]:
    """Directories, then blobs, then links to them, then refs: what is named is there already."""
    if node.is_dir:
        rank = 0
    elif part is Part.POINTER:
        rank = 4
    elif node.is_file:
        rank = 1
    else:
        rank = 2 if _USER.fullmatch(node.name) else 3
    return rank, node.name.split("/")
