"""The hub cache: exact to the byte, and nothing damaged is hidden."""

import fcntl
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from factories_caches import (
    NOW,
    HubMaker,
    codes,
    commit_of,
    du,
    entry_of,
    environ_of,
    generate,
    hub_cache,
    inventory_of,
)
from gradience.storage.inventory.records import Cache, Entry

BIG = 400_000


def repos(cache: Cache) -> list[Entry]:
    return [entry for entry in cache.entries if entry.what == "repo"]


# --- the synthetic cache ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("damage", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_the_numbers_are_those_of_the_generator(tmp_path, seed, damage, shared):
    truth = generate(tmp_path, repos=24, files=8, seed=seed, shared=shared, damage=damage)
    hub = hub_cache(tmp_path / "hf" / "hub")
    found = repos(hub)
    revisions = [part for repo in found for part in repo.parts]
    assert len(found) == truth["repos"]
    assert len(revisions) == truth["revisions"]
    assert sum(not part.refs for part in revisions) == truth["detached"]
    assert hub.layout == ("shared blobs v1" if shared else "repo blobs")
    assert hub.physical_bytes == du(tmp_path / "hf" / "hub")
    noticed = Counter(damage.code for entry in hub.entries for damage in entry.damage)
    assert noticed["incomplete"] == truth["incomplete"]
    assert noticed["broken_link"] == truth["broken_links"]
    assert noticed["stale_ref"] == truth["dangling_refs"]
    assert noticed["orphan_blob"] == len(orphans(tmp_path / "hf" / "hub"))
    assert noticed["orphan_blob"] >= truth["orphan_blobs"]
    assert sum(noticed.values()) == 0 or damage
    root = tmp_path / "hf" / "hub"
    files = [p for p in root.rglob("*") if p.is_file() and not p.is_symlink()]
    notes = sum(p.stat().st_size for p in files if not is_blob(p, root))
    blobs = truth["blob_bytes"] + truth["orphan_bytes"] + truth["incomplete_bytes"]
    assert hub.logical_bytes == blobs + notes


def orphans(hub: Path) -> set[Path]:
    """Blobs that no link of any snapshot leads to, found the slow way."""
    linked = {
        Path(os.path.normpath(link.parent / link.readlink()))
        for link in hub.glob("*/snapshots/**/*")
        if link.is_symlink()
    }
    blobs = {blob for blob in hub.glob("*--*/blobs/*") if ".incomplete" not in blob.name}
    return blobs - linked


def is_blob(path: Path, hub: Path) -> bool:
    of_repo = path.parent.name == "blobs" and path.parent.parent.parent == hub
    of_store = path.parent.parent == hub / "blobs" and not path.suffix
    return of_repo or of_store


@pytest.mark.parametrize("shared", [True, False])
def test_blobs_that_repos_share_are_counted_once(tmp_path, shared):
    truth = generate(tmp_path, repos=110, files=3, shared=shared, damage=False)
    hub = hub_cache(tmp_path / "hf" / "hub")
    assert (truth["cross_repo_dup_bytes"] > 0) == shared
    assert hub.physical_bytes == du(tmp_path / "hf" / "hub")
    alone = sum(entry.physical_bytes - entry.shared_bytes for entry in hub.entries)
    assert (alone < hub.physical_bytes) == shared
    once = {e.name: e.shared_bytes for e in repos(hub) if e.shared_bytes}
    assert len(once) == (4 if shared else 0)  # two payloads, two repos each


def test_every_other_cache_of_the_generator_is_exact(tmp_path):
    generate(tmp_path, repos=2, files=4)
    found = inventory_of(environ_of(tmp_path), tmp_path / "home", projects=[tmp_path / "outputs"])
    roots = [tmp_path / "hf", tmp_path / "torch", tmp_path / "torchinductor_root"]
    assert found.physical_bytes == du(*roots, tmp_path / "outputs")
    for cache in found.caches:
        if cache.kind != "project":
            listed = sum(entry.physical_bytes for entry in cache.entries)
            assert listed == cache.physical_bytes, cache.kind


# --- what deleting would free: forecast, then do it and measure ---------------------------------


def delete_revision(hub: Path, repo: Path, commit: str) -> None:
    shutil.rmtree(repo / "snapshots" / commit)
    (repo / "trees" / f"{commit}.json").unlink()
    shutil.rmtree(repo / ".no_exist" / commit, ignore_errors=True)
    sweep(hub)


def delete_repo(hub: Path, repo: Path) -> None:
    shutil.rmtree(repo)
    shutil.rmtree(hub / ".locks" / repo.name, ignore_errors=True)
    sweep(hub)


def sweep(hub: Path) -> None:
    """Remove every blob that nothing links to any more."""
    for blob in orphans(hub):
        blob.unlink()
    used = {Path(os.path.realpath(blob)) for blob in hub.glob("*--*/blobs/*")}
    for payload in (hub / "blobs").glob("*/*"):
        if len(payload.name) == 64 and payload not in used:
            payload.unlink()
            payload.with_name(f"{payload.name}.refs").unlink()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("seed", [3, 4])
