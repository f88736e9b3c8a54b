"""Cleaning a hub cache: counted link by link, under the client's own locks, in both layouts."""

import fcntl
import os
import re
import signal
import time
from pathlib import Path

import pytest

from factories_caches import HubMaker, codes, commit_of, du, hub_cache
from factories_changes import carry_out, clean_plan, holding, in_a_child, nobody, states, top
from gradience.storage.change import trash
from gradience.storage.change.records import Plan
from gradience.storage.change.recover import recover
from gradience.system.holders import Holders

DAY = 86400.0
SHARED = {"w.safetensors": b"w" * 90_000, "config.json": b"{}"}
layouts = pytest.mark.parametrize("shared", [False, True], ids=["per_repo", "store"])


@pytest.fixture
def make(tmp_path):
    def maker(shared: bool = False) -> HubMaker:
        return HubMaker(tmp_path / "hub", shared=shared)

    return maker


def kept(plan: Plan) -> dict[str, str]:
    return {one.name: one.code for one in plan.kept}


def chosen(plan: Plan) -> set[str]:
    return {item.name for item in plan.items}


def name(revision: str, repo: str = "org/m") -> str:
    return f"{repo}@{commit_of(revision)[:12]}"


def age(path: Path, days: float) -> None:
    """Let a file, or what a snapshot links to, look unused for so long."""
    then = time.time() - days * DAY
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if file.exists():
            os.utime(file.resolve(), (then, then))


@layouts
def test_a_blob_shared_with_a_kept_revision_survives(make, shared):
    hub = make(shared)
    old = hub.add("org/m", "a", {**SHARED, "old.bin": b"o" * 50_000}, ref="v1")
    new = hub.add("org/m", "b", SHARED)
    (hub.hub / ".locks" / "models--org--m").mkdir(parents=True)  # locks stay, here and for the hub
    before = du(hub.hub)
    plan = clean_plan(hub.hub, revisions=["aaaa"])
    assert chosen(plan) == {name("a")}
    receipt = carry_out(plan)
    assert receipt.complete
    assert receipt.freed == before - du(hub.hub) <= plan.frees_bytes
    assert not old.exists()
    assert (new / "w.safetensors").read_bytes() == SHARED["w.safetensors"]
    (entry,) = [e for e in hub_cache(hub.hub).entries if e.what == "repo"]
    assert (codes(entry), entry.refs) == ([], ("main",))


@layouts
def test_a_whole_repo_goes_and_what_another_repo_shares_with_it_stays(make, shared):
    hub = make(shared)
    hub.add("org/a", "a", {**SHARED, "only.bin": b"1" * 30_000})
    other = hub.add("org/b", "b", SHARED)
    receipt = carry_out(clean_plan(hub.hub, names=["org/a"]))
    assert receipt.complete
    assert not hub.repo("org/a").exists()
    assert (other / "w.safetensors").read_bytes() == SHARED["w.safetensors"]
    carry_out(clean_plan(hub.hub, names=["org/b"]))
    payloads = [p for p in hub.hub.glob("blobs/*/*") if p.suffix != ".lock"]
    assert payloads == []
    assert {n for n in top(hub.hub) if n.startswith("models--")} == set()


@layouts
def test_trash_comes_back_as_it_was(make, shared, tmp_path):
    from gradience.storage.change.trash import bring_back, empty, find  # noqa: PLC0415

    hub = make(shared)
    hub.add("org/a", "a", SHARED)
    hub.add("org/a", "b", {"x": b"y" * 20_000}, ref=None)
    before = picture(hub.hub)
    plan = clean_plan(hub.hub, names=["org/a"], verb="trash", force=True)
    receipt = carry_out(plan)
    assert receipt.complete
    assert receipt.freed < 30_000  # empty directories alone
    assert not hub.repo("org/a").exists()
    (trash,) = find([str(hub.hub)])
    assert bring_back(trash).stayed == ()
    assert picture(hub.hub) == before
    assert find([str(hub.hub)]) == []
    carry_out(clean_plan(hub.hub, names=["org/a"], verb="trash", force=True))
    (trash,) = find([str(hub.hub)])
    assert empty(trash).freed > 100_000
    assert ".gradience" not in top(hub.hub)


