"""What a name is when two caches of the Hub become one: brought, said already, or left out. Pure.

What is not known is content. The layouts are those of huggingface_hub 2.4 (file_download.py,
utils/_shared_blobs.py); a name counts only where that client would have put it.
"""

import enum
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set

from gradience.hub_ids import COMMIT
from gradience.paths import SET_ASIDE
from gradience.storage.change.move.tree import Node

HOPS = 8
BOOKKEEPING = frozenset({"version.txt", "CACHEDIR.TAG", "blobs", ".locks", SET_ASIDE})
"""Beside the repositories of a hub cache; none of them says what a directory is."""
PROBE = ".gradience-probe-"
"""Begins the name of a file that is made for a moment, to see whether two directories are one."""
STORE_MARKER = "blobs/.huggingface-shared-blobs"
_REPO = r"(?:model|dataset|space|kernel)s--[^/]+"
_IS_REPO = re.compile(_REPO)
_STORED = re.compile(r"blobs/([0-9a-f]{2})/\1[0-9a-f]{62}")
_USER = re.compile(rf"{_REPO}/blobs/[^/]+")
_COMMIT = re.compile(rf"({_REPO}/snapshots/[^/]+)(?:/.+)?", re.DOTALL)
_LINKING = re.compile(rf"{_REPO}/(?:blobs/[^/]+|snapshots/.+)", re.DOTALL)
_REF = re.compile(rf"{_REPO}/refs/.+", re.DOTALL)
_POINTER = re.compile(
    rf"{_REF.pattern}|{_REPO}/trees/[^/]+\.json|CACHEDIR\.TAG|version\.txt", re.DOTALL
)
_LEFT_OUT = re.compile(
    rf"\.locks/.+\.(?:lock|soft)|{re.escape(PROBE)}[0-9a-f]+|{_REPO}/blobs/[^/]+\.incomplete"
    r"|blobs/[0-9a-f]{2}/[0-9a-f]{64}\.(?:refs|lock|lock\.soft)",
    re.DOTALL,
)


class Part(enum.Enum):
    """What becomes of a name."""

    CONTENT = "it is in both afterwards, with the same bytes"
    POINTER = "a name of a commit, a list of its files, a tag: what is there stands if it leads on"
    LEFT_OUT = "nothing that is missed: locks and lists of the Hub, half a download, a broken link"


def parts_of(by_name: Mapping[str, Node]) -> dict[str, Part]:
    """What becomes of each name below a hub cache."""
    used = {leads_to(node) for node in by_name.values() if node.is_link}
    return {name: _part(node, by_name, used) for name, node in by_name.items()}


def _part(node: Node, by_name: Mapping[str, Node], used: Set[str]) -> Part:
    if node.is_link:
        broken = _LINKING.fullmatch(node.name) and _leads_nowhere(node, by_name)
        return Part.LEFT_OUT if broken else Part.CONTENT
    if node.is_file and _LEFT_OUT.fullmatch(node.name) and node.name not in used:
        return Part.LEFT_OUT
    return Part.POINTER if node.is_file and _POINTER.fullmatch(node.name) else Part.CONTENT


def _leads_nowhere(node: Node, by_name: Mapping[str, Node], hops: int = HOPS) -> bool:
    """Whether it is certain that nothing is where a link leads: in here, and by no other link."""
    name = leads_to(node)
    if node.target.startswith("/") or name.split("/")[0] == ".." or not hops:
        return False
    if "/../" in node.target.lstrip("./"):  # back from a directory that may be a link
        return False
    above = ""
    for part in name.split("/")[:-1]:
        above = f"{above}/{part}".lstrip("/")
        if above not in by_name:
            return True
        if by_name[above].is_link:
            return False
    found = by_name.get(name)
    return found is None or (found.is_link and _leads_nowhere(found, by_name, hops - 1))


def is_stored(node: Node) -> bool:
    """Whether it is a blob of the shared store."""
    return node.is_file and _STORED.fullmatch(node.name) is not None


def users_of(by_name: Mapping[str, Node]) -> dict[str, list[Node]]:
    """The blobs of repositories that lead to each shared blob."""
    found: dict[str, list[Node]] = defaultdict(list)
    for node in by_name.values():
        if node.is_link and _USER.fullmatch(node.name):
            stored = by_name.get(leads_to(node))
            if stored is not None and is_stored(stored):
                found[stored.name].append(node)
    return found


def commit_of(name: str) -> str:
    """The directory of the revision that a name is, or lies in; "" where it is none."""
    match = _COMMIT.fullmatch(name)
    return match[1] if match else ""


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


class Stage(enum.IntEnum):
    """When a name is made: what is named comes before what names it."""

    DIRECTORY = 0
    MARKER = 1
    STORED = 2
    FILE = 3
    LINK = 4
    REVISION = 5
    POINTER = 6


def is_ref(name: str) -> bool:
    """Whether it names a commit."""
    return _REF.fullmatch(name) is not None


def revision_of(ref: str, commit: str) -> str:
    """The directory of the revision that a ref names; "" if that is no commit."""
    return f"{ref.partition('/')[0]}/snapshots/{commit}" if COMMIT.fullmatch(commit) else ""


def stage_of(node: Node, part: Part) -> Stage:
    """When it is made."""
    if commit_of(node.name):
        return Stage.REVISION
    if node.is_dir:
        return Stage.DIRECTORY
    if node.name == STORE_MARKER:
        return Stage.MARKER
    if is_stored(node):
        return Stage.STORED
    if part is Part.POINTER:
        return Stage.POINTER
    return Stage.FILE if node.is_file else Stage.LINK
