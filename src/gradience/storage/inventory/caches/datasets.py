"""Arrow files of `datasets`: `<cache>/<org>___<name>/<config>/<version>/<hash>/`.

A build holds the shards of a dataset, and beside them `cache-<fingerprint>.arrow`: the results of
map(), filter() and shuffle(), which nothing removes and which are often larger. `tmp*` files are
results whose program died. Read from the source of datasets 5.2: builder.py, arrow_dataset.py.
"""

import re
from collections.abc import Iterator

from gradience.storage.inventory.caches.kind import (
    CacheKind,
    Listing,
    Look,
    Piece,
    entry,
    piece_of,
    whole_entry,
)
from gradience.storage.inventory.caches.plain import other, rest
from gradience.storage.inventory.records import Damage, Entry
from gradience.storage.inventory.scan import Directory, File
from gradience.storage.inventory.tally import BLOCK, Tally

_BUILT = "Built again from the raw files, which lie in the hub cache or are downloaded again."
_MAPPED = "Computed again by the program that called map()."
_TEMPORARY = re.compile(r"tmp[0-9a-z_]{8}")  # tempfile.NamedTemporaryFile
_INCOMPLETE = ".incomplete"
_BUILD = re.compile(r"[^/]+/\d+\.\d+\.\d+[^/]*(/[^/]+)?")  # config, version, and mostly a hash


def entries(look: Look) -> Listing:
    """One entry per dataset, with its builds and the results of map() as parts."""
    return [*(_dataset(look, d) for d in look.tree.dirs), rest(look, look.tree)], ""


def _dataset(look: Look, directory: Directory) -> Entry:
    name = directory.name.replace("___", "/")
    builds = [_build(look, build, directory, name) for build in _builds(directory)]
    if not _is_dataset(directory, builds):
        return other(look, directory, "load_dataset", name)
    return entry(
        look,
        Tally().add_tree(directory),
        what="dataset",
        name=name,
        path=directory.path,
        recoverable="rebuild",
        how=_BUILT,
        damage=[damage for build in builds for damage in build.damage],
        parts=builds,
    )


def _is_dataset(directory: Directory, builds: list[Entry]) -> bool:
    """Whether it has the layout of a cached dataset: a shared disk may be this cache's directory,
    and what else lies there (also what `save_to_disk` wrote) nobody can build again.
    """
    loose = any(not file.name.endswith(".lock") for file in directory.files)
    return not loose and all(_BUILD.fullmatch(build.name) for build in builds)


def _builds(directory: Directory) -> Iterator[Directory]:
    """Directories that hold files; deeper ones belong to the first that does."""
    stack = list(directory.dirs)
    while stack:
        found = stack.pop()
        if any(not file.name.endswith(".lock") for file in found.files):
            yield found
        else:
            stack += found.dirs


def _build(look: Look, build: Directory, dataset: Directory, name: str) -> Entry:
    mapped, temporary = _loose(build)
    label = build.path.removeprefix(f"{dataset.path}/")
    unfinished = build.name.endswith(_INCOMPLETE)
    damage = list(_left(look, build, temporary))
    if unfinished:
        damage.append(_unfinished(look, build, label))
    return entry(
        look,
        Tally().add_tree(build),
        what="build",
        name=label,
        path=build.path,
        recoverable="rebuild",
        how=_BUILT,
        belongs_to=name,
        damage=damage,
        parts=_results(look, build, mapped, name),
    )


def _loose(build: Directory) -> tuple[list[File], list[File]]:
    mapped = [f for f in build.files if f.name.startswith("cache-") and f.name.endswith(".arrow")]
    return mapped, [f for f in build.files if _TEMPORARY.fullmatch(f.name)]


def _results(look: Look, build: Directory, files: list[File], name: str) -> list[Entry]:
    """The results of map() that lie beside a build, as one part."""
    if not files:
        return []
    tally = Tally()
    for file in files:
        tally.add_file(file, build.dev)
    found = entry(
        look,
        tally,
        what="map_results",
        name=f"{len(files)} results of map()",
        path=build.path,
        recoverable="rebuild",
        how=_MAPPED,
        belongs_to=name,
    )
    return [found]


def _left(look: Look, build: Directory, files: list[File]) -> Iterator[Damage]:
    for file in files:
        yield Damage(
            code="temporary",
            path=f"{build.path}/{file.name}",
            message=f"{file.name}: a result of map() that was not finished",
            physical_bytes=file.blocks * BLOCK,
            age_seconds=look.age(file.mtime),
        )


def _unfinished(look: Look, build: Directory, label: str) -> Damage:
    tally = Tally().add_tree(build)
    return Damage(
        code="incomplete",
        path=build.path,
        message=f"{label}: a build that was not finished",
        physical_bytes=tally.physical_bytes,
        age_seconds=look.age(tally.mtime) if tally.mtime else None,
    )


def pieces(look: Look, found: Entry) -> list[Piece]:
    """The files of the results of map(); anything else is one directory."""
    if found.what != "map_results":
        return whole_entry(look, found)
    build = look.below(found.path)
    mapped, _ = _loose(build) if build is not None else ([], [])
    return [piece_of(look, f"{found.path}/{file.name}", file) for file in mapped]


DATASETS = CacheKind(
    title="datasets",
    holds="Arrow copies of datasets, uncompressed, and results of map(); not the raw downloads.",
    recoverable="rebuild",
    how=_BUILT,
    variable="datasets",
    entries=entries,
    keep=lambda relative: relative.count("/") < 5,
    pieces=pieces,
)