def picture(hub: Path) -> set[tuple[str, str]]:
    """Names with what they hold; locks aside."""
    return {
        (str(path.relative_to(hub)), str(path.readlink()) if path.is_symlink() else "")
        for path in hub.rglob("*")
        if path.suffix != ".lock" and ".locks" not in path.parts
    }


def test_without_a_wish_only_what_nothing_uses_goes(make):
    hub = make()
    snapshot = hub.add("org/m", "a", SHARED)
    hub.add("org/m", "b", {"other": b"2" * 9000}, ref=None)
    blobs = hub.repo("org/m") / "blobs"
    (blobs / "orphan").write_bytes(b"o" * 5000)
    (blobs / "etag.12345678.incomplete").write_bytes(b"i" * 5000)
    (hub.repo("org/m") / "refs" / "gone").write_text(commit_of("f"))
    (snapshot / "dangling").symlink_to("../../blobs/nowhere")
    hub.repo("org/empty").mkdir()
    for path in [*blobs.iterdir(), hub.repo("org/m") / "refs" / "gone", *snapshot.parent.iterdir()]:
        age(path, 3)
    plan = clean_plan(hub.hub, min_age=900)
    assert {(item.name, item.what) for item in plan.items} == {
        ("org/m", "junk"),
        ("org/empty", "junk"),
    }
    assert carry_out(plan).complete
    (entry,) = [e for e in hub_cache(hub.hub).entries if e.what == "repo"]
    assert codes(entry) == []
    assert len(entry.parts) == 2


@pytest.mark.parametrize("age_days", [0, 3])
def test_a_download_in_flight_is_left_alone_and_its_repo_too(make, age_days):
    hub = make()
    hub.add("org/m", "a", SHARED)
    part = hub.repo("org/m") / "blobs" / "etag.12345678.incomplete"
    part.write_bytes(b"i" * 5000)
    age(part, age_days)
    lock = hub.hub / ".locks" / "models--org--m" / "etag.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        plan = clean_plan(hub.hub, names=["org/m"], min_age=900)
        assert (plan.actions, set(kept(plan).values())) == ((), {"in_flight"})
    if age_days:
        assert "org/m" in chosen(clean_plan(hub.hub, min_age=900))


@layouts
def test_a_lock_taken_after_the_plan_keeps_its_blob(make, shared):
    hub = make(shared)
    hub.add("org/m", "a", SHARED)
    plan = clean_plan(hub.hub, names=["org/m"])
    guards = {"hub_store_blob"} if shared else {"hub_blob"}
    (held, *_) = [a for a in plan.actions if a.guard in guards]
    repo, _, etag = held.path.partition("/blobs/")
    lock = hub.hub / ".locks" / repo / f"{etag}.lock"
    if shared:
        lock = hub.hub / f"{held.path}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        receipt = carry_out(plan)
    assert not receipt.complete
    assert any("holds its lock" in r for o in receipt.outcomes for r in o.reasons)
    assert (hub.hub / held.path).exists()


@layouts
def test_a_link_made_after_the_plan_keeps_its_blob(make, shared):
    hub = make(shared)
    hub.add("org/m", "a", SHARED)
    plan = clean_plan(hub.hub, names=["org/m"])
    late = hub.add("org/m", "c", SHARED)
    carry_out(plan)
    assert (late / "w.safetensors").read_bytes() == SHARED["w.safetensors"]


@layouts
def test_a_revision_in_use_is_kept_with_every_revision_that_shares_the_file(make, shared):
    hub = make(shared)
    used = hub.add("org/m", "a", SHARED)
    hub.add("org/m", "b", {**SHARED, "x": b"x"}, ref="v2")
    hub.add("org/m", "c", {"own": b"3" * 5000}, ref="v3")
    file = (used / "w.safetensors").resolve()
    plan = clean_plan(hub.hub, names=["org/*"], holders=holding(file))
    assert chosen(plan) == {name("c")}
    assert kept(plan) == {name("a"): "in_use", name("b"): "in_use"}


