"""Facts for the doctor's rules: a healthy machine, and pieces to make it ill."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gradience.findings import Finding
from gradience.storage.doctor.facts import (
    Assignment,
    Candidate,
    Facts,
    Import,
    Interpreter,
    Library,
    Place,
    Program,
    Room,
    Use,
)
from gradience.storage.doctor.questions import LOGIN, MODELS, QUESTIONS
from gradience.storage.doctor.rules import examine
from gradience.storage.inventory.records import Cache, Damage, Entry, Inventory
from gradience.system.records import Mount

HOME = Path("/home/me")
GB = 10**9
VERSIONS = {"huggingface_hub": "2.4.0", "transformers": "5.23.0", "torch": "2.13.0"}


def use(library: str = "huggingface_hub", purpose: str = MODELS, path: str = "", answer: str = ""):
    path = path or str(HOME / ".cache/huggingface/hub")
    return Use(
        library=library,
        purpose=purpose,
        path=path,
        answer=answer or path,
        variables=tuple(QUESTIONS[library].variables[purpose]),
    )


def interpreter(*uses: Use, versions: dict[str, str] | None = None) -> Interpreter:
    versions = VERSIONS if versions is None else versions
    libraries = tuple(
        Library(name=n, version=v, uses=tuple(u for u in uses if u.library == n))
        for n, v in {**{u.library: "1" for u in uses}, **versions}.items()
    )
    return Interpreter(
        executable="/venv/bin/python", version="3.11.7", libraries=libraries, distributions=versions
    )


def mount(path: str = "/", free: int = 300 * GB, total: int = 500 * GB, **more: Any) -> Mount:
    values = {"device": "/dev/sda", "fs_type": "ext4", "free_inodes": 10**7, **more}
    return Mount(path=Path(path), free_bytes=free, total_bytes=total, **values)


def place(path: str, **more: Any) -> Place:
    values = {
        "existing": Path(path),
        "resolved": Path(path),
        "kind": "directory",
        "writable": True,
        "owner": "me",
        "group": "me",
        "mode": 0o755,
        **more,
    }
    return Place(path=Path(path), **values)


def facts(*uses: Use, on: Mount | None = None, **more: Any) -> Facts:
    """A healthy machine with one disk; every use lies on `on`."""
    uses = uses or (use(), use(purpose=LOGIN, path=str(HOME / ".cache/huggingface/token")))
    disk = on or mount()
    values: dict[str, Any] = {
        "environ": {},
        "home": HOME,
        "cwd": Path("/work"),
        "user": "me",
        "group": "me",
        "interpreter": interpreter(*uses),
        "places": {u.path: place(u.path) for u in uses},
        "mount_of": {u.path: disk for u in uses},
        "candidates": (Candidate(path=HOME / ".cache", mount=mount()),),
        "rooms": (
            Room(
                path=disk.path,
                places=tuple(u.path for u in uses),
                free_bytes=disk.free_bytes,
                free_inodes=disk.free_inodes,
                limit="ext4",
            ),
        ),
        **more,
    }
    inventoried = values.get("inventory")
    values["roots"] = {
        **{c.root: place(c.root) for c in (inventoried.caches if inventoried else ())},
        **values.get("roots", {}),
    }
    return Facts(**values)


def with_room(healthy: Facts, **changes: Any) -> Facts:
    return dataclasses.replace(
        healthy, rooms=tuple(dataclasses.replace(r, **changes) for r in healthy.rooms)
    )


def program(*events: Import | Assignment, words: tuple[str, ...] = ("python", "t.py"), **more: Any):
    numbered = [dataclasses.replace(e, order=i) for i, e in enumerate(events, start=1)]
    return Program(
        words=words,
        script=Path("/jobs/t.py"),
        imports=tuple(e for e in numbered if isinstance(e, Import)),
        assignments=tuple(e for e in numbered if isinstance(e, Assignment)),
        **more,
    )


def repo(name: str, path: str, *revisions: str, size: int = GB, damage: Iterable[Damage] = ()):
    sizes = {
        "physical_bytes": size,
        "logical_bytes": size,
        "shared_bytes": 0,
        "frees_bytes": size,
        "files": 3,
        "inodes": 9,
        "recoverable": "download",
        "how": "",
    }
    parts = tuple(
        Entry(
            kind="hub", what="revision", name=r, path=f"{path}/snapshots/{r}", revision=r, **sizes
        )
        for r in revisions
    )
    return Entry(
        kind="hub",
        what="repo",
        name=name,
        path=path,
        repo_type="model",
        parts=parts,
        damage=tuple(damage),
        **sizes,
    )


def cache(root: str, *entries: Entry, kind: str = "hub", layout: str = "repo blobs", **more: Any):
    values = {"unreadable": (), "unreadable_count": 0, "device": 1, "inodes": 1}
    values |= {"chosen_by": "default", **more}
    return Cache(
        kind=kind,
        title=kind,
        root=root,
        holds="",
        recoverable="download",
        how="",
        entries=entries,
        physical_bytes=sum(e.physical_bytes for e in entries),
        logical_bytes=0,
        shared_bytes=0,
        frees_bytes=0,
        files=1,
        layout=layout,
        **values,
    )


def inventory(*caches: Cache) -> Inventory:
    return Inventory(
        caches=caches,
        absent={},
        physical_bytes=0,
        logical_bytes=0,
        made=0.0,
        seconds=0.0,
        threads=1,
    )


def found(ill: Facts, code: str) -> list[Finding]:
    """The findings of that code, of all rules together."""
    return [f for f in examine(ill) if f.code == code]