def test_deleting_a_thing_frees_what_was_said(tmp_path, shared, seed):
    generate(tmp_path / "c", repos=3, files=6, seed=seed, shared=shared, damage=False)
    hub = tmp_path / "c" / "hf" / "hub"
    for repo in repos(hub_cache(hub)):
        for part in [*repo.parts, repo]:
            copy = tmp_path / "copy"
            # Not copytree: it would write out the holes, gigabytes of them.
            subprocess.run(["cp", "-a", "--sparse=always", str(hub), str(copy)], check=True)
            expected = entry_of(hub_cache(copy), repo.name)
            if part is not repo:
                expected = next(p for p in expected.parts if p.name == part.name)
            before = du(copy)
            target = copy / Path(repo.path).name
            if part is repo:
                delete_repo(copy, target)
            else:
                delete_revision(copy, target, part.name)
            assert before - du(copy) == expected.frees_bytes, part.name
            shutil.rmtree(copy)


@pytest.mark.parametrize("shared", [True, False])
def test_a_file_of_two_revisions_is_freed_by_neither_alone(tmp_path, shared):
    hub = HubMaker(tmp_path / "hub", shared=shared)
    same, own = b"s" * BIG, b"o" * BIG
    hub.add("org/m", "1", {"same.bin": same})
    hub.add("org/m", "2", {"same.bin": same, "own.bin": own})
    first, second = sorted(entry_of(hub_cache(hub.hub), "org/m").parts, key=lambda p: p.name)
    assert first.shared_bytes >= BIG
    assert first.frees_bytes < BIG < second.frees_bytes < 2 * BIG


def test_a_file_of_two_repos_is_freed_by_neither_alone(tmp_path):
    hub = HubMaker(tmp_path / "hub", shared=True)
    hub.add("org/a", "1", {"w.bin": b"s" * BIG})
    hub.add("org/b", "1", {"w.bin": b"s" * BIG, "own.bin": b"o" * BIG})
    cache = hub_cache(hub.hub)
    a, b = entry_of(cache, "org/a"), entry_of(cache, "org/b")
    assert a.shared_bytes >= BIG
    assert a.frees_bytes < BIG < b.frees_bytes
    assert a.physical_bytes >= BIG


