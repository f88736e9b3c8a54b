"""A shared cache: the group may use it, a login stays private, and all of it can be taken back."""

import os
import stat
from pathlib import Path

import pytest

from factories_caches import HubMaker
from factories_changes import carry_out, dies, holding, names_below, nobody, plan_of, states, top
from factories_disks import as_nobody
from factories_doctor import facts, use
from gradience.errors import UsageError
from gradience.storage.change.records import Plan
from gradience.storage.change.recover import recover
from gradience.storage.change.share import Group, back, plan_group, plan_links
from gradience.storage.doctor import places
from gradience.storage.doctor.questions import LOGIN
from gradience.storage.doctor.rules_rights import foreign, group_sharing, token, umask

GROUP = Group(name="nogroup", number=65534)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """HF_HOME with a hub cache and a login in it."""
    root = tmp_path / "hf"
    HubMaker(root / "hub").add("org/m", "a", {"w": b"w" * 5000})
    (root / "token").write_text("hf_secret")
    for path in (root / "hub" / "models--org--m" / "blobs").iterdir():
        path.chmod(0o444)
    return root


def rights(root: Path) -> dict[str, tuple[int, int]]:
    found = {".": root.stat()} | {n: (root / n).lstat() for n in names_below(root)}
    return {n: (s.st_gid, stat.S_IMODE(s.st_mode)) for n, s in found.items()}


def plans(root: Path) -> tuple[Plan, Plan]:
    if os.geteuid() != 0:
        pytest.skip("gives files to another group")
    plan = plan_group(str(root), GROUP, change="test", now=0.0)
    return plan, back(plan)


@pytest.mark.root
def test_the_doctor_finds_nothing_in_a_shared_cache_with_trash_in_it(home):
    (home / "hub" / "old").write_bytes(b"x")
    assert carry_out(plan_of(home / "hub", "old", verb="trash")).complete
    plan, _ = plans(home)
    assert any("umask 002" in note for note in plan.notes)
    assert any("HF_TOKEN_PATH" in note for note in plan.notes)
    assert carry_out(plan).complete
    own = home / "hub/.gradience"
    assert [stat.S_IMODE(p.stat().st_mode) for p in (own, own / "test")] == [0o2775, 0o700]
    uses = [use(path=str(home / "hub")), use(purpose=LOGIN, path=str(home / "token"))]
    healthy = facts(
        *uses,
        places={u.path: places.place(Path(u.path)) for u in uses},
        parts=tuple(places.parts([home, home / "hub"])),
        tokens=tuple(places.tokens({home / "token": True})),
        umask=0o002,
    )
    found = [f for rule in (foreign, group_sharing, token, umask) for f in rule(healthy)]
    assert found == []
    assert plans(home)[0].actions == ()  # a second time there is nothing to do


@pytest.mark.root
def test_it_is_taken_back_to_the_last_bit(home):
    outside = home.parent / "outside"
    outside.write_bytes(b"precious")
    outside.chmod(0o600)
    (home / "hub" / "link").symlink_to(outside)
    (home / "hub" / "up").symlink_to(home.parent)
    before = rights(home)
    plan, back = plans(home)
    assert carry_out(plan).complete
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600  # links are not followed
    shared = rights(home)
    assert shared["."] == (65534, 0o2775)
    assert shared["token"] == (before["token"][0], 0o600)
    blob = next(name for name in shared if "/blobs/" in name)
    assert shared[blob] == (65534, 0o444)
    assert carry_out(back).complete
    assert rights(home) == before


@pytest.mark.root
def test_a_file_with_a_name_outside_is_not_opened(home):
    outside = home.parent / "shadow"
    outside.write_bytes(b"precious")
    outside.chmod(0o600)
    os.link(outside, home / "hub" / "planted")
    inside = home / "hub" / "twice"
    inside.write_bytes(b"x")
    inside.chmod(0o600)
    os.link(inside, home / "hub" / "twice too")
    plan, _ = plans(home)
    assert [(kept.name, kept.code) for kept in plan.kept] == [(f"{home}/hub/planted", "linked")]
    assert carry_out(plan).complete
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    assert stat.S_IMODE(inside.stat().st_mode) == 0o660


@pytest.mark.root
def test_another_user_of_the_group_adds_a_file_that_the_group_may_use(home, tmp_path):
    assert carry_out(plans(home)[0]).complete
    for above in (tmp_path, *tmp_path.parents[:-2]):
        if above.stat().st_uid == 0 and not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)
    said = as_nobody(
        "###\n"
        f"import os; os.umask(0o002); os.mkdir({str(home / 'hub' / 'new')!r})\n"
        f"s = os.stat({str(home / 'hub' / 'new')!r}); print(s.st_gid, oct(s.st_mode & 0o7777))\n"
        f"print(os.access({str(home / 'token')!r}, os.R_OK))",
        tmp_path,
    )
    assert said.split() == ["65534", "0o2775", "False"]


@pytest.mark.root
def test_what_is_in_use_or_was_changed_stays_as_a_whole(home):
    before = rights(home)
    plan, _ = plans(home)
    held = holding(home / "hub" / "models--org--m" / "refs" / "main")
    assert states(carry_out(plan, holders=lambda: held)) == ["skipped"]
    assert rights(home) == before
    (home / "hub").chmod(0o700)
    assert states(carry_out(plan)) == ["skipped"]
    (home / "hub").chmod(before["hub"][1])
    assert rights(home) == before


@pytest.mark.parametrize("steps", range(2, 12))
def test_an_empty_directory_is_there_again_if_its_link_is_taken_back(home, tmp_path, steps):
    empty = tmp_path / "a" / "hub"
    empty.mkdir(parents=True)
    empty.chmod(0o750)
    killed = dies(plan_links(str(home / "hub"), [str(empty)], change="test", now=0.0), steps)
    recover(str(tmp_path), nobody)
    if killed and not empty.is_symlink():
        assert stat.S_IMODE(empty.stat().st_mode) == 0o750
    else:
        assert empty.readlink() == home / "hub"
    assert top(empty.parent) == ["hub"]


def test_projects_get_links_and_content_is_never_replaced(home, tmp_path):
    hub = home / "hub"
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "hub").mkdir()
    links = [str(tmp_path / name / "hub") for name in ("a", "b")]
    plan = plan_links(str(hub), links, change="test", now=0.0)
    assert carry_out(plan).complete
    assert [Path(link).readlink() for link in links] == [hub, hub]
    assert not plan_links(str(hub), links, change="test", now=0.0).actions
    late = plan_links(str(hub), [str(tmp_path / "c" / "hub")], change="test", now=0.0)
    (tmp_path / "c" / "hub").mkdir()
    (tmp_path / "c" / "hub" / "x").write_bytes(b"x")
    assert not carry_out(late).complete
    assert (tmp_path / "c" / "hub" / "x").read_bytes() == b"x"
    with pytest.raises(UsageError, match="holds something"):
        plan_links(str(hub), [str(tmp_path / "c" / "hub")], change="test", now=0.0)
