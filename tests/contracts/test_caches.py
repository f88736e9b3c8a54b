"""What every cache kind keeps, over every registered name."""

import os
from pathlib import Path

import pytest

from factories_caches import du, look_at
from gradience.storage.inventory.caches import CACHES
from gradience.storage.inventory.places import places
from gradience.storage.inventory.records import DAMAGE, Entry


def fill(root: Path) -> Path:
    """Names that mean something to one kind or another, and names that are awkward to all."""
    for path in (
        "models--a--b/blobs/0",
        "models--a--b/refs/main",
        "blobs/ab/x",
        ".locks/x/y.lock",
        "org___set/default/0.0.0/h/cache-1.arrow",
        "downloads/h",
        "extracted/h/f",
        "hub/checkpoints/w.pth",
        "hub/repo/x.py",
        "logs/l",
        "e/shard-cache/s",
        "transformers_modules/o/x.py",
        "artifacts/obj/x",
        "run-1/x",
        "checkpoint-1/optimizer.pt",
        "x/.cache/huggingface/download/f.metadata",
        "line\nbreak/x",
        "top",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x" * 5000)
    (root / os.fsdecode(b"caf\xe9")).mkdir()
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe")
    os.link(root / "top", root.parent / "outside")
    return root


@pytest.mark.parametrize("name", list(CACHES))
def test_a_kind_says_what_it_holds_and_how_to_get_it_back(name):
    kind = CACHES[name]
    assert name.isidentifier()
    assert kind.title
    assert kind.holds.endswith(".")
    assert kind.how.endswith(".")
    assert kind.recoverable in ("download", "rebuild", "lost", "unknown")


@pytest.mark.parametrize("name", list(CACHES))
def test_a_kind_reads_any_directory_without_a_crash_and_counts_it_once(name, tmp_path):
    root = fill(tmp_path / "root")
    entries, _ = CACHES[name].entries(look_at(root, name))
    for entry in flat(entries):
        assert entry.kind == name
        assert entry.name
        assert entry.frees_bytes + entry.shared_bytes == entry.physical_bytes >= 0
        assert {damage.code for damage in entry.damage} <= set(DAMAGE)
        assert entry.last_used_from in ("atime", "mtime", "record")
    once = sum(entry.physical_bytes for entry in entries)
    assert once == du(root) or (name == "project" and once < du(root))


def flat(entries: list[Entry]) -> list[Entry]:
    found = list(entries)
    for entry in entries:
        found += flat(list(entry.parts))
    return found


@pytest.mark.parametrize("name", list(CACHES))
def test_a_kind_reads_an_empty_directory(name, tmp_path):
    entries, _ = CACHES[name].entries(look_at(tmp_path, name))
    assert all(entry.what == "bookkeeping" or entry.files == 0 for entry in entries)


def test_every_kind_but_projects_has_a_place():
    found = {place.kind for place in places({}, Path("/home/me"))}
    assert set(CACHES) - found == {"project"}
