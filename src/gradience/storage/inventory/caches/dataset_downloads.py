"""Raw files of datasets from elsewhere than the Hub: `<hash>`, with its address in `<hash>.json`.

Files of the Hub itself are not here: `datasets` has the Hub's client fetch them into the hub cache.
"""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from gradience.files.lock import is_held
from gradience.storage.inventory.caches.kind import (
    CacheKind,
    Listing,
    Look,
    Piece,
    entry,
    read_text,
    whole_entry,
)
from gradience.storage.inventory.caches.plain import other
from gradience.storage.inventory.records import Damage, Entry
from gradience.storage.inventory.scan import File
from gradience.storage.inventory.tally import BLOCK, Tally

_HOW = "Downloaded again when the dataset is built again."
_HUB_DATASET = re.compile(r"(?:https?://[^/]+/datasets/|hf://datasets/)([^/@]+/[^/@]+)")
_DOWNLOAD = re.compile(r"[0-9a-f]{64}(\.[0-9a-f]{64})?(\.py|\.h5)?(\.incomplete)?")
"""Hash of the address, and of its ETag (datasets 5.2, utils/file_utils.py); parts of downloads."""
_READ_AT_MOST = 20_000  # of the small .json files; a cache of millions is not worth minutes


def entries(look: Look) -> Listing:
    """One entry per dataset or host that the files came from."""
    files = {file.name: file for file in look.tree.files}
    groups: dict[str, list[File]] = {}
    for name, file in files.items():
        if _DOWNLOAD.fullmatch(name):
            few = len(files) <= 3 * _READ_AT_MOST
            source = source_of(f"{look.tree.path}/{name}.json") if few else ""
            groups.setdefault(source or "unknown origin", []).append(file)
    found = [_group(look, source, group, files) for source, group in groups.items()]
    found += [other(look, child, "datasets") for child in look.tree.dirs]
    return [*found, _rest(look, groups, files)], ""


def source_of(path: str) -> str:
    """The dataset a download belongs to, else the host it came from, else ""."""
    try:
        notes = msgspec.json.decode(read_text(path) or "", type=dict[str, str | None])
    except msgspec.DecodeError:
        return ""
    url = notes.get("url") or ""
    match = _HUB_DATASET.match(url)
    return match[1] if match else urlsplit(url).netloc


def _group(look: Look, source: str, group: Iterable[File], files: dict[str, File]) -> Entry:
    tally = Tally()
    damage = []
    for file in group:
        tally.add_file(file, look.tree.dev)
        for beside in (f"{file.name}.json", f"{file.name}.lock"):
            if beside in files:
                tally.add_untimed(files[beside], look.tree.dev)
        if file.name.endswith(".incomplete"):
            damage.append(_part(look, file))
    return entry(
        look,
        tally,
        what="downloads",
        name=source,
        path=look.tree.path,
        recoverable="download",
        how=_HOW,
        belongs_to=source if "/" in source else "",
        damage=damage,
    )


def _part(look: Look, file: File) -> Damage:
    stem = file.name.removesuffix(".incomplete")
    held = is_held(f"{look.tree.path}/{stem}.lock")
    return Damage(
        code="incomplete",
        path=f"{look.tree.path}/{file.name}",
        message=f"the download {stem[:12]} " + ("is running" if held else "was not finished"),
        physical_bytes=file.blocks * BLOCK,
        age_seconds=look.age(file.mtime),
        held=held,
    )


def _rest(look: Look, groups: dict[str, list[File]], files: dict[str, File]) -> Entry:
    """The directory itself, and notes and locks of files that are gone."""
    listed = {file.name for group in groups.values() for file in group}
    tally = Tally()
    tally.add_names(1 + look.tree.link_count, look.tree.blocks + look.tree.link_blocks)
    for name, file in files.items():
        stem = name.removesuffix(".json").removesuffix(".lock")
        if name not in listed and stem not in listed:
            tally.add_file(file, look.tree.dev)
    return entry(
        look,
        tally,
        what="bookkeeping",
        name="directories, locks and tags",
        path=look.tree.path,
        recoverable="rebuild",
        how="Made again as needed.",
    )


def pieces(look: Look, found: Entry) -> list[Piece]:
    """Each download with its note, under the lock that `datasets` takes; the lock file stays."""
    if found.what != "downloads":
        return whole_entry(look, found)
    files = {file.name: file for file in look.tree.files}
    return [
        Piece(
            names=(name, f"{name}.json") if f"{name}.json" in files else (name,),
            frees_bytes=file.frees_bytes,
            guard="lock_beside",
        )
        for name, file in files.items()
        if _DOWNLOAD.fullmatch(name)
        and (source_of(f"{look.tree.path}/{name}.json") or "unknown origin") == found.name
    ]


DATASET_DOWNLOADS = CacheKind(
    title="dataset downloads",
    holds="Raw files of datasets that came from elsewhere than the Hub.",
    recoverable="download",
    how=_HOW,
    variable="datasets_downloads",
    entries=entries,
    keep=lambda relative: not relative,
    pieces=pieces,
)
