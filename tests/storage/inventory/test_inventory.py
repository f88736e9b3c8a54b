"""The inventory as a whole: places, last use, selection, and what cannot be read."""

import os
import stat
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from factories_caches import (
    NOW,
    HubMaker,
    cache_of,
    du,
    entry_of,
    environ_of,
    generate,
    hub_cache,
    inventory_of,
)
from gradience.errors import UnknownNameError
from gradience.storage.inventory.caches.kind import Look, last_used
from gradience.storage.inventory.places import Place
from gradience.storage.inventory.records import Inventory, for_json
from gradience.storage.inventory.scan import Root, scan
from gradience.storage.inventory.selection import SORTS, select
from gradience.storage.inventory.take import atime_policy
from gradience.storage.inventory.tally import Tally

DAY = 86400.0


def aged(hub: HubMaker, name: str, *, read_days: float, written_days: float) -> None:
    for blob in (hub.repo(name) / "blobs").iterdir():
        now = NOW.timestamp()
        os.utime(blob, (now - read_days * DAY, now - written_days * DAY))


# --- last use ------------------------------------------------------------------------------------


def test_last_use_is_the_newest_read_of_a_blob(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    hub.add("org/a", "1", {"w.bin": b"x"})
    aged(hub, "org/a", read_days=3, written_days=50)
    entry = entry_of(hub_cache(hub.hub), "org/a")
    if hub_cache(hub.hub).atime == "never":
        assert entry.last_used_from == "mtime"
    else:
        assert (entry.last_used, entry.last_used_from) == (
            pytest.approx(NOW.timestamp() - 3 * DAY),
            "atime",
        )


def test_looking_makes_nothing_look_used(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    hub.add("org/a", "1", {"w.bin": b"x"})
    files = [p for p in hub.hub.rglob("*") if p.is_file() and not p.is_symlink()]
    for path in files:
        os.utime(path, (1e9, 2e9))  # read before it was written: relatime would note a read
    first = hub_cache(hub.hub)
    assert hub_cache(hub.hub) == first
    assert {path.stat().st_atime for path in files} == {1e9}


@pytest.mark.parametrize(
    ("policy", "atime", "mtime", "recorded", "expected"),
    [
        ("daily", 30.0, 20.0, None, (30.0, "atime")),
        ("strict", 30.0, 20.0, None, (30.0, "atime")),
        ("never", 30.0, 20.0, None, (20.0, "mtime")),
        ("daily", 20.0, 20.0, None, (20.0, "mtime")),
        ("never", 30.0, 20.0, 25.0, (25.0, "record")),
        ("daily", 30.0, 20.0, 25.0, (30.0, "atime")),
        ("daily", 0.0, 0.0, None, (None, "mtime")),
    ],
)
def test_the_clock_that_is_trusted_is_named(tmp_path, policy, atime, mtime, recorded, expected):
    tree = scan([Root(str(tmp_path), lambda _: True)]).trees[0]
    assert tree is not None
    uses = {} if recorded is None else {"/x": recorded}
    tally = Tally()
    tally.atime, tally.mtime = atime, mtime
    look = Look(kind="hub", tree=tree, now=100.0, atime=policy, uses=uses)
    assert last_used(look, tally, "/x") == expected


def test_the_mount_says_what_it_does_with_access_times(tmp_path):
    assert atime_policy(str(tmp_path)) in ("strict", "daily", "never", "unknown")
    assert atime_policy(str(tmp_path / "absent")) == "unknown"


# --- places --------------------------------------------------------------------------------------


def test_a_cache_that_is_asked_for_alone_is_the_same_as_among_all(tmp_path):
    generate(tmp_path, repos=2, files=4)
    everything = inventory_of(environ_of(tmp_path), tmp_path / "home")
    for cache in everything.caches:
        alone = inventory_of(environ_of(tmp_path), tmp_path / "home", kinds=[cache.kind])
        assert [c.kind for c in alone.caches] == [cache.kind]
        assert alone.caches[0].physical_bytes == cache.physical_bytes


def test_a_cache_inside_another_is_counted_once(tmp_path):
    home = tmp_path / "home"
    HubMaker(home / ".cache" / "gradience" / "hub").add("org/a", "1", {"w": b"x" * 100_000})
    (home / ".cache" / "gradience" / "audits").mkdir()
    environ = {"HF_HUB_CACHE": str(home / ".cache" / "gradience" / "hub")}
    found = inventory_of(environ, home)
    assert found.physical_bytes == du(home / ".cache" / "gradience")
    assert cache_of(found, "gradience").physical_bytes < 100_000
    assert [e.name for e in cache_of(found, "gradience").entries if e.what == "records"] == [
        "audits"
    ]


def test_a_cache_that_is_a_link_to_another_disk_is_read_there(tmp_path):
    hub = HubMaker(tmp_path / "big" / "hub")
    hub.add("org/a", "1", {"w": b"x" * 100_000})
    (tmp_path / "hub").symlink_to(hub.hub)
    cache = hub_cache(tmp_path / "hub")
    assert cache.root == str(hub.hub)
    assert entry_of(cache, "org/a").damage == ()


def test_a_second_cache_of_a_kind_is_listed_beside_the_first(tmp_path):
    for name in ("one", "two"):
        HubMaker(tmp_path / name).add(f"org/{name}", "1", {"w": b"x"})
    also = [Place(kind="hub", path=tmp_path / "two", chosen_by="--at")]
    found = inventory_of(
        {"HF_HUB_CACHE": str(tmp_path / "one")}, tmp_path / "home", kinds=["hub"], also=also
    )
    assert {c.chosen_by for c in found.caches} == {"--at", "HF_HUB_CACHE"}


def test_an_unknown_kind_is_refused_by_name(tmp_path):
    with pytest.raises(UnknownNameError, match="hubb"):
        inventory_of({}, tmp_path, kinds=["hubb"])


def test_no_cache_at_all_is_an_empty_inventory(tmp_path):
    found = inventory_of({}, tmp_path / "home", kinds=["hub", "datasets"])
    assert found.caches == ()
    assert set(found.absent) == {"hub", "datasets"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_closed_repo_is_listed_as_unreadable():
    import tempfile  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        hub = HubMaker(Path(name) / "hub")
        hub.add("org/a", "1", {"w": b"x"})
        (hub.repo("org/a") / "blobs").chmod(stat.S_IRWXU)
        os.seteuid(65534)
        try:
            cache = hub_cache(hub.hub)
        finally:
            os.seteuid(0)
        assert cache.unreadable_count == 1
        damage = {d.code for d in entry_of(cache, "org/a").damage}
        assert "unreadable" in damage
        assert "broken_link" not in damage


# --- selection -----------------------------------------------------------------------------------


def sample(tmp_path: Path) -> Inventory:
    hub = HubMaker(tmp_path / "hub")
    for name, size, days in (("org/new", 10, 0.1), ("org/old", 400_000, 40), ("us/mid", 9000, 10)):
        hub.add(name, "1", {"w.bin": b"x" * size})
        aged(hub, name, read_days=days + 1, written_days=days)
    (hub.repo("us/mid") / "refs" / "old").write_text("9" * 40)
    return inventory_of({"HF_HUB_CACHE": str(hub.hub)}, tmp_path / "home", kinds=["hub"])


def selected(inventory: Inventory, **options: object) -> list[str]:
    chosen = select(inventory, **options)  # type: ignore[arg-type]
    return [e.name for c in chosen.caches for e in c.entries if e.what == "repo"]


def test_entries_are_chosen_by_name_age_size_and_damage(tmp_path):
    found = sample(tmp_path)
    assert selected(found, names=["org/*"]) == ["org/old", "org/new"]
    assert selected(found, names=["ORG/*"]) == []
    assert selected(found, idle=timedelta(days=5)) == ["org/old", "us/mid"]
    assert selected(found, at_least=100_000) == ["org/old"]
    assert selected(found, damaged=True) == ["us/mid"]
    assert selected(found, names=["org/*"], idle=timedelta(days=5)) == ["org/old"]


@pytest.mark.parametrize("sort", list(SORTS))
def test_every_order_keeps_every_entry(tmp_path, sort):
    found = sample(tmp_path)
    assert sorted(selected(found, sort=sort)) == ["org/new", "org/old", "us/mid"]
    if sort == "age":
        assert selected(found, sort=sort) == ["org/old", "us/mid", "org/new"]


# --- JSON ----------------------------------------------------------------------------------------


def test_an_inventory_survives_json(tmp_path):
    found = sample(tmp_path)
    data = msgspec.json.encode(for_json(found))
    assert msgspec.json.decode(data, type=Inventory) == found


def test_a_name_that_is_no_text_is_written_escaped(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    (hub.hub / os.fsdecode(b"caf\xe9")).mkdir()
    found = inventory_of({"HF_HUB_CACHE": str(hub.hub)}, tmp_path / "home", kinds=["hub"])
    data = msgspec.json.encode(for_json(found))
    again = msgspec.json.decode(data, type=Inventory)
    assert "caf\\xe9" in {e.name for e in again.caches[0].entries}