def test_what_no_ref_names_may_be_pinned_and_is_kept_unless_named(make):
    hub = make()
    hub.add("org/m", "a", SHARED)
    hub.add("org/m", "b", {"x": b"y"}, ref=None)
    assert kept(clean_plan(hub.hub, names=["org/m"])) == {name("b"): "pinned"}
    assert chosen(clean_plan(hub.hub, revisions=["bbbbbb"])) == {name("b")}


def test_what_a_project_needs_is_kept(make, tmp_path):
    hub = make()
    for revision, ref in (("a", "main"), ("b", "v2")):
        hub.add("org/m", revision, {"x": revision.encode() * 9000}, ref=ref)
    hub.add("org/other", "c", SHARED)
    run = tmp_path / "runs" / "a7"
    run.mkdir(parents=True)
    adapter = run / "adapter_config.json"
    adapter.write_text('{"base_model_name_or_path": "org/m", "revision": null}')
    plan = clean_plan(hub.hub, names=["*"], projects=[tmp_path / "runs"])
    assert kept(plan) == {name("a"): "needed", name("b"): "needed"}
    assert str(adapter) in plan.kept[0].why
    adapter.write_text(f'{{"base_model_name_or_path": "org/m", "revision": "{commit_of("b")}"}}')
    plan = clean_plan(hub.hub, names=["*"], projects=[tmp_path / "runs"])
    assert kept(plan) == {name("b"): "needed"}
    assert chosen(clean_plan(hub.hub, names=["*"], projects=[tmp_path], force=True)) == {
        name("a"),
        name("b"),
        name("c", "org/other"),
    }


@pytest.mark.parametrize("fate", ["gated", "private", "gone", "unknown", "served"])
def test_the_last_copy_is_kept_unless_forced_and_then_with_a_warning(make, fate):
    hub = make()
    hub.add("org/m", "a", SHARED)
    plan = clean_plan(hub.hub, names=["org/m"], fate=fate)
    if fate in ("unknown", "served"):
        assert chosen(plan) == {name("a")}
        assert ("not asked" in "".join(plan.notes)) == (fate == "unknown")
        return
    assert kept(plan) == {name("a"): "last_copy"}
    forced = clean_plan(hub.hub, names=["org/m"], fate=fate, force=True)
    assert forced.items[0].warnings


def test_an_unknown_store_version_is_left_alone_and_named(make):
    hub = make(shared=True)
    hub.add("org/m", "a", SHARED)
    (hub.hub / "blobs" / ".huggingface-shared-blobs").write_text("2\n")
    plan = clean_plan(hub.hub)
    assert "unknown_layout" in kept(plan).values()
    assert not [a for a in plan.actions if a.path.startswith("blobs/")]


def test_a_shared_blob_without_a_list_is_never_removed(make):
    hub = make(shared=True)
    hub.add("org/m", "a", SHARED)
    for manifest in hub.hub.glob("blobs/*/*.refs"):
        manifest.unlink()
    carry_out(clean_plan(hub.hub, names=["org/m"]))
    assert len(list(hub.hub.glob("blobs/*/" + "?" * 64))) == 2
    assert "unlisted" in kept(clean_plan(hub.hub)).values()


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"max_size": 1_500_000}, {"b", "c"}),
        ({"keep_last": 1}, {"b", "c"}),
        ({"idle_days": 25}, {"c"}),
        ({"at_least": 950_000}, {"a"}),
        ({"min_free": 10**18}, {"a", "b", "c"}),
        ({"min_free": 1}, set()),
    ],
)
def test_budgets_and_filters_take_the_least_valuable(make, wish, expected):
    hub = make()
    for revision, days, size in (("a", 1, 10**6), ("b", 20, 9 * 10**5), ("c", 30, 8 * 10**5)):
        age(hub.add("org/m", revision, {"w": revision.encode() * size}, ref=revision), days)
    plan = clean_plan(hub.hub, **wish)
    assert chosen(plan) == {name(revision) for revision in expected}
    assert all(item.reasons for item in plan.items)


