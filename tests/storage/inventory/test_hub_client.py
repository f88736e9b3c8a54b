"""Caches as the real huggingface_hub client fills them, from a loop-back server."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from factories_caches import NOW, check, codes, commit_of, du, entry_of, hub_cache, problems
from gradience.storage.inventory.records import Damage, Entry
from gradience.storage.verify.run import verify
from hub_server import Hub, Repo, serve

BIG = b"w" * 400_000
OLD, NEW, PINNED = commit_of("a"), commit_of("b"), commit_of("c")

DOWNLOAD = """
import sys
from huggingface_hub import snapshot_download
revision, local_dir = (value or None for value in sys.argv[2:4])
snapshot_download(sys.argv[1], revision=revision, local_dir=local_dir)
"""


def client(hub: Hub, home: Path, repo: str, revision: str = "", local_dir: str = ""):
    environ = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return subprocess.Popen(
        [sys.executable, "-c", DOWNLOAD, repo, revision, local_dir],
        env=environ
        | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def download(hub: Hub, home: Path, repo: str, revision: str = "", local_dir: str = "") -> str:
    process = client(hub, home, repo, revision, local_dir)
    _, errors = process.communicate(timeout=60)
    return "" if process.returncode == 0 else errors


def parts(entry: Entry) -> dict[str, Entry]:
    return {part.name: part for part in entry.parts}


def test_revisions_of_one_repo_and_a_pinned_commit(tmp_path):
    first = Repo({"w.bin": BIG, "c.json": b"{}"}, commit=OLD, revisions=("v1",))
    pinned = Repo({"w.bin": BIG[:-1], "c.json": b"{}"}, commit=PINNED, revisions=())
    last = Repo({"w.bin": BIG, "c.json": b"[]"}, commit=NEW, earlier=(first, pinned))
    with serve(org__m=last) as hub:
        for revision in ("", "v1", PINNED):
            assert download(hub, tmp_path, "org/m", revision) == ""
    cache = hub_cache(tmp_path / "hub")
    entry = entry_of(cache, "org/m")
    assert (codes(entry), entry.refs) == ([], ("main", "v1"))
    found = parts(entry)
    assert {name: part.refs for name, part in found.items()} == {
        NEW: ("main",),
        OLD: ("v1",),
        PINNED: (),
    }
    assert found[NEW].shared_bytes >= len(BIG)
    assert found[NEW].frees_bytes < len(BIG) < found[PINNED].frees_bytes + 1
    assert cache.physical_bytes == du(tmp_path / "hub")
    assert sum(e.physical_bytes for e in cache.entries) == cache.physical_bytes
    verified = check(tmp_path / "hub", deep=True)
    assert (problems(verified), verified.by_hash) == ([], 4)


def test_two_repos_with_the_same_file(tmp_path):
    with serve(org__a=Repo({"w.bin": BIG}), org__b=Repo({"w.bin": BIG})) as hub:
        assert download(hub, tmp_path, "org/a") == ""
        assert download(hub, tmp_path, "org/b") == ""
    cache = hub_cache(tmp_path / "hub")
    for name in ("org/a", "org/b"):
        # Without Xet the client keeps a copy per repo: each frees its own.
        assert entry_of(cache, name).frees_bytes > len(BIG)
    assert cache.physical_bytes == du(tmp_path / "hub")


def test_a_download_under_way_and_one_that_was_killed(tmp_path):
    repo = Repo({"w.bin": BIG * 60, "c.json": b"{}"}, halting=frozenset({"w.bin"}))
    with serve(org__m=repo) as hub:
        process = client(hub, tmp_path, "org/m")
        try:
            assert hub.halfway.wait(60)
            incomplete = wait_for_part(tmp_path / "hub")
            (running,) = unfinished(tmp_path / "hub")
        finally:
            process.kill()
            process.communicate()
        (killed,) = unfinished(tmp_path / "hub")
        assert (running.held, killed.held) == (True, False)
        assert killed.physical_bytes == du(incomplete)
        assert killed.path == str(incomplete)


def wait_for_part(hub: Path) -> Path:
    """The part of the large file, once the small one is whole."""
    for _ in range(600):
        parts = list(hub.glob("*/blobs/*.incomplete"))
        if len(parts) == 1 and parts[0].stat().st_size >= len(BIG):
            return parts[0]
        time.sleep(0.05)
    raise AssertionError("the client never began")


def unfinished(hub: Path) -> list[Damage]:
    return [d for d in entry_of(hub_cache(hub), "org/m").damage if d.code == "incomplete"]


def test_a_gated_repo_leaves_nothing_that_looks_like_a_model(tmp_path):
    with serve(org__m=Repo({"w.bin": BIG}, gated=True)) as hub:
        assert "403" in download(hub, tmp_path, "org/m")
    cache = hub_cache(tmp_path / "hub")
    assert cache.physical_bytes == du(tmp_path / "hub") < len(BIG)
    for entry in cache.entries:
        assert entry.what != "repo" or set(codes(entry)) <= {"no_snapshots", "stale_ref"}


@pytest.mark.parametrize("change", [False, True])
def test_a_local_dir_that_the_client_filled(tmp_path, change):
    target = tmp_path / "p" / "model"
    with serve(org__m=Repo({"sub/w.bin": BIG, "c.json": b"{}"}, commit=NEW)) as hub:
        assert download(hub, tmp_path / "hf", "org/m", "", str(target)) == ""
    if change:
        (target / "c.json").write_bytes(b"[]")
    found = verify(
        environ={}, home=tmp_path / "home", now=NOW, projects=[tmp_path / "p"], deep=True
    )
    expected = {"changed_locally"} if change and newer(target) else set()
    assert set(problems(found)) - {"wrong_hash"} == expected
    assert bool(problems(found)) == change


def newer(target: Path) -> bool:
    note = target / ".cache" / "huggingface" / "download" / "c.json.metadata"
    return (target / "c.json").stat().st_mtime - 1 > float(note.read_text().splitlines()[2])
