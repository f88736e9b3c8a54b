"""Caches to read: the synthetic one with its ground truth, and small ones with chosen damage."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gradience.storage.inventory.caches import CACHES
from gradience.storage.inventory.caches.kind import Look
from gradience.storage.inventory.records import Cache, Entry, Inventory
from gradience.storage.inventory.scan import Root, scan
from gradience.storage.inventory.take import take
from gradience.storage.verify.records import PROBLEMS, Verification
from gradience.storage.verify.report import page
from gradience.storage.verify.run import verify

GENERATOR = Path(__file__).parents[2] / "shared" / "tools" / "gen_cache.py"
NOW = datetime.now(UTC)


def generate(
    out: Path, *, repos: int, files: int, seed: int = 0, shared: bool = False, damage: bool = True
) -> dict[str, int]:
    """The synthetic cache; returns its ground truth. Skips where the generator is not at hand."""
    if not GENERATOR.is_file():
        pytest.skip("../shared/tools/gen_cache.py is not beside this checkout")
    command = [sys.executable, str(GENERATOR), str(out), "--repos", str(repos)]
    command += ["--files", str(files), "--seed", str(seed), "--damage", str(int(damage))]
    subprocess.run(command + ["--shared"] * shared, check=True, capture_output=True)
    return json.loads((out / "manifest.json").read_text())


def environ_of(out: Path) -> dict[str, str]:
    """Variables that lead to the synthetic cache, and nowhere else."""
    return {
        "HF_HOME": str(out / "hf"),
        "TORCH_HOME": str(out / "torch"),
        "TORCHINDUCTOR_CACHE_DIR": str(out / "torchinductor_root"),
    }


def look_at(root: Path, kind: str, now: float | None = None) -> Look:
    """A directory as its kind would see it."""
    tree = scan([Root(str(root), CACHES[kind].keep)]).trees[0]
    assert tree is not None
    return Look(kind=kind, tree=tree, now=NOW.timestamp() if now is None else now)


def inventory_of(environ: Mapping[str, str], home: Path, **options: object) -> Inventory:
    return take(environ=environ, home=home, now=NOW, **options)  # type: ignore[arg-type]


def cache_of(inventory: Inventory, kind: str) -> Cache:
    return next(cache for cache in inventory.caches if cache.kind == kind)


def entry_of(cache: Cache, name: str) -> Entry:
    return next(entry for entry in cache.entries if entry.name == name)


def hub_cache(hub: Path) -> Cache:
    """The inventory of one hub cache."""
    return cache_of(inventory_of({"HF_HUB_CACHE": str(hub)}, hub.parent, kinds=["hub"]), "hub")


def du(*paths: Path) -> int:
    """Bytes on disk, as coreutils counts them."""
    done = subprocess.run(
        ["du", "-s", "-c", "-B1", *map(str, paths)], check=True, capture_output=True
    )
    return int(done.stdout.splitlines()[-1].split()[0])


def codes(entry: Entry) -> list[str]:
    return sorted(damage.code for damage in entry.damage)


def check(hub: Path, **options: object) -> Verification:
    """Verify one hub cache."""
    environ = {"HF_HUB_CACHE": str(hub)}
    return verify(environ=environ, home=hub.parent / "home", now=NOW, **options)  # type: ignore[arg-type]


def problems(found: Verification) -> list[str]:
    """Codes of the problems; each is a known one, and there is a page of them."""
    assert {p.code for p in found.problems} <= set(PROBLEMS)
    assert page(found)
    return [p.code for p in found.problems]


class HubMaker:
    """Writes a hub cache, file by file, as the client lays it out."""

    def __init__(self, hub: Path, *, shared: bool = False) -> None:
        self.hub = hub
        self.shared = shared
        hub.mkdir(parents=True)
        if shared:
            (hub / "blobs").mkdir()
            (hub / "blobs" / ".huggingface-shared-blobs").write_text("1\n")

    def repo(self, name: str, kind: str = "models") -> Path:
        return self.hub / f"{kind}--{name.replace('/', '--')}"

    def add(
        self,
        name: str,
        revision: str,
        files: Mapping[str, bytes],
        *,
        ref: str | None = "main",
        listing: bool = True,
    ) -> Path:
        """A revision with these files; `revision` is a digit or two that becomes a commit."""
        commit = commit_of(revision)
        repo = self.repo(name)
        snapshot = repo / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for path, data in files.items():
            blob = self._blob(repo, data)
            link = snapshot / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        if ref is not None:
            (repo / "refs").mkdir(exist_ok=True)
            (repo / "refs" / ref).write_text(commit)
        if listing:
            self._listing(repo, commit, files)
        return snapshot

    def _blob(self, repo: Path, data: bytes) -> Path:
        digest = hashlib.sha256(data).hexdigest()
        blob = repo / "blobs" / digest
        blob.parent.mkdir(exist_ok=True)
        if blob.exists() or not self.shared:
            blob.write_bytes(data)
            return blob
        xet = hashlib.sha256(b"xet" + data).hexdigest()
        payload = self.hub / "blobs" / xet[:2] / xet
        payload.parent.mkdir(exist_ok=True)
        payload.write_bytes(data)
        with payload.with_name(f"{xet}.refs").open("a") as manifest:
            manifest.write(f"{repo.name}/blobs/{digest}\n")
        blob.symlink_to(os.path.relpath(payload, blob.parent))
        return blob

    def _listing(self, repo: Path, commit: str, files: Mapping[str, bytes]) -> None:
        listed = {
            path: {
                "size": len(data),
                "blob_id": hashlib.sha1(b"blob %d\x00" % len(data) + data).hexdigest(),
                "lfs_sha256": hashlib.sha256(data).hexdigest(),
                "lfs_size": len(data),
            }
            for path, data in files.items()
        }
        tree = repo / "trees" / f"{commit}.json"
        tree.parent.mkdir(exist_ok=True)
        tree.write_text(json.dumps({"format_version": 1, "files": listed}))


def commit_of(revision: str) -> str:
    return (revision * 40)[:40]


def old_and_new(hub: Path, files: Mapping[str, bytes]) -> HubMaker:
    """A hub cache with `org/old`, unused for 90 days, and `org/new`, which has an orphan blob."""
    made = HubMaker(hub)
    made.add("org/old", "a", files)
    made.add("org/new", "b", {"x": b"x" * 9000})
    (made.repo("org/new") / "blobs" / "orphan").write_bytes(b"o" * 5000)
    then = time.time() - 90 * 86400
    for blob in (made.repo("org/old") / "blobs").iterdir():
        os.utime(blob, (then, then))
    return made


def repos(hub: HubMaker) -> set[str]:
    """Directories of repositories in a hub cache."""
    return {path.name for path in hub.hub.glob("models--*")}


class Caches:
    """`gradience cache` as a user runs it whose caches lie in one directory."""

    def __init__(self, home: Path, **environ: str) -> None:
        self.home = home
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
        kept |= {"HF_HOME": str(home / "hf"), "HOME": str(home), "COLUMNS": "150"}
        kept |= {"TORCHINDUCTOR_CACHE_DIR": str(home / "inductor")}
        self.environ = kept | environ

    def __call__(
        self, *words: object, stdin: str | None = None, **environ: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "gradience", "cache", *map(str, words)],
            env=self.environ | environ,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.home,
        )