def with_old_revision(hub: HubMaker) -> Path:
    """A revision that nothing was added to for days, and an orphan blob; the repository."""
    snapshot = hub.add("org/m", "a", {**SHARED, "old.bin": b"o" * 5000}, ref="v1")
    repo = hub.repo("org/m")
    (repo / "blobs" / "orphan").write_bytes(b"o" * 5000)
    for blob in (repo / "blobs").iterdir():
        age(blob, 3)
    os.utime(snapshot, (time.time() - 3 * DAY,) * 2)
    return repo


@pytest.mark.parametrize("verb", ["delete", "trash"])
def test_a_snapshot_written_after_the_plan_keeps_all_that_would_free_blobs_of_its_repo(make, verb):
    hub = make()
    repo = with_old_revision(hub)
    plan = clean_plan(hub.hub, revisions=[commit_of("a")], min_age=900, verb=verb)
    # The client makes this directory, then looks for the blob, then waits for its lock.
    (repo / "snapshots" / commit_of("b")).mkdir()
    before = picture(hub.hub)
    receipt = carry_out(plan)
    assert (states(receipt), receipt.freed) == (["skipped"], 0)
    assert all("a download may be under way; wait " in r for r in receipt.outcomes[0].reasons)
    assert picture(hub.hub) == before


@pytest.mark.parametrize("force", [False, True])
def test_what_a_download_may_be_about_to_link_to_is_not_promised_and_the_plan_says_for_how_long(
    make, force
):
    hub = make()
    repo = with_old_revision(hub)
    new = hub.add("org/m", "b", {**SHARED, "new": b"n"})
    age(hub.add("org/other", "c", SHARED), 3)
    for link in new.iterdir():
        if link.name != "new":
            age(link.resolve(), 3)
    os.utime(new, (time.time() - 20,) * 2)
    wish = {"idle_days": 1, "force": force}
    plan = clean_plan(hub.hub, min_age=900, **wish)
    assert chosen(plan) == {name("c", "org/other")}
    assert kept(plan) == {"org/m": "in_flight", name("a"): "in_flight"}
    (why,) = {one.why for one in plan.kept}
    assert re.fullmatch(
        rf"snapshots/{commit_of('b')[:12]} was written 2\d s ago, so a download may be under way; "
        r"wait [34]\d s",
        why,
    )
    assert carry_out(plan).complete
    os.utime(new, (time.time() - 61,) * 2)
    plan = clean_plan(hub.hub, min_age=900, **wish)
    assert chosen(plan) == {"org/m", name("a")}
    assert carry_out(plan).complete
    assert {p.name for p in (repo / "blobs").iterdir()} == {
        link.readlink().name for link in new.iterdir()
    }


def test_of_a_time_that_is_yet_to_come_it_is_said_what_helps(make):
    hub = make()
    with_old_revision(hub)
    new = hub.add("org/m", "b", SHARED)
    os.utime(new, (time.time() - 61,) * 2)
    before = clean_plan(hub.hub, min_age=900, idle_days=1)
    os.utime(new, (time.time() + 86400,) * 2)
    plan = clean_plan(hub.hub, min_age=900, idle_days=1)
    said = [one.why for one in plan.kept if one.code == "in_flight"]
    said += carry_out(before).outcomes[0].reasons
    assert len(said) > 1
    assert all("has a time that is yet to come" in why for why in said)


def test_what_frees_no_blob_or_goes_with_all_its_repo_need_not_wait_for_a_download_to_settle(make):
    hub = make()
    with_old_revision(hub)
    new = hub.add("org/m", "b", {**SHARED, "old.bin": b"o" * 5000})
    age(new, 3)
    os.utime(new)
    assert kept(clean_plan(hub.hub, min_age=900)) == {"org/m": "in_flight"}
    plan = clean_plan(hub.hub, revisions=["aaaa"], min_age=900, junk=False)
    assert (chosen(plan), kept(plan)) == ({name("a")}, {})
    assert carry_out(plan).complete
    assert carry_out(clean_plan(hub.hub, names=["org/m"], min_age=900)).complete
    assert not hub.repo("org/m").exists()