def test_a_blob_with_a_hard_link_outside_frees_nothing(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    hub.add("org/a", "1", {"w.bin": b"s" * BIG})
    (blob,) = (hub.repo("org/a") / "blobs").iterdir()
    os.link(blob, tmp_path / "elsewhere")
    cache = hub_cache(hub.hub)
    entry = entry_of(cache, "org/a")
    assert entry.shared_bytes == entry.parts[0].shared_bytes == du(blob)
    assert cache.shared_bytes == du(blob)
    assert entry.frees_bytes < BIG < entry.physical_bytes


def test_files_copied_into_a_snapshot_belong_to_it(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    snapshot = hub.add("org/a", "1", {})
    (snapshot / "w.bin").write_bytes(b"s" * BIG)  # as with HF_HUB_DISABLE_SYMLINKS
    entry = entry_of(hub_cache(hub.hub), "org/a")
    assert codes(entry) == []
    assert entry.parts[0].frees_bytes > BIG


# --- damage --------------------------------------------------------------------------------------


def test_a_broken_link_is_listed_with_its_repo(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    hub.add("org/a", "1", {"x/w.bin": b"s" * BIG, "c.json": b"{}"})
    for blob in (hub.repo("org/a") / "blobs").iterdir():
        if blob.stat().st_size == BIG:
            blob.unlink()
    (damage,) = entry_of(hub_cache(hub.hub), "org/a").damage
    assert (damage.code, damage.path[-8:]) == ("broken_link", "/x/w.bin")


def test_a_link_to_a_lost_shared_blob_is_told(tmp_path):
    hub = HubMaker(tmp_path / "hub", shared=True)
    hub.add("org/a", "1", {"w.bin": b"s" * BIG})
    for payload in (tmp_path / "hub" / "blobs").glob("*/*"):
        payload.unlink()
    assert codes(entry_of(hub_cache(hub.hub), "org/a")) == ["broken_store_link"]


def test_a_ref_without_a_snapshot_is_stale_and_a_ref_of_rubbish_unreadable(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    hub.add("org/a", "1", {"c.json": b"{}"})
    refs = hub.repo("org/a") / "refs"
    (refs / "old").write_text(commit_of("9"))
    (refs / "pr").mkdir()
    (refs / "pr" / "1").write_bytes(b"\xff\xfe rubbish")
    os.mkfifo(refs / "pipe")
    found = entry_of(hub_cache(hub.hub), "org/a")
    assert codes(found) == ["stale_ref", "unreadable_ref"]
    assert found.refs == ("main", "old", "pr/1")


def test_a_download_under_way_is_told_from_one_that_died(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    hub.add("org/a", "1", {"c.json": b"{}"})
    busy, dead = "b" * 64, "d" * 64
    blobs, locks = hub.repo("org/a") / "blobs", hub.hub / ".locks" / "models--org--a"
    (blobs / f"{busy}.12345678.incomplete").write_bytes(b"x" * 5000)
    (blobs / f"{dead}.incomplete").write_bytes(b"x" * 5000)
    os.utime(blobs / f"{dead}.incomplete", (NOW.timestamp() - 9000,) * 2)
    locks.mkdir(parents=True)
    for name in (busy, dead):
        (locks / f"{name}.lock").touch()
    with (locks / f"{busy}.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = {
            d.path.rpartition("/")[2][0]: d for d in entry_of(hub_cache(hub.hub), "org/a").damage
        }
    assert (found["b"].held, found["d"].held) == (True, False)
    assert found["d"].age_seconds is not None
    assert 8999 < found["d"].age_seconds < 9001
    assert found["b"].physical_bytes == du(blobs / f"{busy}.12345678.incomplete")


def test_orphans_of_a_repo_and_of_the_store_are_told(tmp_path):
    hub = HubMaker(tmp_path / "hub", shared=True)
    hub.add("org/a", "1", {"w.bin": b"s" * BIG})
    hub.add("org/b", "1", {"v.bin": b"t" * BIG})
    shutil.rmtree(hub.repo("org/b"))
    (hub.repo("org/a") / "blobs" / ("e" * 64)).write_bytes(b"x" * BIG)
    unlisted = hub.hub / "blobs" / "ab" / ("ab" * 32)
    unlisted.parent.mkdir(exist_ok=True)
    unlisted.write_bytes(b"x" * BIG)
    cache = hub_cache(hub.hub)
    assert codes(entry_of(cache, "org/a")) == ["orphan_blob"]
    store = entry_of(cache, "shared blob store")
    assert codes(store) == ["no_manifest", "orphan_store_blob"]
    assert store.frees_bytes > 2 * BIG


def test_empty_repos_and_snapshots_are_listed(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    hub.add("org/empty", "1", {})
    hub.repo("org/none").mkdir()
    hub.repo("data/set", "datasets").mkdir()
    cache = hub_cache(hub.hub)
    assert codes(entry_of(cache, "org/empty")) == ["empty_snapshot"]
    assert codes(entry_of(cache, "org/none")) == ["no_snapshots"]
    assert entry_of(cache, "data/set").repo_type == "dataset"


@pytest.mark.parametrize("marker", [None, "2\n", "1"])
def test_a_store_of_an_unknown_version_is_left_alone_and_named(tmp_path, marker):
    hub = HubMaker(tmp_path / "hub", shared=True)
    hub.add("org/a", "1", {"w.bin": b"s" * BIG})
    path = hub.hub / "blobs" / ".huggingface-shared-blobs"
    path.unlink()
    if marker is not None:
        path.write_text(marker)
    cache = hub_cache(hub.hub)
    assert cache.layout.startswith("unknown store (")
    assert codes(entry_of(cache, "shared blob store")) == ["unknown_layout"]
    repo = entry_of(cache, "org/a")
    assert repo.frees_bytes < BIG
    assert cache.physical_bytes == du(hub.hub)


def test_directories_that_are_no_repo_are_listed_as_other(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    (hub.hub / "notes").mkdir()
    (hub.hub / ".locks" / "models--gone--repo").mkdir(parents=True)
    cache = hub_cache(hub.hub)
    assert {e.what for e in cache.entries} == {"other", "bookkeeping"}
    assert sum(e.physical_bytes for e in cache.entries) == du(hub.hub)


def test_links_out_of_the_cache_are_told_and_not_followed(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    snapshot = hub.add("org/a", "1", {"c.json": b"{}"})
    (tmp_path / "far").write_bytes(b"x" * BIG)
    (snapshot / "far.bin").symlink_to(tmp_path / "far")
    (hub.repo("org/a") / "blobs" / ("f" * 64)).symlink_to(tmp_path / "far")
    (snapshot / "near.bin").symlink_to(f"../../blobs/{'f' * 64}")
    entry = entry_of(hub_cache(hub.hub), "org/a")
    assert codes(entry) == ["foreign_link", "foreign_link"]
    assert entry.physical_bytes < BIG


def test_absolute_links_to_blobs_count_as_links_to_blobs(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    snapshot = hub.add("org/a", "1", {"w.bin": b"s" * BIG})
    target = (snapshot / "w.bin").resolve()
    (snapshot / "w.bin").unlink()
    (snapshot / "w.bin").symlink_to(target)
    entry = entry_of(hub_cache(hub.hub), "org/a")
    assert codes(entry) == []
    assert entry.parts[0].frees_bytes > BIG


def test_a_repo_that_was_moved_away_behind_a_link_is_listed(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    hub.add("org/big", "1", {"w.bin": b"w" * BIG})
    away = tmp_path / "other disk"
    hub.repo("org/big").rename(away)
    hub.repo("org/big").symlink_to(away)
    cache = hub_cache(hub.hub)
    found = entry_of(cache, "org/big")
    assert (found.what, found.physical_bytes, codes(found)) == ("link", 0, [])
    assert str(away) in found.how
    assert cache.physical_bytes == du(hub.hub)