@layouts
@pytest.mark.parametrize("killed", [False, True], ids=["", "killed"])
def test_what_a_client_links_to_while_it_is_aside_comes_back_with_all_it_leads_to(
    make, shared, killed
):
    hub = make(shared)
    old = hub.add("org/m", "a", SHARED, ref="v1")
    blob = old.joinpath("w.safetensors").readlink()
    plan = clean_plan(hub.hub, revisions=["aaaa"])
    link = old.with_name(commit_of("b")) / "w.safetensors"
    looks = iter(["before", "aside"])

    def holders() -> Holders:
        if next(looks) == "aside":
            link.parent.mkdir(parents=True)
            link.symlink_to(blob)
            assert not link.exists()
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
        return nobody()

    if killed:
        assert in_a_child(lambda: carry_out(plan, holders=holders))
        recover(str(hub.hub), nobody)
    else:
        assert not carry_out(plan, holders=holders).complete
    assert link.read_bytes() == SHARED["w.safetensors"]
    assert not (hub.hub / ".gradience").exists()


def test_what_was_downloaded_anew_while_the_old_was_aside_is_not_asked_for_again(make):
    hub = make()
    old = hub.add("org/m", "a", SHARED, ref="v1")
    blob = old.joinpath("w.safetensors").resolve()
    looks = iter(["before", "aside"])

    def holders() -> Holders:
        if next(looks) == "aside":
            hub.add("org/m", "b", SHARED)
        return nobody()

    receipt = carry_out(clean_plan(hub.hub, revisions=["aaaa"]), holders=holders)
    assert receipt.outcomes[0].state != "failed"
    assert blob.read_bytes() == SHARED["w.safetensors"]
    assert not (hub.hub / ".gradience").exists()


def with_rights(made: HubMaker) -> Path:
    """A repository whose directories are another user's, with modes of their own."""
    made.add("org/m", "a", SHARED, ref="main")
    repo = made.repo("org/m")
    for number, directory in enumerate(p for p in (repo, *repo.rglob("*")) if p.is_dir()):
        if os.geteuid() == 0:
            os.chown(directory, 65534, 65533)
        directory.chmod(0o2770 + number % 2 * 5)
    return repo


def rights(repo: Path) -> dict[Path, tuple[int, int, int]]:
    found = {path: path.lstat() for path in (repo, *repo.rglob("*")) if path.is_dir()}
    return {path: (s.st_uid, s.st_gid, s.st_mode) for path, s in found.items()}


@pytest.mark.parametrize("killed", [False, True], ids=["", "killed"])
def test_directories_that_are_made_again_have_owner_group_and_mode_of_old(make, killed):
    made = make()
    repo = with_rights(made)
    old, plan = rights(repo), clean_plan(made.hub, names=["org/m"])

    def opened_meanwhile() -> Holders:
        aside = [p for p in made.hub.glob(".gradience/*/things/*") if p.is_file()]
        if killed and aside and not repo.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return holding(*aside)

    if killed:
        assert in_a_child(lambda: carry_out(plan, holders=opened_meanwhile))
        assert not repo.exists()
        killed = False
        recover(str(made.hub), opened_meanwhile)
    else:
        assert states(carry_out(plan, holders=opened_meanwhile)) == ["undone"]
    assert rights(repo) == old


def test_from_the_trash_a_repository_comes_back_with_owner_group_and_mode_of_old(make):
    made = make()
    repo = with_rights(made)
    (repo / "refs" / "pr").mkdir()
    old = rights(repo)
    carry_out(clean_plan(made.hub, names=["org/m"], verb="trash"))
    assert not repo.exists()
    (thing,) = trash.find([str(made.hub)])
    assert trash.bring_back(thing).stayed == ()
    assert rights(repo) == old
    assert not (made.hub / ".gradience").exists()


def test_a_directory_whose_mode_was_changed_after_the_plan_stays(make):
    made = make()
    made.add("org/m", "a", SHARED)
    plan = clean_plan(made.hub, names=["org/m"])
    made.repo("org/m").chmod(0o711)
    receipt = carry_out(plan)
    assert made.repo("org/m").stat().st_mode & 0o777 == 0o711
    assert any("owner, group or mode was changed" in why for why in receipt.outcomes[0].reasons)
